"""From an engine's folder to a generator: vLLM's process is started, waited for, and what it says of a failure is told."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import ManifestError
from ...machine import Machine, this_machine
from ..target import Hosting
from .causes import cause_in, remedy_of
from .child import Host
from .finding import find_python
from .generator import Engine, VllmGenerator
from .guides import ENGINE
from .leftovers import sweep
from .machines import Machines, Spread
from .meeting import VARIABLE as MASTER
from .meeting import Meeting, network_of
from .plan import VllmPlan, engine_arguments
from .preflight import check_machine
from .progress import STALL_S, Progress
from .protocol import Failed, Ready, Start

THREADS = "TRIUNE_VLLM_THREADS"  # of the environment: of each worker
STALL = "TRIUNE_VLLM_STALL_S"  # of the environment: seconds without a step that are too many
START_S = 3600.0  # the largest checkpoints are read for so long
_PROGRAM = "triune_runtime.targets.vllm.host"
_SERVER = "tritonserver"  # in the paths of its libraries, which are of no use to vLLM
_RUNTIME = Path(__file__).resolve().parents[3]  # where this package lies


def start(hosting: Hosting, command: Sequence[str] | None = None) -> VllmGenerator:
    """See `Target.generator`.

    Args:
        command: what starts vLLM's process, by default with the Python that has it.

    Raises:
        ManifestError: vLLM does not start; says why.
    """
    manifest = hosting.manifest
    if hosting.client_sequences is not None:
        raise ManifestError("engines of target vllm give clients no fair shares", "leave out FAIR_SHARE")
    sweep()
    plan, python = VllmPlan.of(manifest), find_python()
    arguments = engine_arguments(manifest, hosting.folder, prefix_caching=hosting.prefix_caching)
    network: dict[str, str] = {}
    machines = None
    if plan.nodes > 1:
        meeting = Meeting.parse(os.environ.get(MASTER) or "127.0.0.1", MASTER)
        network = network_of(meeting.address, os.environ)
        check_machine(plan, os.environ)
        machines = Machines(meeting, plan.nodes, arguments)
        machines.gather(START_S)
        arguments |= meeting.arguments(plan.nodes, 0)
    host = Host(command or [str(python), "-m", _PROGRAM], environment(plan, hosting.folder, python, os.environ | network))
    engine = Spread(host, machines) if machines else host
    try:
        host.tell(Start(arguments=arguments))
        ready = _wait_ready(engine, host)
        if ready.vocab_size < manifest.vocab_size:
            raise ManifestError(
                f"vLLM's vocabulary has {ready.vocab_size:,} tokens, engine.json says {manifest.vocab_size:,}",
                "build the engine again",
            )
    except BaseException:
        engine.end()
        raise
    host.lines.clear()  # of its start
    stall_s = float(os.environ.get(STALL, "") or STALL_S)
    return VllmGenerator(manifest, engine, ready, hosting.token_bytes, progress=Progress(stall_s))


def environment(
    plan: VllmPlan, engine: Path, python: Path, around: Mapping[str, str], machine: Machine | None = None
) -> dict[str, str]:
    """The environment of vLLM's process.

    Args:
        around: of this one. What it says of vLLM holds.
        machine: by default this one.
    """
    on_gpus = bool((machine or this_machine()).gpus)  # whose workers only feed them: more threads get into each other's way
    threads = around.get(THREADS) or str(1 if on_gpus else max(1, len(os.sched_getaffinity(0)) // plan.devices))
    ours = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else it takes cores for itself alone
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    found = {name: value for name, value in around.items() if not name.startswith("PYTHON")}
    libraries = [one for one in around.get("LD_LIBRARY_PATH", "").split(os.pathsep) if _SERVER not in one]
    paths = [*([str(_RUNTIME)] if python != Path(sys.executable) else []), around.get("PYTHONPATH", "")]
    return (
        ours
        | found
        | {
            "OMP_NUM_THREADS": threads,  # a server's own processes have one each
            "LC_ALL": "C.UTF-8",
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            ENGINE: str(engine.absolute()),
        }
    )


def _wait_ready(engine: Engine, host: Host) -> Ready:
    """What it tells of itself, once it serves.

    Args:
        host: its process on this machine.

    Raises:
        ManifestError: it does not.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        for told in engine.told(1.0):
            if isinstance(told, Ready):
                return told
            why = told.why if isinstance(told, Failed) else f"it says what nobody asked: {told!r:.200}"
            raise _failed(host, why)
        if why := engine.problem:
            raise _failed(host, why)
    raise _failed(host, f"it was not ready after {START_S:.0f} s")


def _failed(host: Host, why: str) -> ManifestError:
    host.kill()  # and have its last words
    cause = cause_in(host.lines) or why
    return ManifestError(f"vLLM does not start: {cause}", remedy_of(cause))
