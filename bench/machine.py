"""What the figures were measured on."""

from __future__ import annotations

import platform
import subprocess

import psutil

from triune_builder.machine import this_host


def describe() -> dict[str, str | int]:
    """Processor, cores, the instructions that matter, memory, system."""
    host = this_host()
    return {
        "cpu": host.processor,
        "cores": host.cores,
        "instructions": host.instructions,
        "memory_gb": host.memory_gb,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def busy_share(seconds: float = 2.0) -> float:
    """How busy all cores together are now, 0 to 1, over the next `seconds`."""
    return float(psutil.cpu_percent(interval=seconds)) / 100


def gpu_memory_mib() -> list[int]:
    """In use on each of NVIDIA's GPUs; none where there is no driver."""
    try:
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [int(line) for line in said.split()]
