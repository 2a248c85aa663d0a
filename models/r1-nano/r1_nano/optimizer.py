"""Muon for matrices and AdamW for everything else, behind one interface with a state that is saved and loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .recipe import TrainRecipe

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, Jordan et al. 2024, "Muon"
_STEPS = 5
_ROUTER_SHARE = 0.25  # routers learn at this share of the vectors' rate: an expert's load must not jump


class Optimizer:
    """One step of both. Learning rates are the recipe's, times a factor given with each step."""

    def __init__(self, model: nn.Module, recipe: TrainRecipe) -> None:
        self.recipe = recipe
        named = list(model.named_parameters())
        routers = [p for name, p in named if name.endswith("gate.weight")]
        in_adam = ("embed_tokens.weight", "lm_head.weight", "gate.weight")
        matrices = [p for name, p in named if p.ndim >= 2 and not name.endswith(in_adam)]
        taken = {id(p) for p in (*routers, *matrices)}
        rest = [p for _, p in named if id(p) not in taken]
        self.adam = torch.optim.AdamW(
            [
                {"params": rest, "base": recipe.vector_lr},
                {"params": routers, "base": recipe.vector_lr * _ROUTER_SHARE},
            ],
            betas=recipe.betas, weight_decay=0.0, fused=rest[0].is_cuda,
        )  # fmt: skip
        shapes: dict[tuple[int, ...], list[Tensor]] = {}
        for parameter in matrices:
            shapes.setdefault(tuple(parameter.shape[-2:]), []).append(parameter)
        self.groups = list(shapes.values())
        self.momenta = [[torch.zeros_like(p) for p in group] for group in self.groups]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * factor
        self.adam.step()
        rate = self.recipe.matrix_lr * factor
        for parameters, momenta in zip(self.groups, self.momenta, strict=True):
            gradients = [p.grad for p in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - self.recipe.momentum)
            ahead = torch._foreach_lerp(gradients, momenta, self.recipe.momentum)
            rows, columns = parameters[0].shape[-2:]
            update = _orthogonal(torch.cat([a.reshape(-1, rows, columns) for a in ahead]))
            scale = max(1.0, rows / columns) ** 0.5
            torch._foreach_mul_(parameters, 1 - rate * self.recipe.matrix_decay)
            pieces = update.split([p.numel() // (rows * columns) for p in parameters])
            shaped = [piece.reshape(p.shape).to(p.dtype) for piece, p in zip(pieces, parameters, strict=True)]
            torch._foreach_add_(parameters, shaped, alpha=-rate * scale)

    def zero_grad(self, model: nn.Module) -> None:
        model.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "momenta": self.momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for ours, saved in zip(self.momenta, state["momenta"], strict=True):
            for tensor, value in zip(ours, saved, strict=True):
                tensor.copy_(value)


def _orthogonal(batch: Tensor) -> Tensor:
    """Each matrix of [n, rows, columns] with its singular values brought near 1, by Newton and Schulz's iteration."""
    a, b, c = _COEFFICIENTS
    x = batch.bfloat16()
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x
