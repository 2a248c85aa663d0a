"""Arithmetic expressions as trees: drawing one, writing it down, thinking it through. Knows no language."""

from __future__ import annotations

from random import Random

from .thoughts import Work

Tree = int | tuple[str, "Tree", "Tree"]  # an integer, or (sign, left, right)

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_LARGEST = 99_999  # no intermediate result is larger


class UnfitExpression(ValueError):
    """A drawn expression that is not asked: it divides with a remainder, or grows too large."""


def value(tree: Tree) -> int:
    """
    Raises:
        UnfitExpression: a division leaves a remainder, or a result is larger than `_LARGEST`.
    """
    if isinstance(tree, int):
        return tree
    sign, left, right = tree
    a, b = value(left), value(right)
    if sign == "/" and (b == 0 or a % b):
        raise UnfitExpression(f"{a}/{b} is no integer")
    if sign == "*" and len(str(abs(a))) + len(str(abs(b))) > 6:
        raise UnfitExpression(f"{a}*{b} takes too long")
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[sign]
    if abs(result) > _LARGEST:
        raise UnfitExpression(f"{result} is too large")
    return result


def text(tree: Tree, signs: dict[str, str] | None = None, *, parentheses: str = "()") -> str:
    """The expression with no more parentheses than it needs; `signs` replaces the four signs."""
    return _text(tree, signs or {}, parentheses, 0, False)


def _text(tree: Tree, signs: dict[str, str], parentheses: str, outer: int, is_right: bool) -> str:
    if isinstance(tree, int):
        wrap = tree < 0 and (is_right or outer > 1)
        body = str(tree)
    else:
        sign, left, right = tree
        own = _PRECEDENCE[sign]
        wrap = own < outer or (own == outer and is_right)
        body = _text(left, signs, parentheses, own, False) + signs.get(sign, sign) + _text(right, signs, parentheses, own, True)
    return f"{parentheses[0]}{body}{parentheses[1]}" if wrap else body


def think(tree: Tree, work: Work) -> int:
    """Writes the expression, works out one operation, writes what is left, and so on to the result."""
    while not isinstance(tree, int):
        work.lines.append(text(tree))
        tree = _reduced(tree, work)
    return tree


def _reduced(tree: Tree, work: Work) -> Tree:
    """The tree after its first operation: the leftmost whose operands are both numbers, depth first."""
    assert not isinstance(tree, int), "a number has no operation"
    sign, left, right = tree
    if not isinstance(left, int):
        return sign, _reduced(left, work), right
    if not isinstance(right, int):
        return sign, left, _reduced(right, work)
    operation = {"+": work.add, "-": work.subtract, "*": work.multiply, "/": work.divide}[sign]
    return operation(left, right)


def draw(random: Random, operations: int) -> Tree:
    """A random expression of so many operations, whose every result is an integer.

    Raises:
        UnfitExpression: what was drawn is not asked; draw again.
    """
    if operations == 0:
        digits = random.choices((1, 2, 3), (4, 5, 2))[0]
        return random.randrange(10 ** (digits - 1) if digits > 1 else 1, 10**digits)
    left_operations = random.randrange(operations)
    left = draw(random, left_operations)
    right = draw(random, operations - 1 - left_operations)
    sign = random.choices("+-*/", (30, 30, 28, 12))[0]
    if sign == "/":
        left, right = _divisible(random, left, right)
    tree = (sign, left, right)
    value(tree)
    return tree


def _divisible(random: Random, left: Tree, right: Tree) -> tuple[Tree, Tree]:
    """Operands like these of which one is changed so that the division leaves no remainder."""
    if isinstance(left, int):
        divisor = value(right)
        return divisor * random.randrange(2, 40), right
    dividend = abs(value(left))
    divisors = [d for d in range(2, 100) if dividend % d == 0]
    if not divisors or not isinstance(right, int):
        raise UnfitExpression(f"{dividend} has no small divisor")
    return left, random.choice(divisors)
