"""Whether a machine can do its part of an engine that several serve: looked at before anything is started or waited for."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from ...errors import ManifestError
from ...machine import Machine, this_machine
from .leftovers import SHARED_MEMORY
from .meeting import GLOO, NCCL, OWN_ADDRESS
from .plan import VllmPlan

_RING = 240 << 20  # bytes that vLLM lays out for each device (vllm/distributed/device_communicators/shm_broadcast.py)


def check_machine(
    plan: VllmPlan, around: Mapping[str, str], *, shared: Path = SHARED_MEMORY, machine: Machine | None = None
) -> None:
    """Look at the network that the environment names, at shared memory and at GPUs.

    Args:
        around: the environment that vLLM's process will have.
        machine: by default this one.

    Raises:
        ManifestError: names what was found, what is needed and the remedy.
    """
    _check_network(around)
    _check_shared_memory(plan.devices, shared)
    gpus = len((machine or this_machine()).gpus)
    if 0 < gpus < plan.devices:  # none: vLLM computes on the CPU
        raise ManifestError(
            f"this machine has {gpus} of the {plan.devices} GPUs that its part of the engine needs",
            "look at CUDA_VISIBLE_DEVICES, or build with another TENSOR_PARALLEL, PIPELINE_PARALLEL or NODES, on all machines",
        )


def _check_network(around: Mapping[str, str]) -> None:
    there = psutil.net_if_addrs()
    for variable in (GLOO, NCCL):
        if (said := around.get(variable)) and not _names_one(variable, said, there):
            raise ManifestError(
                f"{variable} is {said!r}, and this machine has no such interface: it has {', '.join(sorted(there))}",
                f"name one of these, or leave {variable} out: the one by which the machines meet is taken",
            )
    addresses = {one.address for its in there.values() for one in its}
    if (said := around.get(OWN_ADDRESS)) and said not in addresses:
        raise ManifestError(
            f"{OWN_ADDRESS} is {said!r}, and this machine has no such address",
            f"name one that the other machines reach it by, or leave {OWN_ADDRESS} out",
        )


def _names_one(variable: str, said: str, there: Collection[str]) -> bool:
    """Whether there is what a variable names: Gloo knows names alone, NCCL beginnings of names, `=name` and `^but_these`."""
    if variable == GLOO:
        return set(said.split(",")) <= set(there)
    if said.startswith("^"):
        return True
    names = said.removeprefix("=").split(",")
    return any(one in names if said.startswith("=") else one.startswith(tuple(names)) for one in there)


def _check_shared_memory(devices: int, where: Path) -> None:
    try:
        size = shutil.disk_usage(where)
    except OSError:
        return  # vLLM says what is wrong
    needed = devices * _RING
    if size.free < needed:
        enough = (size.used + needed >> 20) + 1
        raise ManifestError(
            f"{where} has {size.free >> 20} MB free; vLLM lays out {_RING >> 20} MB there for each of this machine's devices, "
            f"{needed >> 20} MB for {devices}",
            f"as root: mount -o remount,size={enough}m {where}; in a container: docker run --shm-size={enough}m",
        )
