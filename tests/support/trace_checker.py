"""An independent reader of the model's thinking: says whether each written line is true. Shares no code with the generator."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

_OPERATORS: dict[type[ast.AST], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(text: str) -> Fraction:
    """The value of an expression of integers (leading zeros allowed) with + - * / and parentheses."""
    tree = ast.parse(re.sub(r"(?<!\d)0+(?=\d)", "", text), mode="eval").body

    def of(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -of(node.operand)
        assert isinstance(node, ast.BinOp), f"{text!r} is no expression"
        return _OPERATORS[type(node.op)](of(node.left), of(node.right))

    return of(tree)


def check_trace(trace: str) -> Fraction | None:
    """The result of the last expression. Each line must be true.

    `x=y`, `x<y`, `x>y` are evaluated; `=n` must be the value of an expression written above it; `=QrR` of a division above
    it; `p:q` is a guess that the following lines must confirm or refute; `a?b` announces a comparison.

    Raises:
        AssertionError: a line is not true; names it.
    """
    written: list[str] = []
    result: Fraction | None = None
    for line in trace.splitlines():
        if match := re.fullmatch(r"=(\d+)r(\d+)", line):
            quotient, remainder = map(int, match.groups())
            divisions = [m for w in written for m in re.finditer(r"(?=(?<!\d)(\d+)\)?/\(?-?(\d+))", w)]
            fits = [m for m in divisions if divmod(int(m[1]), int(m[2])) == (quotient, remainder)]
            assert fits, f"{line!r} divides nothing written above it in\n{trace}"
            result = Fraction(quotient)
        elif line.startswith("="):
            result = evaluate(line[1:])
            values = [value for w in written for value in _values(w)]
            assert result in values, f"{line!r} is the value of nothing above it in\n{trace}"
        elif match := re.fullmatch(r"([^=<>]+)([=<>])([^=<>]+)", line):
            left, relation, right = evaluate(match[1]), match[2], evaluate(match[3])
            truths = {"=": left == right, "<": left < right, ">": left > right}
            assert truths[relation], f"{line!r} is not true"
        else:
            written.append(line)
    return result


def _values(line: str) -> list[Fraction]:
    """An expression line's value, and the values of the two-number operations in it."""
    if not re.fullmatch(r"[-+*/()\d]+", line):
        return []
    number = r"-?\d+|\(-?\d+\)"
    inner = re.findall(rf"(?=(?<!\d)((?:{number})[-+*/](?:{number})))", line)  # overlapping: 9-4-3 has two
    values = []
    for text in (line, *inner):
        try:
            values.append(evaluate(text))
        except (SyntaxError, ZeroDivisionError):
            continue
    return values
