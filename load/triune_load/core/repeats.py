"""Checks across answers: repeats are equal, ids are not shared. Keeps what it has seen; no I/O."""

from __future__ import annotations

from collections.abc import Collection
from itertools import zip_longest

from .answer import Answer
from .checks import Promises, Violation, check_answer

Content = tuple[str, str, tuple[tuple[str, str], ...]]


class RunChecks:
    """The checks of a run.

    Args:
        enabled: keys of `checks.CHECKS`; what the others find is not told.
        promises: what every answer has.
        stall_s: the longest silence.
    """

    def __init__(self, enabled: Collection[str], promises: Promises, *, stall_s: float) -> None:
        self.enabled, self._promises, self._stall_s = frozenset(enabled), promises, stall_s
        self._expected: dict[str, tuple[Content, int | None]] = {}
        self._identities: dict[str, str] = {}  # of an answer -> of its request
        self.compared = 0  # answers held against one that should be equal

    def expect(self, whole: Answer) -> None:
        """Takes an unstreamed answer as the one that all repeats of its request must get."""
        if whole.whole and whole.request.repeat is not None:
            self._expected[whole.request.repeat] = (whole.content, whole.input_tokens)

    def check(self, answer: Answer) -> list[Violation]:
        """What is wrong with the next answer that ended."""
        if not self.enabled:
            return []
        found = [*check_answer(answer, self._promises, stall_s=self._stall_s), *self._compare(answer), *self._owner(answer)]
        return [one for one in found if one.check in self.enabled]

    def _compare(self, answer: Answer) -> list[Violation]:
        name, identity = answer.request.repeat, answer.request.identity
        if name is None or answer.failure is not None:
            return []
        if name not in self._expected:
            if answer.whole:
                self._expected[name] = (answer.content, answer.input_tokens)
            return []
        expected, input_tokens = self._expected[name]
        self.compared += 1
        found = []
        if wrong := difference(expected, answer.content, begins=answer.cancelled):
            found.append(Violation("text", f"a repeat of {name!r} differs: {wrong}", identity))
        if None not in (input_tokens, answer.input_tokens) and input_tokens != answer.input_tokens:
            message = f"the prompt of {name!r} has {answer.input_tokens} tokens; before it had {input_tokens}"
            found.append(Violation("counts", message, identity))
        return found

    def _owner(self, answer: Answer) -> list[Violation]:
        identity = answer.request.identity
        found = []
        for one in answer.identities:
            if (other := self._identities.setdefault(one, identity)) != identity:
                found.append(Violation("identity", f"the answer's id {one} is that of {other}'s answer", identity))
        return found


def difference(expected: Content, found: Content, *, begins: bool) -> str | None:
    """Where two contents differ, None if they do not; with `begins` the second may be the first's begin."""
    for what, one, other in (("text", expected[0], found[0]), ("reasoning", expected[1], found[1])):
        if one == other or (begins and one.startswith(other)):
            continue
        place = next(n for n, (a, b) in enumerate(zip_longest(one, other)) if a != b)
        around = slice(max(0, place - 10), place + 20)
        return f"{what} at character {place}: {other[around]!r}, expected {one[around]!r}"
    if expected[2] != found[2] and not begins:
        return f"calls {found[2]!r:.120}, expected {expected[2]!r:.120}"
    return None
