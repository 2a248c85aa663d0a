"""Every fault: its name, how it is done, what others may see of it, and how long until all is well again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from signal import SIGINT, SIGTERM

from .answers import REFUSED
from .faults import clock, commands, connections, files, limits, requests, signals
from .scene import BROKEN, EITHER, GONE, NOTHING, WELL, Fault, Scene
from .server import DRAIN_S, START_S, Server

STEPS = ("generate", "tokenize", "detokenize")
END_S = DRAIN_S + 15.0  # what docs/operations.md promises of a server that is told to stop
_AT_ONCE_S = 5.0  # for the children of a supervisor that was killed
_WATCHDOG_S = 30.0 + START_S  # to see that a process does not move, and to start again
_REFUSED = frozenset({REFUSED})


def _starting(
    name: str, do: Callable[[Scene], None], then: str, well_s: float, lacks: Callable[[Server], str] = lambda server: ""
) -> Fault:
    """A fault of a server that does not run yet, and so without bystanders."""
    return Fault(name, do, then=then, well_s=well_s, crowd=0, running=False, lacks=lacks)


FAULTS: tuple[Fault, ...] = (
    # killed under load
    Fault("kill-supervisor", signals.kill("supervisor"), BROKEN, GONE, _AT_ONCE_S, swept_later=True),
    Fault("kill-supervisor-and-up", commands.start_after_kill, BROKEN, well_s=START_S),
    *(
        Fault(f"kill-{role}", signals.kill(role), BROKEN, well_s=START_S)
        for role in ("tritonserver", "gateway", "front", *STEPS)
    ),
    Fault("kill-another-stub", signals.kill_any_stub, BROKEN, well_s=START_S),
    Fault("kill-all-stubs", signals.kill_all_stubs, BROKEN, well_s=START_S),
    Fault("kill-again-and-again", signals.kill_again_and_again, BROKEN, well_s=90.0, deaths=5),
    # alive, but not moving
    *(
        Fault(f"stall-{role}", signals.stall(role), BROKEN, well_s=_WATCHDOG_S)
        for role in ("tritonserver", "gateway", "front", *STEPS)
    ),
    *(Fault(f"pause-{role}", signals.pause(role)) for role in ("supervisor", "tritonserver", "gateway", "front")),
    # Triton takes a model's process that does not move for a second or so for dead.
    *(Fault(f"pause-{role}", signals.pause(role), BROKEN, well_s=START_S) for role in STEPS),
    Fault("status-of-paused-supervisor", signals.ask_status_of_a_paused_supervisor),
    # at the start and at the end
    replace(
        _starting("kill-supervisor-at-start", signals.during_start("supervisor", "kill"), GONE, _AT_ONCE_S), swept_later=True
    ),
    *(
        _starting(f"kill-{role}-at-start", signals.during_start(role, "kill"), EITHER, 60.0)
        for role in ("tritonserver", "gateway", "front", "generate")
    ),
    *(
        _starting(f"stall-{role}-at-start", signals.during_start(role, "stall"), EITHER, _WATCHDOG_S)
        for role in ("tritonserver", "generate")
    ),
    *(
        Fault(f"kill-{role}-at-restart", signals.during_restart(role, "kill"), BROKEN, well_s=60.0)
        for role in ("tokenize", "generate", "front")
    ),
    Fault("stall-generate-at-restart", signals.during_restart("generate", "stall"), BROKEN, well_s=_WATCHDOG_S),
    Fault("stop", signals.end(SIGTERM), BROKEN, GONE, END_S),
    Fault("interrupt", signals.end(SIGINT), BROKEN, GONE, END_S),
    *(
        Fault(f"{how}-{role}-at-stop", signals.during_stop(role, how), BROKEN, GONE, END_S, swept_later=role == "supervisor")
        for how, role in (
            ("kill", "supervisor"), ("kill", "tritonserver"), ("kill", "generate"), ("kill", "gateway"), ("kill", "front"),
            ("stall", "tritonserver"), ("stall", "generate"), ("stall", "gateway"), ("stall", "front"),
        )
    ),
    # clients
    Fault("disconnect-storm-http", connections.disconnect_storm_http),
    Fault("disconnect-storm-grpc", connections.disconnect_storm_grpc),
    Fault("silent-connections", connections.silent_connections),
    Fault("slow-readers-http", connections.slow_readers_http),
    Fault("slow-readers-grpc", connections.slow_readers_grpc),
    Fault("slow-writers", connections.slow_writers),
    Fault("overload-20x", requests.overload, _REFUSED, well_s=60.0, patience_s=requests.QUEUE_S),
    # requests that are meant to do harm
    Fault("deep-json", requests.deep_json),
    Fault("many-chunks", requests.many_chunks),
    Fault("odd-heads", requests.odd_heads),
    Fault("odd-bodies", requests.odd_bodies),
    Fault("heavy-grammar", requests.heavy_grammar),
    Fault("odd-datagrams", requests.odd_datagrams),
    # what a machine runs out of
    Fault("full-disk", limits.full_disk(""), lacks=limits.lacks_disk),
    Fault("full-disk-kill-generate", limits.full_disk("generate"), BROKEN, well_s=60.0, lacks=limits.lacks_disk),
    Fault("full-disk-kill-tritonserver", limits.full_disk("tritonserver"), BROKEN, well_s=60.0, lacks=limits.lacks_disk),
    _starting("full-disk-at-start", limits.full_disk_at_start, EITHER, 60.0, limits.lacks_disk),
    *(
        Fault(f"no-descriptors-{role}", limits.no_descriptors(role), BROKEN, well_s=START_S)
        for role in ("tritonserver", "gateway", "front", "supervisor")
    ),
    *(Fault(f"no-memory-{role}", limits.no_memory(role), BROKEN, well_s=60.0) for role in ("gateway", "front", *STEPS)),
    *(Fault(f"no-files-{role}", limits.no_files(role), NOTHING) for role in ("supervisor", "tritonserver", "gateway", "front")),
    *(
        Fault(f"no-threads-{role}", limits.no_threads(role), BROKEN, well_s=START_S, lacks=limits.lacks_pids)
        for role in ("supervisor", "tritonserver", "gateway", "front", "generate")
    ),
    # files
    Fault("damage-under-a-server", files.damage_under_a_server, BROKEN, EITHER, 90.0),
    _starting("damage-before-start", files.damage_before_start, EITHER, 60.0),
    _starting("damaged-state", files.damaged_state, WELL, 60.0),
    # commands
    Fault("start-beside-a-server", commands.start_beside_a_server, well_s=60.0),
    _starting("start-twice", commands.start_twice, WELL, 60.0),
    _starting("start-and-stop", commands.start_and_stop, GONE, 60.0),
    # Triton waits for its models' processes until a time of the wall clock: after a jump forward it takes them for dead.
    Fault("clock-jumps", clock.jumps, BROKEN, GONE, 30.0, crowd=0, running=False, lacks=clock.lacks_clock),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}
SMOKE = (
    "kill-generate", "kill-gateway", "kill-front", "pause-tritonserver", "disconnect-storm-http", "slow-readers-grpc", "stop",
    "damage-before-start", "overload-20x",
)  # fmt: skip
