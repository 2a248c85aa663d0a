"""Whether a target's kernels take a checkpoint's shapes, from headers alone: said before anything is built. Reads no weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triune_runtime.manifest import CacheTensor

from .errors import BuildError, option
from .estimate import described_weights
from .graph.promises import settled_config
from .plan import BuildPlan
from .quantize.policy import Precision
from .targets import every_target
from .targets.sizes import Weight, scheme_of
from .targets.target import Target

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_FP8 = "F8_E4M3"
_LATENT = ".latent"  # how the cache of a layer whose heads share one is named


def check_shapes(plan: BuildPlan, checkpoint: Checkpoint, target: Target) -> None:
    """Make sure that `plan` can be built for `target`, which is its own, of weights of these shapes.

    Raises:
        BuildError: names the first that does not fit, and what can be built instead, if anything.
    """
    _, cfg = settled_config(checkpoint.config, checkpoint.weights.keys())
    weights, tied = described_weights(checkpoint.weights), bool(cfg.tie_word_embeddings)
    if misfit := _heads(target, cfg.cache, cfg.rope.dim):
        others = [t.name for t in every_target() if t.name != target.name and not _heads(t, cfg.cache, cfg.rope.dim)]
        raise BuildError(misfit, f"choose {option('target', others[0])}" if others else "no target here takes this model")
    target.check_checkpoint(plan, checkpoint)
    misfits = {name: _weights(row.weights, weights, tied) for name, row in target.precisions.items()}
    if problem := misfits[plan.precision]:
        others = [name for name, wrong in misfits.items() if not wrong]
        raise BuildError(
            f"{problem}: {plan.model} cannot be built at {plan.precision}",
            f"choose {option('precision', others[0])}" + (f", or {', '.join(others[1:])}" if others[1:] else "")
            if others
            else f"no precision of target {target.name} takes this model",
        )


def _heads(target: Target, cache: tuple[CacheTensor, ...], rotated: int) -> str:
    """What the target's attention does not take; empty: it takes all.

    Args:
        rotated: how many numbers of a head are.
    """
    for tensor in cache:
        is_latent = tensor.name.endswith(_LATENT)
        unit = target.latent_unit if is_latent else target.head_unit
        if tensor.dim % unit:
            what = "a token's latent has" if is_latent else "heads have"
            return f"{what} {tensor.dim} numbers; attention of target {target.name} takes multiples of {unit}"
        if not is_latent and target.head_most is not None and tensor.dim > target.head_most:
            return f"heads have {tensor.dim} numbers; attention of target {target.name} takes at most {target.head_most}"
    if rotated % target.rotary_unit:
        unit = target.rotary_unit
        return f"{rotated} numbers of a head are rotated; attention of target {target.name} takes multiples of {unit}"
    return ""


def _weights(precision: Precision, weights: list[Weight], tied: bool) -> str:
    """The first weight that the precision's schemes do not take; empty: they take all."""
    if precision.stored == _FP8 and not any(weight.dtype == _FP8 for weight in weights):
        return "the checkpoint has no FP8 weights to keep"
    for weight in weights:
        if weight.kind == "vector":
            continue
        for kind in (weight.kind, "head") if tied and weight.kind == "table" else (weight.kind,):
            scheme = scheme_of(precision, weight.name, kind)
            if scheme is not None and weight.shape[-1] % scheme.unit:
                return f"{weight.name} has {weight.shape[-1]} columns, which blocks of {scheme.unit} do not divide"
    return ""
