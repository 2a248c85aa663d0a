"""A runner in a process of another Python: TensorRT 8's binding needs Python 3.10 or older, and NumPy before 1.24.

The environment names that Python (`SWITCH`). Where it is asked for, what needs the package is asked of it: the version, a
build (the builder's part), and the runner, whose calls go through two pipes: a line of JSON, then the bytes of arrays.
"""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DeviceLost, ManifestError, TriuneError
from ...manifest import EngineManifest
from ...runner import Best, Immediate, Rows, Want, Work

SWITCH = "TRIUNE_TENSORRT_PYTHON"  # in the environment: the Python that has the package `tensorrt`; empty: this one
_ASK = "import json, tensorrt; print(json.dumps(tensorrt.__version__))"
_RUN = "import sys; sys.path.insert(0, sys.argv[1]); from {} import main; main(*sys.argv[2:])".format(
    f"{__package__}.elsewhere_main"
)
_ASKED_S = 120.0  # for a version: the package's libraries are a gigabyte
_DTYPES: dict[str, Any] = {"float32": np.float32, "int64": np.int64}


def other_python(environ: Mapping[str, str] | None = None) -> str:
    """The Python that the environment names; empty: none."""
    return (os.environ if environ is None else environ).get(SWITCH, "")


@functools.cache
def version_of(python: str) -> str | None:
    """The version of TensorRT in that Python; None: it has none that loads."""
    try:
        done = subprocess.run([python, "-c", _ASK], capture_output=True, timeout=_ASKED_S, check=False)
        return str(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None


class RunnerElsewhere(Immediate):
    """See `Runner`: the one of `tensorrt_runner`, in a process of `python`."""

    def __init__(self, manifest: EngineManifest, folder: Path, python: str) -> None:
        """
        Raises:
            ManifestError: the engine does not load there.
        """
        code = str(Path(__file__).parents[3])  # said in the program: a Python of its own may unset PYTHONPATH
        with tempfile.TemporaryDirectory() as said_in:
            manifest.save(Path(said_in))  # a build proves an engine before engine.json lies beside it
            self._process = subprocess.Popen(
                [python, "-c", _RUN, code, said_in, str(folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {SWITCH: ""},
                start_new_session=True,  # ctrl-C is for this process, which closes the pipes when it is done
            )  # fmt: skip
            try:
                said, _ = self._answer()
            except DeviceLost as error:
                raise ManifestError(f"{python} cannot run {manifest.engine}: {error}", "see what it wrote above") from error
        self.vocab_size: int = said["vocab_size"]
        self.chooses = frozenset(said["chooses"])
        self.cache_bytes: int = said["cache_bytes"]

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """See `Immediate.run`."""
        return self.run_rows(work).logits

    def run_rows(self, work: Sequence[Work]) -> Rows:
        """See `Runner.run_rows`."""
        items = [[item.slot, item.start, item.tokens, item.drafts, int(item.wants)] for item in work]
        self._ask({"do": "run", "work": items})
        said, arrays = self._answer()
        wanted = np.repeat([item.wants is Want.LOGITS or not said["best"] for item in work], [item.rows for item in work])
        logits = arrays[0] if wanted.all() else np.empty((len(wanted), self.vocab_size), np.float32)
        if not wanted.all():
            logits[wanted] = arrays[0]
        return Rows(logits, Best(arrays[1], arrays[2]) if said["best"] else None)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """See `Immediate.copy_slot`."""
        self._ask({"do": "copy", "slots": [source, target, length]})
        self._answer()

    def close(self) -> None:
        """See `Runner.close`: the other process ends."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, asked: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, asked, ())
        except (OSError, ValueError) as error:  # gone, or closed
            raise DeviceLost(f"the process that runs the engine has ended: {error}") from error

    def _answer(self) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        assert self._process.stdout is not None
        received = receive(self._process.stdout)
        if received is None:
            raise DeviceLost(f"the process that runs the engine has ended with code {self._process.wait()}")
        said, arrays = received
        if "error" in said:
            if said["kind"] == DeviceLost.__name__:
                raise DeviceLost(said["error"])
            kind = ManifestError if said["kind"] == ManifestError.__name__ else TriuneError
            raise kind(said["error"], said["hint"])
        return said, arrays


def send(pipe: IO[bytes], said: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> None:
    """Write a line of JSON, and behind it the bytes of `arrays`."""
    shapes = [[array.dtype.name, *array.shape] for array in arrays]
    pipe.write(json.dumps({**said, "arrays": shapes}).encode() + b"\n")
    for array in arrays:
        pipe.write(array.tobytes())
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], list[NDArray[Any]]] | None:
    """The inverse of `send`; None: the other side has closed the pipe."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    said: dict[str, Any] = json.loads(line)
    arrays = []
    for name, *shape in said.pop("arrays"):
        dtype = np.dtype(_DTYPES[name])
        data = bytearray(pipe.read(math.prod(shape) * dtype.itemsize))
        if len(data) != math.prod(shape) * dtype.itemsize:
            return None
        arrays.append(np.frombuffer(data, dtype).reshape(shape))
    return said, arrays
