"""Every way to split a model over the GPUs that there are, what each would do, and which is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import BuildError, option
from .geometry import Geometry
from .memory import Plan, gib
from .roofline import Roofline
from .splits import Split, misfit, spans, splits

_ALIKE = 0.95  # tokens/s of another that differ by no more are told to be alike
_FILLED = 0.8  # of a GPU, with weights, where there shall be room for KV


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of the GPUs: so many sequences at once, each with a prompt and an answer of so many tokens."""

    sequences: int
    prompt: int
    output: int
    longest: int = 0  # tokens of a sequence that has to fit besides

    @property
    def length(self) -> int:
        return self.prompt + self.output

    @property
    def needed(self) -> int:
        """Tokens of the longest sequence that has to fit."""
        return max(self.length, self.longest)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one batch: all GPUs together."""

    batch: int
    between: float  # seconds between two tokens of a sequence
    decode: float  # tokens/s while all decode
    overall: float  # tokens/s of answers, the time of prompts included


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One split; with `why` it cannot be, or is not chosen unless it is asked for."""

    split: Split
    why: str = ""
    remedy: str = ""  # where the model cannot be split that way, whatever the GPUs
    plan: Plan | None = None
    held: int = 0  # sequences of the load's length that fit
    first_token: float = 0.0  # seconds of one prompt alone
    speed: Speed | None = None
    roofline: Roofline | None = field(default=None, repr=False)


def speed(roofline: Roofline, batch: int, load: Load) -> Speed:
    """The speed of `batch` sequences, shared evenly by the data-parallel replicas."""
    plan = roofline.plan
    each = math.ceil(batch / plan.split.data)
    between = roofline.decode(each, load.prompt + load.output / 2, min(batch, plan.split.data))
    prompts = _prompts(roofline, each, load.prompt)
    return Speed(
        batch=batch, between=between, decode=batch / between, overall=batch * load.output / (prompts + load.output * between)
    )


def _prompts(roofline: Roofline, count: int, length: int) -> float:
    """Seconds of so many prompts, as many in a step as it has room for."""
    together = min(count, roofline.plan.step_tokens // length)
    if together < 2:
        return count * roofline.prefill(length)
    return count / together * roofline.step(0, 0, together * length, together * length**2 / 2)


def candidates(
    roofline_of: Callable[[Split], Roofline], geometry: Geometry, gpus: int, nodes: int, load: Load, *, apart: bool = False
) -> list[Candidate]:
    """Every split over that many GPUs of so many machines, the best first, then those that cannot be.

    Args:
        apart: devices that share a layer may be in several machines.
    """
    found = []
    for split in splits(geometry, gpus):
        if wrong := misfit(geometry, split, nodes):
            found.append(Candidate(split=split, why=wrong.why, remedy=wrong.remedy))
        elif spans(split, nodes) and not apart:
            why = f"tensor parallelism of {split.tensor} spans machines of {gpus // nodes} GPUs: each layer waits"
            found.append(Candidate(split=split, why=why, remedy=f"ask for it: {option('tensor_parallel', split.tensor)}"))
        else:
            found.append(judged(roofline_of(split), load))
    return sorted(found, key=lambda one: (-one.speed.overall if one.speed else 1.0, str(one.split)))


def judged(roofline: Roofline, load: Load) -> Candidate:
    """What a split would do under that load."""
    plan = roofline.plan
    worst = min(plan.ranks, key=lambda rank: rank.room)
    if not plan.fits:
        return Candidate(
            split=plan.split,
            plan=plan,
            why=f"weights, activations and libraries take {gib(worst.fixed)} of {gib(plan.gpu.bytes)} of a GPU",
        )
    if not plan.held(load.needed):
        return Candidate(
            split=plan.split,
            plan=plan,
            why=f"{gib(worst.room)} are left for KV; one sequence of {load.needed:,} takes {gib(worst.kv_bytes(load.needed))}",
        )
    held = plan.held(load.length)
    batch = min(held, load.sequences)
    return Candidate(
        split=plan.split,
        plan=plan,
        held=held,
        first_token=roofline.prefill(load.prompt),
        speed=speed(roofline, batch, load),
        roofline=roofline,
    )


def reason(best: Candidate, others: Sequence[Candidate]) -> str:
    """Why the best one is: what the next ones lack, in a sentence."""
    assert best.speed is not None
    said = []
    rivals = [one for one in others if one.speed is not None and one.split != best.split]
    if rivals:
        next_ = rivals[0]
        assert next_.speed is not None
        near = ", about as fast as far as this is known," if next_.speed.overall > best.speed.overall * _ALIKE else ""
        said.append(
            f"{best.speed.overall:,.0f} tokens/s at {best.speed.batch} sequences; next{near} is {next_.split} with "
            f"{next_.speed.overall:,.0f} at {next_.speed.batch}, {next_.speed.between * 1e3:.1f} ms between tokens against "
            f"{best.speed.between * 1e3:.1f}"
        )
    unfit = [one for one in others if one.plan is not None and one.speed is None]
    if unfit:
        said.append(f"not every split fits: {unfit[0].split} does not, {unfit[0].why}")
    return "; ".join(said) or "there is no other way"


def impossible(found: Sequence[Candidate], whole: Plan, gpus: int) -> BuildError:
    """The error where no split of `whole`, the model on one GPU, fits."""
    tried = [(min(rank.room for rank in one.plan.ranks), one) for one in found if one.plan is not None]
    if not tried:
        return BuildError(found[0].why, found[0].remedy)
    nearest = max(tried, key=lambda each: each[0])[1]
    why = f"{nearest.split}: {nearest.why}"
    enough = 1 << math.ceil(math.log2(max(whole.weights / (whole.gpu.bytes * _FILLED), 1)))
    smaller = "fp8 or int4" if gpus == 1 else "fp8"  # our own engines alone have the latter
    hint = f"try --gpus {enough}" if enough > gpus else f"choose --precision {smaller}, KV in fp8, or shorter sequences"
    return BuildError(f"{gpus} x {whole.gpu.name} cannot hold it; nearest is {why}", f"{hint}, or a GPU with more memory")
