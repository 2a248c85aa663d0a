"""A thousand hostile checkpoints, always the same: in a sentence, within bounds, nothing published that cannot be served.

Run: pytest tests/builder/test_checkpoint_fuzz.py; many more, in hours: make fuzz-checkpoints
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hostile import trying
from support.hostile.bases import bases
from support.hostile.cases import SEED, Case, case_of
from support.hostile.running import Journal, Tally, tried
from support.hostile.trying import FAILED, MEMORY, PLANNED, REFUSED, SERVED, Outcome, Trier
from triune_builder.errors import BuildError
from triune_builder.progress import Display
from triune_runtime.errors import TriuneError

CASES, BUILT_EVERY = 1000, 25


@pytest.fixture(scope="module")
def tally() -> Tally:
    made = Tally()
    for number, outcome in tried(SEED, range(CASES), build_every=BUILT_EVERY, processes=min(2, os.cpu_count() or 1)):
        made.add(number, outcome)
    return made


def test_a_thousand_checkpoints_are_refused_in_a_sentence_or_served(
    tally: Tally, record_property: Callable[[str, object], None]
) -> None:
    record_property("fuzzed", {"checkpoints": dict(tally.kinds)})
    again = "\n".join(f"make fuzz-checkpoints CASE={number}\n{said}" for number, said in tally.failures.items())
    assert not tally.failures, again
    assert tally.kinds.total() == CASES


def test_the_cases_reach_every_end(tally: Tally) -> None:
    assert min(tally.kinds[PLANNED], tally.kinds[REFUSED]) > CASES // 10 and tally.kinds[SERVED] > 2


def test_a_number_always_means_the_same_checkpoint() -> None:
    assert [case_of(SEED, n) for n in range(50)] == [case_of(SEED, n) for n in range(50)]
    assert case_of(SEED, 1) != case_of(SEED + 1, 1)


def sound(base: str) -> Case:
    """A case without a change."""
    files = dict(bases()[base])
    return Case(seed=0, number=0, base=base, files=files, done=(), precision="fp32", max_length="64", linked=base == "qwen2")


@pytest.mark.parametrize("base", sorted(bases()))
def test_what_is_sound_is_planned_and_served(tmp_path: Path, base: str) -> None:
    with_build = base in ("deepseek-fp8", "gguf-pieces", "qwen2")  # the others are in many a case
    outcome = Trier(tmp_path).outcome(sound(base), with_build=with_build)
    assert outcome.kind == (SERVED if with_build else PLANNED), outcome.said


def not_foreseen(display: Display) -> None:
    raise KeyError("rms_norm_eps")


def no_sentence(display: Display) -> None:
    raise TriuneError("two\x1b[2J lines", "mend it")


def no_remedy(display: Display) -> None:
    raise BuildError("it is wrong")


def too_much(display: Display) -> None:
    held = bytearray(MEMORY + (64 << 20))
    held[::4096] = b"x" * len(held[::4096])


def colours(display: Display) -> None:
    display.say("a name with \x1b]0;title\x07")


def too_long(display: Display) -> None:
    while True:
        pass


def dead(display: Display) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refused(display: Display) -> None:
    raise BuildError("it does not please", "take another")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (not_foreseen, "KeyError: 'rms_norm_eps'"), (no_sentence, "cannot be printed"), (no_remedy, "no hint"),
        (colours, "shows '\\x1b'"), (too_long, "ended by SIGXCPU"), (dead, "ended by SIGKILL"), (refused, "though sound"),
        (too_much, "MB, allowed are"),
    ],
)  # fmt: skip
def test_faults_of_a_build_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Display], None], said: str
) -> None:
    trier = Trier(tmp_path)
    monkeypatch.setattr(trying, "SECONDS", 1)
    monkeypatch.setattr(trying, "dry_run", lambda plan, settings, display: fault(display))
    outcome = trier.outcome(sound("llama"), with_build=False)
    assert outcome.kind == FAILED and said in outcome.said


def test_what_is_published_and_cannot_be_asked_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dumb(folder: Path) -> str:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(trying, "ask", dumb)
    outcome = Trier(tmp_path).outcome(sound("llama"), with_build=True)
    assert outcome.kind == FAILED and "published, and cannot be served: IndexError" in outcome.said


def test_a_run_goes_on_where_an_earlier_one_ended(tmp_path: Path) -> None:
    path, told = tmp_path / "journal.jsonl", list[str]()
    first = Journal(path)
    first.write([(n, Outcome(kind=REFUSED, said="no")) for n in (0, 2)] + [(3, Outcome(kind=FAILED, said="bad"))], told.append)
    path.write_text(path.read_text() + '{"number": 4, "ki')  # cut short
    again = Journal(path)
    assert again.left(6) == [1, 4, 5] and told == ["case 3 failed: bad"]
    assert again.tally.failures == {3: "bad"} and again.tally.kinds == {REFUSED: 2, FAILED: 1}
