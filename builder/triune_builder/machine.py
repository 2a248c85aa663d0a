"""What figures were measured on: processor, cores, instructions, memory."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")  # that matter to products of quantized numbers


@dataclass(frozen=True, kw_only=True)
class Host:
    """This machine, as far as it decides speeds."""

    processor: str
    cores: int  # that this process may use
    instructions: str
    memory_gb: int

    def __str__(self) -> str:
        flags = f" ({self.instructions})" if self.instructions else ""
        return f"{self.cores} cores of {self.processor}{flags}, {self.memory_gb} GB"


def this_host() -> Host:
    """What the system tells of it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.exists() else []
    fields = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in lines if ":" in line)}
    flags = fields.get("flags", "").split()
    return Host(
        processor=fields.get("model name", platform.processor()),
        cores=len(os.sched_getaffinity(0)),
        instructions=" ".join(flag for flag in _FLAGS if flag in flags),
        memory_gb=round(psutil.virtual_memory().total / 2**30),
    )
