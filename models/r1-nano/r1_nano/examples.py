"""What an example is, and which problems are held out, told by a hash of their operands. Knows no tokens."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from .phrasing import Language
from .thoughts import Operation

_HELD_OUT_EVERY = 64
_SIGNS = "+-*/?"


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What a right answer says: its last numbers, and for a comparison its verdict (yes, no, <, = or >)."""

    numbers: tuple[int, ...] = ()
    verdict: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A conversation that ends with a question, and the assistant's turn that follows."""

    task: str
    language: Language
    messages: tuple[tuple[str, str], ...]  # (role, content)
    thinks: bool = True  # False: the prompt already holds an empty thought
    thinking: str = ""  # ends with a newline
    answer: str
    is_cut: bool = False  # the thinking was stopped early; only the answer is learned
    expected: Expected | None = None
    problem: str = ""  # the asked expression or comparison, the same however it is phrased
    operations: tuple[Operation, ...] = ()  # worked out in the thinking, all of them


def is_held_out(operation: Operation) -> bool:
    """Whether training never sees it. The order of a sum's and a product's operands does not matter."""
    sign, a, b = operation
    if len(str(a)) + len(str(b)) < 4:
        return False  # the tables of small numbers are facts to know, not problems
    if sign != "/" and a < b:
        a, b = b, a
    mixed = (a * 0x9E3779B97F4A7C15 + b * 0xC2B2AE3D27D4EB4F + _SIGNS.index(sign) * 0x165667B19E3779F9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    return (mixed >> 33) % _HELD_OUT_EVERY == 0


def is_held_out_expression(problem: str) -> bool:
    """Whether training never sees this expression of several operations."""
    return crc32(problem.encode()) % _HELD_OUT_EVERY == 0
