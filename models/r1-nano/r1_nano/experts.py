"""The feed-forward half of a layer: gated MLP, router, and experts as one dense product."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .recipe import ModelRecipe


class Routing(NamedTuple):
    """A router's choice: weights [tokens, experts], 0 where not chosen, and the tokens each expert was given [experts]."""

    weights: Tensor
    load: Tensor


class MLP(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Router(nn.Module):
    """noaux_tc: sigmoid scores, a correction bias for the choice alone, the best groups, the best experts in them."""

    e_score_correction_bias: Tensor

    def __init__(self, recipe: ModelRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.weight = nn.Parameter(torch.empty(recipe.n_routed_experts, recipe.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(recipe.n_routed_experts))

    def forward(self, x: Tensor, active: Tensor, counted: Tensor) -> Routing:
        """x [tokens, hidden]; active: experts for each token, a scalar; counted [tokens]: 0 where a token is padding."""
        r = self.recipe
        with torch.autocast(x.device.type, enabled=False):
            scores = (x.float() @ self.weight.float().t()).sigmoid()
            wanted = scores.detach() + self.e_score_correction_bias
            grouped = wanted.view(-1, r.n_group, r.n_routed_experts // r.n_group)
            of_group = (grouped * (_rank(grouped) < 2)).sum(-1)
            in_group = (_rank(of_group) < r.topk_group).repeat_interleave(r.n_routed_experts // r.n_group, dim=1)
            # Experts of other groups rank last: they are only reached while more are active than the groups hold.
            chosen = _rank(torch.where(in_group, wanted, wanted - 1000.0)) < active
            weights = scores * chosen
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * r.routed_scaling_factor
            return Routing(weights, (chosen * counted.unsqueeze(1)).sum(0))


def _rank(x: Tensor) -> Tensor:
    """How many entries of the last axis come before each, largest first; of equals, the first one comes first."""
    ours, other = x.unsqueeze(-1), x.unsqueeze(-2)
    index = torch.arange(x.shape[-1], device=x.device)
    earlier = index < index.unsqueeze(-1)  # [ours, other]
    return ((other > ours) | ((other == ours) & earlier)).sum(-1)


class Experts(nn.Module):
    """The routed experts, all computed for every token and weighted by the routing."""

    def __init__(self, recipe: ModelRecipe) -> None:
        super().__init__()
        count, inner, hidden = recipe.n_routed_experts, recipe.moe_intermediate_size, recipe.hidden_size
        self.gate_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.up_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, inner))

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden activations of every expert, [tokens, experts, inner]."""
        hidden = F.silu(F.linear(x, self.gate_proj.flatten(0, 1))) * F.linear(x, self.up_proj.flatten(0, 1))
        return hidden.unflatten(-1, self.gate_proj.shape[:2])

    def forward(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum [tokens, hidden], and the mean absolute hidden activation of the experts with a weight."""
        hidden = self.hidden(x)
        used = (weights > 0).to(hidden.dtype)
        l1 = (hidden.abs() * used.unsqueeze(-1)).sum(dtype=torch.float32) / (used.sum(dtype=torch.float32) * hidden.shape[-1])
        weighted = (hidden * weights.to(hidden.dtype).unsqueeze(-1)).flatten(1)
        return F.linear(weighted, self.down_proj.transpose(0, 1).flatten(1)), l1


class MoE(nn.Module):
    def __init__(self, recipe: ModelRecipe) -> None:
        super().__init__()
        self.gate = Router(recipe)
        self.experts = Experts(recipe)
        self.shared_experts = MLP(recipe.hidden_size, recipe.moe_intermediate_size * recipe.n_shared_experts)

    def forward(self, x: Tensor, active: Tensor, counted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, load = self.gate(x, active, counted)
        routed, l1 = self.experts(x, weights)
        return routed + self.shared_experts(x), load, l1
