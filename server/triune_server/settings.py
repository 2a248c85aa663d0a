"""Settings and the ways to say them: an option, a make variable, a variable of the environment, a key of triune.toml.

A setting is declared once, by the field of `ServerOptions` or by the option of `triune build` that it stands for. Knows no file
and starts nothing.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from .errors import ServerError
from .options import ServerOptions
from .state import RUN_FOLDER

DEFAULT, OPTION, ENVIRONMENT = "default", "option", "environment"  # who said a value; of a file, its name
_CHOSEN = "auto"  # what some settings take beside a number, as max_length, whose option says so
_OR_NUMBER = f"NUMBER|{_CHOSEN}"
_NUMBER = re.compile(rf"\d[\d,_]*|{_CHOSEN}", re.IGNORECASE)
_ORIGINS = "triune.origins"  # where a command's context keeps them
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_EXPECTED = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    tuple: "a list of texts",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting. `kind` is str, int, float, bool, Path or tuple (of texts)."""

    name: str
    kind: type
    default: Any
    help: str
    least: float | None = None
    most: float | None = None
    or_number: bool = False  # of kind str: a number, or "auto"

    @property
    def option(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Of make."""
        return self.name.upper()

    @property
    def environment(self) -> str:
        return f"TRIUNE_{self.variable}"

    def parse(self, text: str) -> Any:
        """The value that a variable's text stands for; a list's texts are split as a shell does.

        Raises:
            ServerError: it stands for none.
        """
        value: Any = text
        try:
            if self.kind in (int, float):
                value = self.kind(text)
            elif self.kind is tuple:
                value = shlex.split(text)
            elif self.kind is bool and text.lower() in (*_YES, *_NO):
                value = text.lower() in _YES
        except ValueError:
            pass  # said below
        return self.check(value, self.environment)

    def check(self, value: Any, where: str) -> Any:
        """`value` as this setting has it.

        Args:
            where: who said it, for the error.

        Raises:
            ServerError: it is of another type, or out of range.
        """
        takes = f"a whole number, or {_CHOSEN}" if self.or_number else _EXPECTED[self.kind]
        expected = f"{where} is {_shown(value)}; expected {takes}"
        if self.kind is tuple:
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise ServerError(expected, f'e.g. {self.name} = ["...", "..."] in triune.toml')
            return tuple(value)
        if self.or_number and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if self.or_number and isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
            raise ServerError(expected, f"{self.name}: {self.help}")
        kinds: Any = {float: (int, float), Path: str}.get(self.kind, self.kind)
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.kind is not bool):
            quoted = isinstance(value, str) and where != self.environment
            raise ServerError(expected, "write it without quotation marks" if quoted else f"{self.name}: {self.help}")
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            raise ServerError(f"{where} is {value}; it can be {self.least} to {self.most}", f"choose another {self.variable}")
        if isinstance(value, str) and not value:
            raise ServerError(f"{where} is empty; expected {takes}", "leave it out, or name one")
        return _path(value) if self.kind is Path else value

    def taken(self, value: Any) -> Any:
        """The value of its option as this setting has it."""
        if self.kind is tuple:
            return tuple(value or ())
        return _path(value) if isinstance(value, Path) else value

    def said(self, value: Any) -> str:
        """How to say a value to make, in a shell."""
        text = " ".join(value) if isinstance(value, (tuple, list)) else str(value)
        return f"{self.variable}={shlex.quote(text)}"

    def parameter(self) -> inspect.Parameter:
        """The parameter of a command that takes it as an option."""
        kind: Any = list[str] if self.kind is tuple else self.kind
        default = None if self.kind is tuple else self.default
        kind = kind | None if default is None else kind
        # readable: whoever reads a file says what is wrong with it, and what to do.
        info = typer.Option(self.option, help=self.help, min=self.least, max=self.most, readable=False)
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


@dataclass(frozen=True)
class Values:
    """A value for each setting of a command, and who said it."""

    settings: Mapping[str, Setting]
    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def asked(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Those that somebody said, of `names` or of all."""
        return {n: self.values[n] for n in (self.values if names is None else names) if self.origins.get(n, DEFAULT) != DEFAULT}

    def of_model(self, entry: str) -> Values:
        """The same for one of the models that are served side by side: a model, or a JSON object of settings of its own."""
        own = json.loads(entry) if entry.startswith("{") else {"model": entry}
        taken = {name: self.settings[name].check(value, name) for name, value in own.items()}
        named = {"name": None, **taken}  # a name is one model's alone
        origins = {**self.origins, **dict.fromkeys(named, self.origins["models"])}
        return Values(self.settings, {**self.values, "repository": None, **named}, origins)

    def said_here(self) -> dict[str, Any]:
        """Those that were said with the command: not by a file, nor by default."""
        return {name: self.values[name] for name, origin in self.origins.items() if origin in (OPTION, ENVIRONMENT)}

    def one_of(self, one: str, other: str) -> Values:
        """The same, where of two settings that exclude each other only what was said more closely is left.

        Raises:
            ServerError: both were said in the same way.
        """
        near = {name: self._nearness(name) for name in (one, other)}
        if near[one] == near[other] > 0:
            names = [self.settings[name].option for name in near]
            raise ServerError(f"{' and '.join(names)} exclude each other", "leave one of them out")
        weaker = min(near, key=near.__getitem__)
        default = self.settings[weaker].default
        return Values(self.settings, {**self.values, weaker: default}, {**self.origins, weaker: DEFAULT})

    def _nearness(self, name: str) -> int:
        return {DEFAULT: 0, ENVIRONMENT: 2, OPTION: 3}.get(self.origins[name], 1)

    def server_options(self, **instead: Any) -> ServerOptions:
        """The server's part, with `instead` in the place of some."""
        names = [field.name for field in dataclasses.fields(ServerOptions)]
        known = {name: self.values[name] for name in names if name in self.settings}
        return ServerOptions(**known | dict(instead))


MODELS = Setting(
    name="models", kind=tuple, default=(),
    help="Several models; the first has plain names.",
)  # fmt: skip


def server_settings() -> dict[str, Setting]:
    """Those of a server, from the fields of `ServerOptions`, and where its state lies."""
    kinds = get_type_hints(ServerOptions)
    every = [
        Setting(
            name=field.name, kind=_kind(kinds[field.name]), **field.metadata,
            default=None if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(ServerOptions)
    ]  # fmt: skip
    every.append(Setting(name="run_folder", kind=Path, default=RUN_FOLDER, help="State and log."))
    return {setting.name: setting for setting in every}


def settings_of(command: Callable[..., Any], without: Sequence[str]) -> dict[str, Setting]:
    """Those that are declared as a command's options."""
    found = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name not in without:
            kind, info = get_args(parameter.annotation)[:2]
            found[parameter.name] = Setting(
                name=parameter.name,
                kind=_kind(kind),
                default=parameter.default,
                help=info.help,
                least=info.min,
                most=info.max,
                or_number=info.metavar == _OR_NUMBER,
            )
    return found


def with_settings(command: Callable[..., None], settings: Mapping[str, Setting], config: object = None) -> Callable[..., None]:
    """`command` with options in the place of its parameter `values`, which gets what was said, and by whom.

    Args:
        config: the annotation of an option --config, which has done its work when the command is called; None: no such option.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    has = {name: own.pop(name, None) is not None for name in ("context", "values")}

    def run(context: typer.Context, **given: Any) -> None:  # Typer passes what the signature below names
        passed = {name: given[name] for name in own}
        if has["values"]:
            values = {name: setting.taken(given[name]) for name, setting in settings.items()}
            passed["values"] = Values(settings, values, {name: _origin(context, name) for name in settings})
        command(**passed | ({"context": context} if has["context"] else {}))

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("context", keyword, annotation=typer.Context), *own.values()]
    if has["values"]:
        parameters += [setting.parameter() for setting in settings.values()]
    if config is not None:
        parameters.append(inspect.Parameter("config", keyword, default=None, annotation=config))
    run.__name__, run.__doc__ = command.__name__.strip("_"), command.__doc__
    run.__signature__ = inspect.Signature([p.replace(kind=keyword) for p in parameters])  # type: ignore[attr-defined]
    return run


def suggest(context: typer.Context, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Have `values` stand for the options of a command that are not given."""
    names = {parameter.name for parameter in context.command.params}
    context.default_map = {name: value for name, value in values.items() if name in names}
    context.meta[_ORIGINS] = origins


def _origin(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    if source is None or source.name == "DEFAULT":
        return DEFAULT
    return str(context.meta[_ORIGINS][name]) if source.name == "DEFAULT_MAP" else OPTION


def _kind(annotation: Any) -> type:
    """The type of a value, without None and without a list's elements."""
    if isinstance(annotation, UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    kind: type = get_origin(annotation) or annotation
    return tuple if kind is list else kind


def _path(value: str | Path) -> Path:
    return Path(os.path.expanduser(value))  # noqa: PTH111  # Path's own fails on a user that there is not


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
