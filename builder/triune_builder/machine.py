"""What figures were measured on: processor, cores, instructions, memory."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import psutil

from triune_runtime.machine import this_processor

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
    told = this_processor()
    return Host(
        processor=platform.processor() if told.name is None else told.name,
        cores=len(os.sched_getaffinity(0)),
        instructions=" ".join(flag for flag in _FLAGS if flag in told.instructions),
        memory_gb=round(psutil.virtual_memory().total / 2**30),
    )
