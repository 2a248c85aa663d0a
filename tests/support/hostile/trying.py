"""Tries a case: what the build says of the checkpoint, and whether what it publishes can be served."""

from __future__ import annotations

import gc
import io
import re
import resource
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

import triune_builder.dry_run
import triune_builder.progress
from triune_builder.dry_run import dry_run
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import plan_of
from triune_builder.progress import Display
from triune_builder.verify.measure import Sizes
from triune_runtime.allocator import return_free_memory
from triune_runtime.errors import TriuneError

from .asking import ask
from .cases import Case, empty
from .memory import BrokenTrial, Known, check_texts, write_once

SECONDS, BUILD_SECONDS = 10, 120  # of processor time: before weights are read, and to build a tiny model and ask it
MEMORY = 500 << 20  # bytes more than the process had and the checkpoint has
_KEPT = 64 << 20  # bytes that what cases leave behind may come to
_MESSAGE = 4000  # characters
_SIZES = Sizes(text=256, window=64, kept=16, answer=16)  # that a proof compares enough is not what is tried here
PLANNED, REFUSED, SERVED, FAILED = "planned", "refused", "served", "failed"
_KINDS = (PLANNED, REFUSED, SERVED, FAILED)
_SAID = re.compile(r"[^\n\x20-\x7e\xa0-\u2027\u202f-\U0010ffff]|[\u2066-\u2069]")  # what a terminal would act on
_FORM = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case."""

    kind: str  # one of `_KINDS`
    said: str  # the build's own words; of a failure what is wrong
    seconds: float = 0.0  # of processor time
    megabytes: float = 0.0  # the most that it took above what it had


class Violation(Exception):
    """What must not be, in words."""


class Trier:
    """Tries cases in this process, one after the other, in a folder of its own. What ends it, ends this process."""

    def __init__(self, folder: Path, known: Known) -> None:
        """
        Args:
            known: what was found in cases before.
        """
        self._folder, self._known = folder, known
        self._new: Known = {}
        self._held, self._data, self._own = _held("VmRSS"), _held("VmData"), _held("RssAnon")
        self.worn = False  # no case should be tried after this one: it has failed, or left more than a little behind

    def outcome(self, make: Callable[[], Case], *, with_build: bool) -> tuple[Outcome, Known]:
        """Try a case: plan it, and build, load and ask it where the plan is sound and `with_build` is set.

        Returns: what became of it, and what was found of it that was not known.
        """
        _limit_memory(resource.RLIM_INFINITY)
        case = make()
        checkpoint = case.write(empty(self._folder / "case"))
        self._new = {}
        began = spent()
        with (
            patch.object(triune_builder.progress, "_reset_peak", lambda: None),  # else the peak is that of the last stage
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always", RuntimeWarning)
            kind, said = self._try(case, checkpoint, with_build, warned)
        outcome = Outcome(kind=kind, said=said, seconds=spent() - began, megabytes=(_held("VmHWM") - self._held) / 1e6)
        self._known |= self._new
        self.worn |= kind == FAILED or self._keeps_much()
        return outcome, self._new

    def _try(self, case: Case, checkpoint: Path, with_build: bool, warned: list[warnings.WarningMessage]) -> tuple[str, str]:
        allowed = MEMORY + _disk_bytes(checkpoint)
        _limit_memory(self._data + 2 * allowed)  # past that, the machine would suffer
        began = spent()
        _limit_seconds(SECONDS)
        _forget_peak()
        console = io.StringIO()
        display = Display(Console(file=console, width=200))
        kind, said = FAILED, ""
        try:
            kind, said = _planned(partial(self._plan, case, checkpoint, display))
            _check(case, kind, said, console.getvalue(), warned)
            taken = _held("VmHWM") - self._held
            if taken > allowed:
                raise Violation(f"takes {taken >> 20} MB, allowed are {allowed >> 20}")
            if spent() - began > SECONDS:
                raise Violation(f"takes {spent() - began:.1f} s of processor time, allowed are {SECONDS}")
            if kind == PLANNED and with_build:
                self.worn = True  # it leaves threads
                _limit_seconds(BUILD_SECONDS)
                kind, said = self._build_and_ask(case, checkpoint, display)
                _check(case, kind, said, console.getvalue(), warned)
        except (Violation, BrokenTrial) as violation:
            return FAILED, f"{violation}; it was {kind}: {said}"
        except BaseException as error:
            return FAILED, f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}"
        return kind, said

    def _keeps_much(self) -> bool:
        """Whether this process has grown, though all that is free is given back."""
        if _held("RssAnon") - self._own > _KEPT // 4:
            gc.collect()
            return_free_memory()
        return _held("RssAnon") - self._own > _KEPT

    def _settings(self) -> Settings:
        return Settings(build_dir=self._folder / "case" / "build", sizes=_SIZES)

    def _plan(self, case: Case, checkpoint: Path, display: Display) -> None:
        checked = partial(check_texts, known=self._known, new=self._new)
        with (
            patch.object(triune_builder.dry_run, "check_text", checked),
            patch.object(triune_builder.dry_run, "_write", partial(write_once, known=self._known, new=self._new)),
        ):
            dry_run(plan_of_case(case, checkpoint), self._settings(), display=display)

    def _build_and_ask(self, case: Case, checkpoint: Path, display: Display) -> tuple[str, str]:
        plan, settings = plan_of_case(case, checkpoint), self._settings()
        try:
            made = build(plan, settings, display=display)
        except TriuneError as error:
            if plan.repository(settings.build_dir).exists():
                raise Violation(f"refused and published: {error}") from error
            return REFUSED, str(error)
        try:
            return SERVED, ask(made.repository / "generate" / "1")
        except Exception as error:
            raise Violation(f"published, and cannot be served: {type(error).__name__}: {error}\n"
                             + "".join(traceback.format_tb(error.__traceback__)[-4:])) from error  # fmt: skip


def _planned(plan: Callable[[], None]) -> tuple[str, str]:
    try:
        plan()
    except TriuneError as error:
        if not error.hint:
            raise Violation(f"no hint: {error}") from error
        return REFUSED, str(error)
    return PLANNED, ""


def _check(case: Case, kind: str, said: str, shown: str, warned: list[warnings.WarningMessage]) -> None:
    """One sentence, of which a terminal obeys no letter, and no library's besides; and what is sound is not refused."""
    if warning := next((one for one in warned if issubclass(one.category, RuntimeWarning)), None):
        raise Violation(f"warns: {warning.message} ({warning.filename}:{warning.lineno})")
    if kind == REFUSED and (not said.isprintable() or len(said) > _MESSAGE):
        raise Violation("says what cannot be printed, or too much")
    if found := _SAID.search(_FORM.sub("", shown)):
        raise Violation(f"shows {found[0]!a} on the way")
    if not case.done and case.precision == "fp32" and case.max_length != "1048576" and kind == REFUSED:
        raise Violation("refused, though sound")


def plan_of_case(case: Case, checkpoint: Path) -> Any:
    """How the case is to be built."""
    return plan_of({
        "model": str(checkpoint), "target": "cpu", "precision": case.precision, "max_sequences": 2, "prefill_chunk": 16,
        "max_length": case.max_length,
    })  # fmt: skip


def _limit_seconds(more: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent()) + more + 1, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _limit_memory(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def spent() -> float:
    """Seconds of processor time of this process so far."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def _held(name: str) -> int:
    """Bytes, of /proc/self/status."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _disk_bytes(checkpoint: Path) -> int:
    """What its files take on the disk; of devices and the system's files nothing."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file() and not _is_device(path))


def _is_device(path: Path) -> bool:
    return path.is_symlink() and str(path.readlink()).startswith("/")
