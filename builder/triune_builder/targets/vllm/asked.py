"""What is said of devices when an engine is built, by options or by the machine. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triune_runtime.machine import this_machine

from ...errors import BuildError, option
from ...planning.hardware import find_gpu

DEGREES = ("tensor_parallel", "pipeline_parallel", "data_parallel")
_MOST_DEVICES = 4096


def check_numbers(options: Mapping[str, Any]) -> None:
    """
    Raises:
        BuildError: a number of devices that there cannot be, or a GPU that nobody knows.
    """
    for name in (*DEGREES, "nodes", "gpus"):
        if not 1 <= (value := options.get(name, 1)) <= _MOST_DEVICES:
            flag = f"--{name.replace('_', '-')}"
            raise BuildError(f"{flag} is {value:,}; it can be 1 to {_MOST_DEVICES:,}", f"choose e.g. {option(name, 1)}")
    if "gpu" in options:
        find_gpu(options["gpu"])


def found_here(options: Mapping[str, Any]) -> dict[str, Any]:
    """The machine's GPUs as options, where these name none: an engine is planned for them. None that is known: nothing.

    All of them count, on each machine, unless the degrees of parallelism say how many.
    """
    if "gpu" in options or not (gpus := this_machine().gpus):
        return {}
    try:
        name = find_gpu(gpus[0].name).name
    except BuildError:
        return {}
    said = "gpus" in options or any(degree in options for degree in DEGREES)
    return {"gpu": name} if said else {"gpu": name, "gpus": len(gpus) * options.get("nodes", 1)}
