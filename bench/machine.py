"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def describe() -> dict[str, str | int]:
    """Processor, cores, the instructions that matter, memory, system."""
    cpu = Path("/proc/cpuinfo").read_text("utf-8")
    fields = dict(line.split(":", 1) for line in cpu.splitlines() if ":" in line)
    fields = {k.strip(): v.strip() for k, v in fields.items()}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": " ".join(f for f in _FLAGS if f in flags),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def busy_share(seconds: float = 2.0) -> float:
    """How busy all cores together are now, 0 to 1, over the next `seconds`."""
    return float(psutil.cpu_percent(interval=seconds)) / 100
