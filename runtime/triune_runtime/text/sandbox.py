"""Jinja as transformers sets it up for chat templates, in a sandbox with limits: a template comes with the model, unread."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import jinja2
import jinja2.nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_environment, pass_eval_context

_MOST_BITS = 1 << 16  # of a whole number that is multiplied or divided
_MOST_DIGITS = 1000  # to round to
_MOST_LINKED = 10_000  # letters in which links are looked for
_BOUNDED = {"*": operator.mul, "**": operator.pow, "%": operator.mod, "//": operator.floordiv, "/": operator.truediv}


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`: marks, for training, what the model writes. Here it is its body."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> str:
        return caller()


class TemplateNamespace(Namespace):
    """Jinja's own, without names that begin with an underscore."""

    def __init__(*args: Any, **values: Any) -> None:
        named = dict(*args[1:], **values)
        for name in named:
            _check_name(name)
        Namespace.__init__(args[0], named)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class TemplateDict:
    """`dict` without what a class could be used for besides."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """What a template runs in. Its operations take no longer than their operands are long."""

    intercepted_binops = frozenset(_BOUNDED)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols])
        self.filters |= {"tojson": to_json, "round": _round, "urlize": _urlize, "sum": _sum}
        self.globals |= {
            "raise_exception": _raise, "strftime_now": _strftime_now, "dict": TemplateDict(), "namespace": TemplateNamespace,
        }  # fmt: skip

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _MOST_BITS:
                raise OverflowError(f"the operands of {operator} are too large")
        return _BOUNDED[operator](left, right)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as templates expect it: not escaped for HTML, unlike Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:  # a template may name its argument, and transformers calls it this
    return datetime.now().strftime(format)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no {name!r}: names in it do not begin with an underscore")


def _round(value: float, precision: int = 0, method: Any = "common") -> Any:
    if abs(precision) > _MOST_DIGITS:
        raise OverflowError(f"a number is rounded to {precision} digits")
    return _FILTERS["round"](value, precision, method)


@pass_eval_context
def _urlize(
    context: EvalContext, value: str, trim_url_limit: int | None = None, nofollow: bool = False, target: str | None = None,
    rel: str | None = None, extra_schemes: list[str] | None = None,
) -> Any:  # fmt: skip
    if len(value) > _MOST_LINKED:
        raise OverflowError(f"links are looked for in more than {_MOST_LINKED:,} letters")
    return _FILTERS["urlize"](context, value, trim_url_limit, nofollow, target, rel, extra_schemes)


@pass_environment
def _sum(environment: jinja2.Environment, iterable: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    """One by one: a sum of many lists takes as long as all before it together, and Python's own lets nobody end it."""
    total = start
    for value in iterable if attribute is None else map(make_attrgetter(environment, attribute), iterable):
        total = total + value
    return total


_FILTERS: Mapping[str, Callable[..., Any]] = FILTERS
