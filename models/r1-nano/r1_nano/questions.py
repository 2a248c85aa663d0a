"""The held-out problems that engines are asked, what they are asked as, and which kinds each counts for. Knows no engine."""

from __future__ import annotations

from tokenizers import Tokenizer

from .examples import Example
from .problems import MEASURED, held_out
from .recipe import Recipe
from .scoring import is_right
from .tokenizer import END_THINK, prompt_text

MOST_TOKENS = 900  # of an answer, thinking included
THREE_BY_TWO = "multiply 3x2"
KINDS = (*MEASURED[:3], THREE_BY_TWO, *MEASURED[3:])


def questions(count: int) -> list[Example]:
    """So many problems of each task, and half as many further products of three by two digits; the same for every engine."""
    asked = [drawn for task in MEASURED for drawn in held_out(Recipe(), task, count)]
    return (
        asked + [drawn for drawn in held_out(Recipe(), "multiply", 4 * count)[count:] if _is_three_by_two(drawn)][: count // 2]
    )


def kinds(drawn: Example) -> list[str]:
    """Those of `KINDS` that a problem counts for."""
    return [drawn.task, THREE_BY_TWO] if _is_three_by_two(drawn) else [drawn.task]


def prompt_ids(tokenizer: Tokenizer, drawn: Example) -> list[int]:
    """The tokens that it is asked with."""
    ids: list[int] = tokenizer.encode(prompt_text(drawn.messages, thinks=drawn.thinks), add_special_tokens=False).ids
    return ids


def is_answered(tokenizer: Tokenizer, drawn: Example, ids: list[int]) -> bool:
    """Whether the tokens that follow, thinking included, are a right answer."""
    return is_right(drawn, tokenizer.decode(ids, skip_special_tokens=False).rpartition(END_THINK)[2])


def _is_three_by_two(drawn: Example) -> bool:
    """About a third of the products that are asked are."""
    return drawn.task == "multiply" and sorted(len(number) for number in drawn.problem.split("*")) == [2, 3]
