"""Checks of the processor and its memory: instructions, cores, NUMA, frequency, huge pages."""

from __future__ import annotations

import re
from collections.abc import Iterator

from triune_runtime import cgroup

from .context import Context
from .finding import Finding, bad, good, poor, unknown

_GB = 1e9
_LEAST_FREE = 2_000_000_000  # bytes, for a server of the default model
_SWAPPED = 100_000_000
_OFTEN = 0.05  # of the periods
_VNNI = {"avx512_vnni", "avx_vnni"}
_EIGHT_BIT = ("w8a8", "int8", "auto")  # precisions that VNNI makes fast


def instructions(context: Context) -> Iterator[Finding]:
    """What engines for the CPU are fast with."""
    has = context.machine.instructions
    if not has:
        yield unknown("instructions", "/proc/cpuinfo does not tell")
        return
    kinds = {"AVX2": "avx2" in has, "AVX-512": "avx512f" in has, "VNNI": bool(_VNNI & has), "AMX": "amx_tile" in has}
    told = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in kinds.items())
    precision = context.manifest.precision if context.manifest else "w8a8"
    if context.wants_gpu:
        yield good("instructions", told)
    elif not kinds["AVX2"]:
        yield bad("instructions", told, "engines for the CPU would take minutes for an answer: use a processor with AVX2")
    elif not kinds["VNNI"] and precision in _EIGHT_BIT:
        yield poor(
            "instructions", f"{told}; {precision} is fast with VNNI", "try PRECISION=int8 or int4, and compare: make verify"
        )
    else:
        yield good("instructions", told)


def cores(context: Context) -> Iterator[Finding]:
    """How many this process may use, and what is left of them."""
    here, model = len(re.findall(r"^processor\s*:", context.read("proc/cpuinfo"), re.MULTILINE)), context.read("proc/cpuinfo")
    named = re.search(r"^model name\s*: (.*)$", model, re.MULTILINE)
    found = f"{context.cores} of {here or '?'}" + (f", {named[1]}" if named else "")
    quota = cgroup.cores_limit(context)
    if context.cores < 2 or (quota is not None and quota < 2):
        said = found if quota is None else f"{found}; the cgroup allows {quota:g}"
        yield poor("cores", said, "Triton, the front and the engine share one: allow at least 2 (docker run --cpus 2)")
    elif quota is not None and quota < context.cores:
        # Threads are counted by the cores that are seen.
        remedy = (
            f"threads of {context.cores} cores share the time of {quota:g}: give whole cores, e.g. docker run --cpuset-cpus"
        )
        yield poor("cores", f"{found}; the cgroup allows {quota:g}", remedy)
    else:
        yield good("cores", found)
    if (share := cgroup.throttled(context)) is not None and share > _OFTEN:
        yield poor(
            "cgroup quota", f"stopped in {share:.0%} of its periods", "allow more time of the processor, or fewer threads"
        )
    if context.running is None:  # else it is told of the server who takes what
        yield from _load(context, here or context.cores)


def _load(context: Context, cores: int) -> Iterator[Finding]:
    """
    Args:
        cores: of the machine, whose threads are counted.
    """
    first = context.read("proc/loadavg").partition(" ")[0]
    if not first:
        return
    load = float(first)
    if load > cores * 1.5:
        yield poor("load", f"{load:.1f} threads want {cores} cores", "end other programs, or serve on another machine")
    else:
        yield good("load", f"{load:.1f} threads on {cores} cores")


def numa(context: Context) -> Iterator[Finding]:
    """Memory that is near some cores only."""
    online = context.read("sys/devices/system/node/online")
    nodes = _count(online)
    if nodes < 2:
        yield good("NUMA", "one node")
        return
    near = {int(text) for gpu in context.gpus if (text := context.read(f"sys/bus/pci/devices/{gpu.bus}/numa_node")).isdigit()}
    spread = _nodes_of_process(context)
    found = f"{nodes} nodes; this process may use {spread or 'all'}"
    if spread is not None and spread > 1 and not context.wants_gpu:
        remedy = "cores of two nodes fetch from each other's memory: numactl --cpunodebind=0 --membind=0 triune up ..."
        yield poor("NUMA", found, remedy)
    elif len(near) == 1 and spread != 1:
        node = near.pop()
        yield poor(
            "NUMA", f"{found}; the GPUs are at node {node}", f"numactl --cpunodebind={node} --membind={node} triune up ..."
        )
    else:
        yield good("NUMA", found)


def _nodes_of_process(context: Context) -> int | None:
    found = re.search(r"^Mems_allowed_list:\s*(\S+)", context.read("proc/self/status"), re.MULTILINE)
    cpus = re.search(r"^Cpus_allowed_list:\s*(\S+)", context.read("proc/self/status"), re.MULTILINE)
    if found is None or cpus is None:
        return None
    allowed = _listed(cpus[1])
    nodes = [n for n in _listed(found[1]) if allowed & _listed(context.read(f"sys/devices/system/node/node{n}/cpulist"))]
    return len(nodes)


def _listed(text: str) -> set[int]:
    """The numbers of one of the kernel's lists, e.g. 0-3,8."""
    found = set[int]()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _count(text: str) -> int:
    return len(_listed(text)) or 1


def frequency(context: Context) -> Iterator[Finding]:
    """What decides how fast the cores run."""
    governor = context.read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    driver = context.read("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver")
    if not governor:  # the firmware decides, or the machine below
        return
    if governor == "powersave" and "pstate" not in driver:
        yield poor(
            "frequency", "governor powersave: cores run at their lowest", "as root: cpupower frequency-set -g performance"
        )
    else:
        yield good("frequency", f"governor {governor}")


def memory(context: Context) -> Iterator[Finding]:
    """How much is there."""
    found = context.memory
    if found.total is None or found.free is None:
        yield unknown("memory of the machine", "/proc/meminfo does not tell")
        return
    told = f"{found.free / _GB:.1f} of {found.total / _GB:.1f} GB free"
    if found.limit is not None and found.limit < found.total:
        told += f"; a cgroup allows {found.limit / _GB:.1f} GB, {found.used / _GB:.1f} GB are used"
    if found.free < _LEAST_FREE and context.running is None:
        yield poor("memory of the machine", told, "end other programs, or allow more (docker run --memory)")
    else:
        yield good("memory of the machine", told)
    if found.swap_used > _SWAPPED:
        yield poor(
            "swap", f"{found.swap_used / _GB:.1f} GB of memory lie on the disk", "end other programs: what is swapped is slow"
        )


def huge_pages(context: Context) -> Iterator[Finding]:
    """Whether weights can lie in large pages."""
    mode = re.search(r"\[(\w+)\]", context.read("sys/kernel/mm/transparent_hugepage/enabled"))
    if mode is None:
        yield unknown("huge pages", "the kernel does not tell")
    elif mode[1] == "never":
        remedy = "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
        yield poor("huge pages", "never: large matrices miss in the TLB", remedy)
    else:
        yield good("huge pages", f"transparent ones: {mode[1]}")


CHECKS = (instructions, cores, numa, frequency, memory, huge_pages)
