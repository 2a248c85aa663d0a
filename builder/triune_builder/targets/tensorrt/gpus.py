"""Which GPUs there are, and which of the two TensorRT packages builds for them. Refuses by name, before any work."""

from __future__ import annotations

from collections.abc import Sequence

from triune_runtime.machine import installed_version
from triune_runtime.targets.tensorrt.elsewhere import other_python, version_of

from ...errors import BuildError, option

HEAD_UNIT = 8  # numbers of a head are multiples of it
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # TensorRT-RTX 1.7 builds for these
FULL_CAPABILITIES = ("9.0", "10.0", "10.3", "11.0")  # data-center GPUs and others that full TensorRT alone has
_FIRST_CLASSIC, _FIRST_TYPED = (8, 6), (11,)  # versions; the latter is that of `lowering.py`
FP8_CAPABILITIES = ("8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1")
FROM_AMPERE = tuple(c for c in (*RTX_CAPABILITIES, *FULL_CAPABILITIES) if c != "7.5")


def flavour(compute_capabilities: Sequence[str]) -> str:
    """The package that builds for all of these: "tensorrt_rtx", or "tensorrt" for what the former does not have.

    Raises:
        BuildError: an unknown compute capability, or several of which one needs full TensorRT, which builds for one GPU.
    """
    known = (*RTX_CAPABILITIES, *FULL_CAPABILITIES)
    for capability in compute_capabilities:
        if capability not in known:
            raise BuildError(
                f"unknown compute capability {capability!r}; known: {', '.join(sorted(known, key=float))}",
                f"name the GPU's, e.g. {option('compute_capability', 8.9)}",
            )
    full = [c for c in compute_capabilities if c in FULL_CAPABILITIES]
    if full and len(compute_capabilities) > 1:
        raise BuildError(
            f"compute capability {full[0]} needs full TensorRT, which builds for the one GPU it runs on",
            "build once for each GPU",
        )
    return "tensorrt" if full else "tensorrt_rtx"


def classic_version(compute_capabilities: Sequence[str]) -> str | None:
    """The version of full TensorRT, if that builds for these and is one of 8.6 to 10, which take another form of the graph.

    Asked of the Python that the environment names for it, else of this one.
    """
    if flavour(compute_capabilities) != "tensorrt":
        return None
    python = other_python()
    version = version_of(python) if python else installed_version("tensorrt")
    return version if version is not None and _FIRST_CLASSIC <= _numbers(version) < _FIRST_TYPED else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
