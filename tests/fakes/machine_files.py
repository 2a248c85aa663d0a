"""A machine as its files tell of it, under a folder: what the doctor's checks read in place of the real one's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from triune_runtime.machine import Gpu, Machine
from triune_server.doctor.context import Context

GOOD = {
    "proc/cpuinfo": "".join(
        f"processor\t: {n}\nmodel name\t: Good CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_tile\n" for n in range(4)
    ),
    "proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB\nSwapTotal: 1000000 kB\nSwapFree: 1000000 kB\n",
    "proc/loadavg": "0.50 0.40 0.30 1/100 1000\n",
    "proc/self/cgroup": "0::/\n",
    "proc/self/status": "Cpus_allowed_list:\t0-3\nMems_allowed_list:\t0\n",
    "proc/sys/kernel/osrelease": "6.1.0\n",
    "sys/devices/system/node/online": "0\n",
    "sys/devices/system/node/node0/cpulist": "0-3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
}
FULL = frozenset({"avx2", "avx512f", "avx512_vnni", "amx_tile"})


def machine(folder: Path, files: dict[str, str | None] | None = None, **more: Any) -> Context:
    """A context of a machine where all is well, but for `files` (None: not there).

    Args:
        more: of `Context`; and `gpus` of it, `instructions` and `no_gpu`.
    """
    root = folder / "root"
    for path, text in (GOOD | (files or {})).items():
        if text is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, "utf-8")
    gpus, instructions = more.pop("gpus", ()), more.pop("instructions", FULL)
    no_gpu, nvml = more.pop("no_gpu", ""), more.pop("nvml", "no NVIDIA driver: none is here")
    made = Context(root=root, run_folder=folder / "run", **{"cores": 4} | more)
    own = tuple(Gpu(gpu.name, "9.0") for gpu in gpus) if not no_gpu else ()
    made.__dict__ |= {
        "machine": Machine(gpus=own, no_gpu=no_gpu, cuda="13.0" if gpus else "", instructions=instructions),
        "gpus": tuple(gpus), "nvml": nvml,
    }  # fmt: skip
    return made
