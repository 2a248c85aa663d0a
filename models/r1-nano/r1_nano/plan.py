"""What changes in the course of a run, as functions of its progress from 0 to 1. Holds no state."""

from __future__ import annotations

from .recipe import ModelRecipe, TrainRecipe


def learning_rate(progress: float, recipe: TrainRecipe) -> float:
    """The factor of both learning rates: a short rise, a plateau, a fall to zero at the end."""
    if progress < recipe.warmup:
        return max(progress, 1e-4) / recipe.warmup
    return min(1.0, max(0.0, 1.0 - progress) / recipe.cooldown)


def active_experts(progress: float, model: ModelRecipe, recipe: TrainRecipe, *, dense_to_sparse: bool) -> int:
    """Experts for each token: the final number, or all at first and then fewer and fewer, each number as long as the next."""
    final, full = model.num_experts_per_tok, model.n_routed_experts
    if not dense_to_sparse or progress >= recipe.dense_fraction:
        return final
    return full - int((full - final + 1) * progress / recipe.dense_fraction)


def mtp_weight(progress: float, recipe: TrainRecipe) -> float:
    start, end = recipe.mtp_weight
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def bias_step(progress: float, recipe: TrainRecipe) -> float:
    """The routers' correction bias comes to rest with the learning rate."""
    return recipe.bias_step * min(1.0, learning_rate(progress, recipe) * 4)
