"""How much a model is to think: OpenAI's word for it, a switch, a budget of tokens -> options of the client. No I/O.

A word is only a wish, and clients send one to every model: one that does not think answers as it always does. A switch or a
budget of the client's own is more than that: a model that cannot follow it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import invalid

UNBOUNDED = None  # as long as the model thinks by itself
# word -> most tokens of thinking; 0: it answers at once. docs/openai.md has the table.
BUDGETS: Mapping[str, int | None] = {
    "none": 0, "minimal": 256, "low": 1024, "medium": 4096, "high": UNBOUNDED, "xhigh": UNBOUNDED, "max": UNBOUNDED,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """What a request says of thinking.

    Attributes:
        options: of the client; None where nothing is asked.
        wishes: those of them that a model which does not think is not to be told.
    """

    options: dict[str, Any] = field(default_factory=dict)
    wishes: frozenset[str] = frozenset()


def thinking(*, effort: tuple[str, Any], switches: Mapping[str, bool | None], budget: tuple[str, int | None]) -> Thinking:
    """The options that a request asks for.

    Args:
        effort: the field, and the word in it or None.
        switches: field -> whether to think; None: it says nothing.
        budget: the field, and the most tokens of thinking or None.

    Raises:
        ApiError: the word is none of `BUDGETS`, or two fields contradict each other.
    """
    field_name, word = effort
    most_name, most = budget
    said = {name: value for name, value in switches.items() if value is not None}
    if word is None:
        _agree(said)
        return Thinking(options={"enable_thinking": next(iter(said.values()), None), "thinking_budget": most})
    check_effort(field_name, word)
    wanted = word != "none"
    _agree({field_name: wanted} | said)
    bound = BUDGETS[word] if wanted else UNBOUNDED
    if most is not None and (bound is not UNBOUNDED or (not wanted and most > 0)):
        raise invalid(f"{field_name} {word!r} and {most_name} {most} contradict each other; send one of them.", field_name)
    options = {"enable_thinking": wanted, "thinking_budget": bound if most is None else most}
    wishes = {name for name in options if not (said if name == "enable_thinking" else most is not None)}
    return Thinking(options=options, wishes=frozenset(wishes))


def check_effort(name: str, word: Any) -> None:
    """Check that the word in a field is known.

    Raises:
        ApiError: it is none of `BUDGETS`.
    """
    if word is not None and (not isinstance(word, str) or word not in BUDGETS):
        raise invalid(f"Invalid value for '{name}': {', '.join(BUDGETS)} are known, not {word!r:.80}.", name, "invalid_value")


def _agree(said: Mapping[str, bool]) -> None:
    if len(set(said.values())) > 1:
        raise invalid(f"{' and '.join(said)} contradict each other; send one of them.", next(iter(said)))
