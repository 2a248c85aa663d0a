"""The kernels of the ops: their source, and with which options it is compiled."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
SOURCE = "rows.cu"
_MACHINE = _FOLDER.parent / "fused" / "machine.cuh"  # what C++ has no words for
NAMES = ("swiglu", "rotate")
FAST = ("--prec-div=false",)  # of NVRTC: quotients good to two of float32's last places, without branches


def source() -> str:
    """CUDA C++, in one piece."""
    return "\n".join(path.read_text("utf-8") for path in (_MACHINE, _FOLDER / SOURCE))


def options(dtype: str) -> tuple[str, ...]:
    """Compiler options for numbers of a type, float16 or bfloat16."""
    return (f"-DHALF={int(dtype == 'float16')}", "-DAHEAD=128")
