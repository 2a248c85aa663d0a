"""The one decision of how a model is split over GPUs: `triune plan` and builds of engines for several GPUs ask it alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import BuildError
from .calibration import Engine
from .choosing import Candidate, Load, candidates, impossible, judged, reason
from .geometry import Geometry
from .hardware import Gpu
from .memory import STEP_TOKENS, Plan
from .roofline import Roofline
from .splits import Split, check_split

NETWORK = 400.0  # Gbit/s of one GPU to other machines, where nobody says


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be split, and over what. Of `degrees` (tensor, pipeline, data) and `expert`, None is to be chosen."""

    geometry: Geometry
    engine: Engine
    gpu: Gpu
    gpus: int
    nodes: int = 1  # machines
    network: float = NETWORK
    precision: str
    kv_dtype: str
    load: Load
    degrees: tuple[int | None, int | None, int | None] = (None, None, None)
    expert: bool | None = None
    mtp: bool = False
    step_tokens: int = STEP_TOKENS

    def roofline(self, split: Split) -> Roofline:
        """The times of a split."""
        plan = Plan(
            geometry=self.geometry, gpu=self.gpu, split=split, precision=self.precision, kv_dtype=self.kv_dtype, mtp=self.mtp,
            sequences=max(math.ceil(self.load.sequences / split.data), 256), step_tokens=self.step_tokens,
        )  # fmt: skip
        per_machine = math.ceil(self.gpus / self.nodes)
        return Roofline(plan, self.engine, per_machine=per_machine, network=self.network * 1e9 / 8)

    def takes(self, split: Split) -> bool:
        """Whether a split is as asked for."""
        fits = all(wanted in (None, has) for wanted, has in zip(self.degrees, split.degrees, strict=True))
        return fits and self.expert in (None, split.expert)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided."""

    best: Candidate
    why: str
    candidates: list[Candidate]  # empty: the split was given


def decide(wanted: Wanted) -> Decision:
    """The split that is fastest under the load.

    Raises:
        BuildError: the model cannot be split as asked for, or the GPUs cannot hold it.
    """
    tensor, pipeline, data = wanted.degrees
    if tensor is not None and pipeline is not None and data is not None:
        split = Split(tensor=tensor, pipeline=pipeline, data=data, expert=bool(wanted.expert))
        check_split(wanted.geometry, split, wanted.gpus, wanted.nodes)
        one = judged(wanted.roofline(split), wanted.load)
        if one.speed is None:
            raise impossible([one], wanted.roofline(Split()).plan, wanted.gpus)
        return Decision(best=one, why="as asked for", candidates=[])
    every = candidates(
        wanted.roofline, wanted.geometry, wanted.gpus, wanted.nodes, wanted.load, apart=tensor is not None
    )  # fmt: skip
    found = [one for one in every if wanted.takes(one.split)]
    if not found:
        said = ", ".join(f"{name} {n}" for name, n in zip(("tensor", "pipeline", "data"), wanted.degrees, strict=True) if n)
        experts = {True: ", experts whole", False: ", no experts whole"}.get(wanted.expert, "")  # type: ignore[arg-type]
        raise BuildError(
            f"--gpus {wanted.gpus} cannot be split as {said or 'asked for'}{experts}",
            "choose degrees whose product is --gpus, or leave them out; a dense model has no experts to hand out",
        )
    if found[0].speed is None:
        raise impossible(found, wanted.roofline(Split()).plan, wanted.gpus)
    return Decision(best=found[0], why=reason(found[0], found), candidates=found)
