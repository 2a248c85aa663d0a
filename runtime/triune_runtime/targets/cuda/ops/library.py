"""The library that registers the ops with ONNX Runtime: compiled from host.c by the C compiler that is there, once.

Building it needs no GPU, no header and no package. By hand: python -m triune_runtime.targets.cuda.ops.library
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ....errors import TriuneError
from ..packages import find_home

BUILD = "make kernels"
_SOURCE = Path(__file__).with_name("host.c")
_KERNELS = (("swiglu", "bfloat16"), ("swiglu", "float16"), ("rotate", "bfloat16"), ("rotate", "float16"))  # in host.c's order
_OPTIONS = ("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-cast-function-type")


def library_path(folder: Path | None = None) -> Path:
    """Where the library lies, or will: its name says of which source it is made.

    Args:
        folder: by default that of ONNX Runtime for CUDA; see `packages`.
    """
    made_of = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    return (folder or find_home() or Path(sys.prefix) / "cuda") / f"triune-ops-{made_of}.so"


def build(path: Path, environ: Mapping[str, str] | None = None) -> None:
    """Compile the library, if it is not there.

    Args:
        environ: where CC may name the compiler; by default that of the process.

    Raises:
        TriuneError: there is no C compiler, or it fails.
    """
    if path.is_file():
        return
    said = (os.environ if environ is None else environ).get("CC", "")
    compiler = shlex.split(said) or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    if not compiler or shutil.which(compiler[0]) is None:
        raise TriuneError(
            f"the C compiler CC={said} is not there" if said else "there is no C compiler (cc, gcc or clang)",
            "install one, as with: apt-get install gcc; or set CC=/path/to/it",
        )
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*compiler, *_OPTIONS, str(_SOURCE), "-o", str(part)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise TriuneError(
                f"{shlex.join(compiler)} does not compile {_SOURCE.name}: {'; '.join(lines[:3]) or done.returncode}",
                "try another compiler: set CC=/path/to/it",
            )
        part.replace(path)
    except OSError as error:
        raise TriuneError(f"{path} cannot be made: {error}", "let its folder be written to") from error
    finally:
        part.unlink(missing_ok=True)


class OpsLibrary:
    """The library, in this process, where it stays."""

    def __init__(self, path: Path, launch: int, provider: str) -> None:
        """
        Args:
            launch: address of cuLaunchKernel, or of what takes its place.
            provider: ONNX Runtime's name of whose memory the ops' tensors lie in.

        Raises:
            TriuneError: it does not load.
        """
        try:
            self._use = ctypes.CDLL(str(path)).triune_use
        except (OSError, AttributeError) as error:
            raise TriuneError(f"{path} does not load: {error}", f"remove it, then: {BUILD}") from error
        self._use.restype, self._use.argtypes = None, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
        self.path, self._launch, self._provider = path, launch, provider.encode()

    def use(self, kernels: Mapping[str, int], dtype: str) -> None:
        """Let the ops of numbers of a type run these kernels, in all sessions.

        Args:
            kernels: CUfunction by name.
        """
        handles = (ctypes.c_void_p * len(_KERNELS))(*(kernels[name] if kind == dtype else None for name, kind in _KERNELS))
        self._use(self._launch, handles, self._provider)


def main() -> int:
    """Build it where it belongs."""
    path = library_path()
    try:
        build(path)
    except TriuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
