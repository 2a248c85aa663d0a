"""A run of faults, one after another, on one server for as long as it stays well."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace

from .answers import ANSWERED, Outcome
from .crowd import Crowd
from .footprint import Footprint, grown, left_behind
from .scene import EITHER, GONE, Fault, Scene
from .server import START_S, NotWell, Server

_ENDS_S = 5.0  # for the last processes of a server that was seen to end
_DEATHS = 4  # of one server in a row: who dies again and again is started later and later, which is not this fault's doing
_SETTLE_S = 10.0  # for descriptors of connections that clients have closed


@dataclass
class Result:
    """What came of one fault.

    Attributes:
        violations: what must not be; empty if all was well.
        outcomes: how many requests of bystanders came to what.
        seconds: until it was well again, from the fault's beginning.
    """

    number: int
    fault: str
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    lacks: str = ""

    def as_json(self) -> dict[str, object]:
        """Without what is empty."""
        return {name: value for name, value in asdict(self).items() if value or name in ("number", "violations")}


def choose(faults: Sequence[Fault], seed: int, count: int) -> Iterator[tuple[int, Fault]]:
    """Numbers from 1, and the fault of each: every fault comes once before one comes again, in an order of the seed's."""
    for number in range(1, count + 1):
        turn, place = divmod(number - 1, len(faults))
        order = list(faults)
        random.Random(f"{seed}/turn/{turn}").shuffle(order)
        yield number, order[place]


def blame(fault: Fault, outcomes: Sequence[Outcome]) -> list[str]:
    """What bystanders have seen and must not have: one line for each kind and protocol."""
    wrong: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.kind != ANSWERED and outcome.kind not in fault.may:
            wrong.setdefault((outcome.kind, outcome.protocol), []).append(outcome.detail)
    return [f"{kind}: {len(said)} over {protocol or 'any'}: {said[0]}" for (kind, protocol), said in sorted(wrong.items())]


def run_one(server: Server, fault: Fault, number: int, seed: int) -> Result:
    """Do one fault and look at everything afterwards. The server may be in any state before and after."""
    result = Result(number, fault.name, lacks=fault.lacks(server))
    if result.lacks:
        return result
    try:
        before = _prepare(server, fault)
    except NotWell as error:
        result.violations.append(f"not started: {error}")
        server.destroy()
        return result
    began = time.monotonic()
    with ExitStack() as undo:
        scene = Scene(server, number, random.Random(f"{seed}/{number}"), undo)
        if fault.crowd:
            scene.crowd = Crowd(
                server.where, server.texts, size=fault.crowd, seed=f"{seed}/{number}", patience_s=fault.patience_s
            ).begin()
            scene.wait(scene.chance.uniform(0.3, 1.5))
        try:
            fault.do(scene)
        except Exception:
            scene.problems.append(f"the fault could not be done: {traceback.format_exc(limit=-2)}")
        # What does not move stays so until it is seen whether anyone has ended it; all else is undone at once.
        stays = fault.name.startswith("stall-")
        if not stays:
            undo.close()
        result.violations += _after(scene, fault, before)
        result.seconds = round(time.monotonic() - began, 1)
    if scene.crowd is not None:
        result.outcomes = scene.crowd.counts()
        result.violations += blame(fault, scene.crowd.outcomes)
    result.violations += scene.problems
    result.notes = scene.notes
    if result.violations:
        server.destroy()  # the next one begins with a sound server
    return result


def _prepare(server: Server, fault: Fault) -> Footprint:
    if not fault.running:
        if left := server.stop():
            server.destroy()
            raise NotWell(f"{len(left)} processes did not end before it")
        return Footprint()
    deaths = fault.deaths if fault.may else 0
    if server.supervised and server.deaths and server.deaths + deaths > _DEATHS and server.stop():
        server.destroy()
        raise NotWell("it did not end before it")
    if not server.supervised:
        server.start()
    server.deaths += deaths
    server.wait_idle()
    return server.look()


def _after(scene: Scene, fault: Fault, before: Footprint) -> list[str]:
    """What is wrong when a fault is over. Bystanders ask on until the server is well, or is gone."""
    server = scene.server
    try:
        if fault.then == GONE:
            wait_for(lambda: not server.family(), fault.well_s)
        else:
            server.wait_well(fault.well_s)
    except NotWell as error:
        if fault.then != EITHER or not wait_for(lambda: not server.family(), _ENDS_S):
            return [f"not well again within {fault.well_s:.0f} s: {error}"]
    finally:
        scene.end_crowd()
    if not server.supervised:
        return _check_gone(server, fault.swept_later)
    if fault.then == GONE:
        return left_behind(server.look())
    if (holds := server.wait_idle()) is None:
        return ["its metrics do not answer"]
    found = _settle(lambda: grown(before, server.look())) if before.members else []
    return found + ([f"leaked slot: it holds {holds:.0f} requests although nobody asks"] if holds else [])


def wait_for(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until something holds; whether it does within so long."""
    end = time.monotonic() + timeout_s
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _check_gone(server: Server, swept_later: bool) -> list[str]:
    """That nothing is left of a server whose supervisor has ended, and that it can be started at once."""
    left = server.look()
    if found := left_behind(replace(left, segments=frozenset(), files=frozenset()) if swept_later else left):
        return found
    try:
        server.start()
    except NotWell as error:
        return [f"cannot be started again within {START_S:.0f} s: {error}"]
    now = server.look()
    return [
        f"leaked {what}: {len(still)} that the next start has not removed: {', '.join(sorted(still))}"
        for what, still in (("segment", left.segments & now.segments), ("file", left.files & now.files))
        if still
    ]


def _settle(look: Callable[[], list[str]]) -> list[str]:
    """What is still wrong after a while."""
    end = time.monotonic() + _SETTLE_S
    while (found := look()) and time.monotonic() < end:
        time.sleep(0.5)
    return found
