"""A thousand hostile checkpoints, always the same: in a sentence, within bounds, nothing published that cannot be served.

Run: pytest tests/builder/test_checkpoint_fuzz.py; many more, in hours: make fuzz-checkpoints
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.hostile import guarding, memory, trying
from support.hostile.bases import bases
from support.hostile.cases import SEED, Case, case_of
from support.hostile.guarding import Job, outcome, outcomes
from support.hostile.memory import Known
from support.hostile.running import Journal, Tally, tried
from support.hostile.trying import FAILED, MEMORY, PLANNED, REFUSED, SERVED, Outcome
from triune_builder.errors import BuildError
from triune_builder.inputs import Settings
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display
from triune_runtime.errors import TriuneError

CASES, BUILT_EVERY = 1000, 25


@pytest.fixture(scope="module")
def tally() -> Tally:
    made = Tally()
    for number, found in tried(SEED, range(CASES), build_every=BUILT_EVERY, processes=min(2, os.cpu_count() or 1)):
        made.add(number, found)
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
    with_build = base in (
        "awq",
        "deepseek-fp8",
        "gguf-k",
        "gguf-pieces",
        "gptq",
        "nf4",
        "qwen2",
    )  # the others are in many a case
    found = outcome(tmp_path, sound(base), with_build=with_build)
    assert found.kind == (SERVED if with_build else PLANNED), found.said


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


def too_much_for_a_while(display: Display) -> None:
    with display.stage("fetch"):
        too_much(display)
    with display.stage("check"):
        pass


def warns(display: Display) -> None:
    np.float32(1) / np.float32(0)


def no_end(display: Display) -> None:
    threading.Event().wait()


def refused(display: Display) -> None:
    raise BuildError("it does not please", "take another")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (not_foreseen, "KeyError: 'rms_norm_eps'"), (no_sentence, "cannot be printed"), (no_remedy, "no hint"),
        (colours, "shows '\\x1b'"), (too_long, "ended by SIGXCPU"), (dead, "ended by SIGKILL"), (refused, "though sound"),
        (warns, "warns: divide by zero encountered"),
        (too_much, "MB, allowed are"), (too_much_for_a_while, "MB, allowed are"), (no_end, "no end within 3 s"),
    ],
)  # fmt: skip
def test_faults_of_a_build_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Display], None], said: str
) -> None:
    monkeypatch.setattr(trying, "SECONDS", 1)
    if fault is no_end:
        monkeypatch.setattr(guarding, "WALL", 3)
    monkeypatch.setattr(trying, "dry_run", lambda plan, settings, display: fault(display))
    found = outcome(tmp_path, sound("llama"), with_build=False)
    assert found.kind == FAILED and said in found.said


def test_what_is_published_and_cannot_be_asked_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dumb(folder: Path) -> str:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(trying, "ask", dumb)
    found = outcome(tmp_path, sound("llama"), with_build=True)
    assert found.kind == FAILED and "published, and cannot be served: IndexError" in found.said


def test_what_is_published_though_refused_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(plan: BuildPlan, settings: Settings, *, display: Display) -> None:
        plan.repository(settings.build_dir).mkdir(parents=True)
        raise BuildError("it does not please", "take another")

    monkeypatch.setattr(trying, "build", half)
    found = outcome(tmp_path, sound("llama"), with_build=True)
    assert found.kind == FAILED and "refused and published: it does not please" in found.said


def test_cases_after_one_that_ends_its_process_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {"qwen3": dead, "mistral": not_foreseen, "gguf": too_long}

    def planned(plan: BuildPlan, settings: Settings, *, display: Display) -> None:
        name = next(names)
        ends.get(name, lambda display: None)(display)

    order = ["llama", "qwen3", "deepseek", "mistral", "gguf", "llama"]
    names = iter(order)

    def made(name: str, number: int) -> Case:
        nonlocal names
        names = iter(order[number:])
        return sound(name)

    monkeypatch.setattr(trying, "SECONDS", 1)
    monkeypatch.setattr(trying, "dry_run", planned)
    jobs = [Job(partial(made, name, number), with_build=False) for number, name in enumerate(order)]
    found = list(outcomes(tmp_path, jobs, {}))
    assert [one.kind for one in found] == [PLANNED, FAILED, PLANNED, FAILED, FAILED, PLANNED]
    assert "SIGKILL" in found[1].said and "KeyError" in found[3].said and "SIGXCPU" in found[4].said
    assert found[5].seconds < 1


def test_a_trial_of_texts_that_dies_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "findings", lambda job, part: os._exit(3))
    found = outcome(tmp_path, sound("llama"), with_build=False)
    assert found.kind == FAILED and "the trial of the texts ended with 3" in found.said


def test_what_is_the_same_in_two_cases_is_tried_once(tmp_path: Path) -> None:
    known: Known = {}
    first, second = (list(outcomes(tmp_path, [Job(lambda: sound("r1-nano"), with_build=False)], known)) for _ in range(2))
    assert [one.kind for one in first + second] == [PLANNED, PLANNED]
    assert len(known) == 3 and second[0].seconds < first[0].seconds


def test_what_was_refused_of_texts_is_refused_again(tmp_path: Path) -> None:
    files = bases()["llama"] | {"chat_template.jinja": b"{% for %}"}
    case = dataclasses.replace(sound("llama"), files=files, done=("another template",))
    known: Known = {}
    for _ in range(2):
        (found,) = outcomes(tmp_path, [Job(lambda: case, with_build=False)], known)
        assert found.kind == REFUSED and "does not compile" in found.said


def test_a_run_goes_on_where_an_earlier_one_ended(tmp_path: Path) -> None:
    path, told = tmp_path / "journal.jsonl", list[str]()
    first = Journal(path)
    first.write([(n, Outcome(kind=REFUSED, said="no")) for n in (0, 2)] + [(3, Outcome(kind=FAILED, said="bad"))], told.append)
    path.write_text(path.read_text() + '{"number": 4, "ki')  # cut short
    again = Journal(path)
    assert again.left(6) == [1, 4, 5] and told == ["case 3 failed: bad"]
    assert again.tally.failures == {3: "bad"} and again.tally.kinds == {REFUSED: 2, FAILED: 1}
