"""Runs programs that end with us, and shows how far pip is."""

from __future__ import annotations

import ctypes
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .environment import Environment
from .parts import Step
from .pip_output import BUILD_STEPS, PipOutput, explained, normal
from .shown import Shown, progress

_TICK_S = 0.1
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
# What would have pip put packages elsewhere or say less, and what would have it see packages that are not in the environment.
_HIDDEN = (
    "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_QUIET", "PIP_VERBOSE", "PIP_PROGRESS_BAR", "PIP_DRY_RUN",
    "PYTHONHOME", "PYTHONPATH",
)  # fmt: skip


@contextmanager
def started(command: Sequence[str | Path], env: Mapping[str, str], lock: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output can be read. It and all it starts end with this block, however that ends.

    It does not hear ctrl-C by itself, and keeps the file `lock` open: while it lives, nobody else takes the environment.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # no interruption between its start and the `try`
    process = None
    try:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, pass_fds=(lock,), preexec_fn=lambda: _in_child(before),
        )  # fmt: skip
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield process
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        if process is not None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert process.stdout is not None, "it was asked for as a pipe"
            process.stdout.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_child(mask: Iterable[int]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run(
    command: Sequence[str | Path], env: Mapping[str, str], lock: int, feed: Callable[[str], None], tick: Callable[[], None]
) -> int:
    """Run a program to its end: `feed` gets its lines, `tick` is called some times a second.

    Returns:
        Its exit code.
    """
    with started(command, env, lock) as process, selectors.DefaultSelector() as selector:
        assert process.stdout is not None, "it was asked for as a pipe"
        selector.register(process.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            tick()
            if not selector.select(_TICK_S):
                continue
            read = os.read(process.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + read).split(b"\n")
            for line in [*lines, *([rest] if not read and rest else [])]:
                feed(line.decode("utf-8", "replace").rstrip())
            if not read:
                return process.wait()


def plain_environment(temporary: Path) -> dict[str, str]:
    """Our environment for pip: its messages in English, its files in `temporary`."""
    ours = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
    return ours | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8"}


class PipRun:
    """One call of `pip install`."""

    def __init__(self, environment: Environment, step: Step, shown: Shown, lock: int) -> None:
        self._environment, self._step, self._shown, self._lock = environment, step, shown, lock
        self._root = environment.root
        self._output = PipOutput()
        self._temporary = environment.folder.absolute() / "tmp"
        self._before = self._there()
        self._began = self._unpacking_since = time.monotonic()

    def run(self) -> None:
        """Run it and say what it took.

        Raises:
            SetupError: pip fails.
        """
        self._temporary.mkdir(exist_ok=True)
        step = self._step
        target = ["--upgrade", "--target", str(self._environment.folder / step.target)] if step.target else []
        command: list[str | Path] = [
            self._environment.python.absolute(), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color",
            "install", "--progress-bar=off", *target, *step.arguments,
        ]  # fmt: skip
        code = run(command, plain_environment(self._temporary), self._lock, self._feed, self._tick)
        shutil.rmtree(self._temporary, ignore_errors=True)
        if code:
            log = self._environment.folder / "pip.log"
            log.write_text("\n".join(self._output.lines) + "\n", "utf-8")
            raise explained(self._output.lines, step.words, code, log)
        sizes = self._output.sizes
        files = f"{len(sizes)} files, " if len(sizes) > 1 else ""
        took = f", {files}{sum(sizes.values()) / 1e6:,.0f} MB" if sizes else ""
        self._shown.say(f"{'install':<10} {time.monotonic() - self._began:6.1f} s   {step.words}{took}")

    @property
    def changed(self) -> bool:
        """Whether pip has begun to change the environment: it fetches everything first."""
        return bool(self._output.packages)

    def _feed(self, line: str) -> None:
        if not self._output.packages:
            self._unpacking_since = time.monotonic()
        self._output.feed(line)

    def _tick(self) -> None:
        if self._output.packages:
            self._shown.update("unpack", self._unpacking())
        elif self._output.building:
            fraction = self._output.built / (BUILD_STEPS * self._output.building)
            self._shown.update("install", progress(fraction, time.monotonic() - self._began, self._step.words))
        else:
            self._shown.update("fetch", self._fetching())

    def _fetching(self) -> str:
        sizes, file = self._output.sizes, self._output.file
        now = sizes.get(normal(file.partition("-")[0]), 0.0)
        # Of a file of the registry, pip's temporary folder has what is there yet; one that is on the disk is there at once.
        part = max((path.stat().st_size for path in self._temporary.glob(f"pip-*/{file}")), default=now) if file else 0
        done = sum(sizes.values()) - now + min(part, now)
        expected = self._step.fetched or int(self._output.average * self._step.packages(self._root))
        words = ": ".join(filter(None, [self._step.words, self._output.waiting or _short(file)]))
        # What is expected is so by the versions of one system and time.
        total = max(expected, sum(sizes.values()), 1.0)
        return progress(min(done / total, 0.99), time.monotonic() - self._began, words, total)

    def _unpacking(self) -> str:
        packages, sizes = self._output.packages, self._output.sizes
        made = self._there() - self._before
        done = sum(sizes.get(name, 0.0) for name in packages if name in made)
        total = max(1.0, sum(sizes.get(name, 0.0) for name in packages))
        now = next((name for name in packages if name not in made), packages[-1])
        count = f"{min(len(made) + 1, len(packages))} of {len(packages)}"
        words = f"{self._step.words}: {now} ({count})"
        return progress(done / total, time.monotonic() - self._unpacking_since, words, total)

    def _there(self) -> set[str]:
        """The packages that are unpacked: their descriptions come last."""
        found = self._environment.folder.glob("lib/python*/site-packages/*.dist-info/RECORD")
        return {normal(path.parent.name.partition("-")[0]) for path in found}


def _short(file: str) -> str:
    return re.sub(r"-(?:cp|py)\d.*", "", file)
