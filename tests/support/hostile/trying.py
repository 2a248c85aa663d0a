"""Tries a case in a process of its own: what the build says of the checkpoint, and whether what it publishes can be served."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

import triune_builder.dry_run
from triune_builder.dry_run import dry_run
from triune_builder.errors import BuildError
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import plan_of
from triune_builder.progress import Display
from triune_builder.text_trial import bound, findings
from triune_runtime.errors import TriuneError

from .asking import ask
from .bases import bases
from .cases import Case, empty

SECONDS, BUILD_SECONDS = 10, 120  # of processor time: before weights are read, and to build a tiny model and ask it
MEMORY = 500 << 20  # bytes more than the process had and the checkpoint has
_WALL = 240  # seconds after which a case hangs, on however busy a machine
_MESSAGE = 4000  # characters
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


class _Violation(Exception):
    """What must not be, in words."""


class Trier:
    """Tries cases, one after the other, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[str, dict[str, str]] = {}  # tokenizers and templates that were tried -> what was found
        _warm_up()

    def outcome(self, case: Case, *, with_build: bool) -> Outcome:
        """Try `case`: plan it, and build, load and ask it where the plan is sound and `with_build` is set."""
        checkpoint = case.write(empty(self._folder / "case"))
        results, child = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(results)
            _run_and_exit(partial(self._try, case, checkpoint, with_build), child)
        os.close(child)
        return self._awaited(process, results)

    def _awaited(self, process: int, results: int) -> Outcome:
        ends = time.monotonic() + _WALL
        with os.fdopen(results, "rb") as pipe:
            while True:
                ended, status, usage = os.wait4(process, os.WNOHANG)
                if ended:
                    break
                if time.monotonic() > ends:
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
                    return Outcome(kind=FAILED, said=f"no end within {_WALL} s")
                time.sleep(0.002)
            said = pipe.read()
        seconds = usage.ru_utime + usage.ru_stime
        if not said:
            number = os.waitstatus_to_exitcode(status)
            name = signal.Signals(-number).name if number < 0 else str(number)
            return Outcome(kind=FAILED, said=f"ended by {name}", seconds=seconds)
        found = json.loads(said)
        self._texts |= found.pop("texts")
        return Outcome(**found)

    def _try(self, case: Case, checkpoint: Path, with_build: bool) -> dict[str, Any]:
        """In the child: what became of it."""
        before = _held("VmRSS")
        allowed = MEMORY + sum(p.stat().st_blocks * 512 for p in self._folder.rglob("*") if p.is_file() and not _is_device(p))
        data = _held("VmData") + 2 * allowed  # past that, the machine would suffer
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        _limit_seconds(SECONDS)
        _forget_peak()
        texts: dict[str, dict[str, str]] = {}
        console = io.StringIO()
        display = Display(Console(file=console, width=200))
        kind, said = FAILED, ""
        try:
            kind, said = _planned(self._plan(case, checkpoint, display, texts))
            _check(case, kind, said, console.getvalue())
            taken = _held("VmHWM") - before
            if taken > allowed:
                raise _Violation(f"takes {taken >> 20} MB, allowed are {allowed >> 20}")
            if kind == PLANNED and with_build:
                _limit_seconds(BUILD_SECONDS)
                kind, said = self._build_and_ask(case, checkpoint, display)
                _check(case, kind, said, console.getvalue())
        except _Violation as violation:
            kind, said = FAILED, f"{violation}; it was {kind}: {said}"
        except BaseException as error:
            kind, said = FAILED, f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}"
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        return asdict(Outcome(kind=kind, said=said, seconds=spent, megabytes=(_held("VmHWM") - before) / 1e6)) | {
            "texts": texts
        }

    def _settings(self) -> Settings:
        return Settings(build_dir=self._folder / "case" / "build")

    def _plan(self, case: Case, checkpoint: Path, display: Display, texts: dict[str, dict[str, str]]) -> Callable[[], None]:
        def checked(found: Any) -> None:
            job = {"tokenizer": found.tokenizer_json, "vocab_size": _whole(found.config.get("vocab_size")),
                   "chat_template": found.chat_template, "tool_template": found.tool_template,
                   "special_tokens": found.special_tokens}  # fmt: skip
            name = sha256(json.dumps(job).encode()).hexdigest()
            if name not in self._texts:
                self._texts[name] = texts[name] = _trial(job)
            if self._texts[name]:
                raise BuildError(self._texts[name]["message"], self._texts[name]["hint"])

        def plan() -> None:
            with patch.object(triune_builder.dry_run, "check_text", checked):
                dry_run(_plan_of(case, checkpoint), self._settings(), display=display)

        return plan

    def _build_and_ask(self, case: Case, checkpoint: Path, display: Display) -> tuple[str, str]:
        plan, settings = _plan_of(case, checkpoint), self._settings()
        try:
            made = build(plan, settings, display=display)
        except TriuneError as error:
            if plan.repository(settings.build_dir).exists():
                raise _Violation(f"refused and published: {error}") from error
            return REFUSED, str(error)
        try:
            return SERVED, ask(made.repository / "generate" / "1")
        except Exception as error:
            raise _Violation(f"published, and cannot be served: {type(error).__name__}: {error}\n"
                             + "".join(traceback.format_tb(error.__traceback__)[-4:])) from error  # fmt: skip


@cache
def _warm_up() -> None:
    """Import all that a case imports, so that its process need not; what is there by then is let be."""
    with tempfile.TemporaryDirectory() as name:
        for base in ("llama", "gguf"):
            case = Case(
                seed=0, number=0, base=base, files=dict(bases()[base]), done=(), precision="fp32", max_length="64", linked=False
            )
            checkpoint = case.write(empty(Path(name) / base))
            dry_run(_plan_of(case, checkpoint), Settings(build_dir=Path(name)), display=Display(quiet=True))
    gc.collect()
    gc.freeze()


def _planned(plan: Callable[[], None]) -> tuple[str, str]:
    try:
        plan()
    except TriuneError as error:
        if not error.hint:
            raise _Violation(f"no hint: {error}") from error
        return REFUSED, str(error)
    return PLANNED, ""


def _check(case: Case, kind: str, said: str, shown: str) -> None:
    """One sentence, of which a terminal obeys no letter; and what is sound is not refused."""
    if kind == REFUSED and (not said.isprintable() or len(said) > _MESSAGE):
        raise _Violation("says what cannot be printed, or too much")
    if found := _SAID.search(_FORM.sub("", shown)):
        raise _Violation(f"shows {found[0]!a} on the way")
    if not case.done and case.precision == "fp32" and case.max_length != "1048576" and kind == REFUSED:
        raise _Violation("refused, though sound")


def _plan_of(case: Case, checkpoint: Path) -> Any:
    return plan_of({
        "model": str(checkpoint), "target": "cpu", "precision": case.precision, "max_sequences": 2, "prefill_chunk": 16,
        "max_length": case.max_length,
    })  # fmt: skip


def _trial(job: dict[str, Any]) -> dict[str, str]:
    """`text_checks.check_text` within a process that has all that it imports: the same bounds, the same trial."""
    with tempfile.TemporaryFile() as file:
        process = os.fork()
        if process == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                bound(len(json.dumps(job)))
                file.write(json.dumps(findings(job)).encode())
                file.flush()
            finally:
                os._exit(0)
        _, status = os.waitpid(process, 0)
        file.seek(0)
        said = file.read()
    if not said:
        number = os.waitstatus_to_exitcode(status)
        if number not in (-signal.SIGXCPU, -signal.SIGABRT, -signal.SIGKILL):
            raise _Violation(f"the trial of the texts ended with {number}")
        return {"message": f"the trial of the texts ended with {number}", "hint": "as `text_checks` says it"}
    return dict(json.loads(said))


def _run_and_exit(work: Callable[[], dict[str, Any]], pipe: int) -> None:
    try:
        said = json.dumps(work()).encode("utf-8", "surrogatepass")
        with os.fdopen(pipe, "wb") as file:
            file.write(said)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(0)


def _limit_seconds(more: int) -> None:
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    soft = int(spent) + more + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _held(name: str) -> int:
    """Bytes, of /proc/self/status."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _is_device(path: Path) -> bool:
    return path.is_symlink() and str(path.readlink()).startswith("/")


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
