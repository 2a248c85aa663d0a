"""DeepSeek-V3 in PyTorch, in the form that trains fast: the published mathematics and names, experts as one dense product.

Names differ from the published ones in one place only: a layer's routed experts are three stacked parameters
(`mlp.experts.gate_proj` [experts, inner, hidden], ...), which `export` splits. The last layer is the MTP layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .recipe import ModelRecipe

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # older PyTorch: rows are masked instead
    varlen_attn = None


class Layout(NamedTuple):
    """Which positions see each other: the earlier ones of the same example. `positions` [rows, length] restart with each.

    With `ends` ([examples + 1] int32, in the flattened rows) examples are told apart by them, otherwise by a mask.
    """

    positions: Tensor
    ends: Tensor | None = None


def example_mask(layout: Layout) -> Tensor | None:
    """[rows, 1, length, length], True where a query (third axis) sees a key (fourth); None where `ends` say it."""
    if layout.ends is not None:
        return None
    index = torch.arange(layout.positions.shape[1], device=layout.positions.device)
    start = index - layout.positions
    same = start.unsqueeze(2) == start.unsqueeze(1)
    return (same & (index.unsqueeze(1) >= index)).unsqueeze(1)


class Routing(NamedTuple):
    """A router's choice: weights [tokens, experts], 0 where not chosen, and the tokens each expert was given [experts]."""

    weights: Tensor
    load: Tensor


class Output(NamedTuple):
    loss: Tensor  # of the next token
    mtp_loss: Tensor  # of the one after, by the MTP layer
    l1: Tensor  # mean absolute hidden activation of the chosen routed experts
    loads: Tensor  # [layers with experts, experts]
    mtp_right: Tensor  # share of the learned tokens that the MTP layer's first choice gets right


class RMSNorm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon))).to(x.dtype)


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


class Attention(nn.Module):
    """Multi-head latent attention, with keys and values written out (the form that trains fastest)."""

    def __init__(self, recipe: ModelRecipe) -> None:
        super().__init__()
        self.recipe = r = recipe
        self.q_a_proj = nn.Linear(r.hidden_size, r.q_lora_rank, bias=False)
        self.q_a_layernorm = RMSNorm(r.q_lora_rank, r.rms_norm_eps)
        self.q_b_proj = nn.Linear(r.q_lora_rank, r.num_attention_heads * r.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(r.hidden_size, r.kv_lora_rank + r.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(r.kv_lora_rank, r.rms_norm_eps)
        self.kv_b_proj = nn.Linear(r.kv_lora_rank, r.num_attention_heads * (r.qk_nope_head_dim + r.v_head_dim), bias=False)
        self.o_proj = nn.Linear(r.num_attention_heads * r.v_head_dim, r.hidden_size, bias=False)

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [tokens, hidden] -> queries, keys [tokens, heads, 48] and values [tokens, heads, 32]."""
        r, heads = self.recipe, self.recipe.num_attention_heads
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).unflatten(-1, (heads, r.qk_head_dim))
        q_nope, q_rope = q.split((r.qk_nope_head_dim, r.qk_rope_head_dim), dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split((r.kv_lora_rank, r.qk_rope_head_dim), dim=-1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).unflatten(-1, (heads, r.qk_nope_head_dim + r.v_head_dim))
        k_nope, v = kv.split((r.qk_nope_head_dim, r.v_head_dim), dim=-1)
        turn = _turns(positions, r)
        k_rope = _rotated(k_rope.unsqueeze(1), turn).expand(-1, heads, -1)
        return torch.cat((q_nope, _rotated(q_rope, turn)), -1), torch.cat((k_nope, k_rope), -1), v

    def forward(self, x: Tensor, layout: Layout, mask: Tensor | None) -> Tensor:
        r = self.recipe
        q, k, v = self.project(x, layout.positions.flatten())
        scale = r.qk_head_dim**-0.5
        if layout.ends is not None:
            longest = layout.positions.shape[1]
            padded = F.pad(v, (0, r.qk_head_dim - r.v_head_dim))  # the kernel wants values as wide as keys
            seen = varlen_attn(
                q, k, padded, layout.ends, layout.ends, longest, longest, scale=scale, window_size=(-1, 0)
            )[..., : r.v_head_dim]  # fmt: skip
        else:
            shape = layout.positions.shape
            q, k, v = (t.unflatten(0, shape).transpose(1, 2) for t in (q, k, v))
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2).flatten(0, 1)
        y: Tensor = self.o_proj(seen.flatten(1))
        return y


def _turns(positions: Tensor, recipe: ModelRecipe) -> tuple[Tensor, Tensor]:
    """Cosines and sines [tokens, 1, rope / 2] of the rotary angles."""
    exponents = torch.arange(0, recipe.qk_rope_head_dim, 2, device=positions.device).float() / recipe.qk_rope_head_dim
    angles = positions.float().unsqueeze(1) * recipe.rope_theta**-exponents
    return angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)


def _rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Interleaved pairs turned by the angles; even members first in the result, as DeepSeek does (scores do not care)."""
    cos, sin = turn
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.cat((even * cos - odd * sin, odd * cos + even * sin), -1).to(x.dtype)


class Layer(nn.Module):
    """A decoder layer; the MTP layer also has the parts that join a hidden state with the next token."""

    def __init__(self, recipe: ModelRecipe, *, is_dense: bool, is_mtp: bool = False) -> None:
        super().__init__()
        hidden, epsilon = recipe.hidden_size, recipe.rms_norm_eps
        self.input_layernorm = RMSNorm(hidden, epsilon)
        self.self_attn = Attention(recipe)
        self.post_attention_layernorm = RMSNorm(hidden, epsilon)
        self.mlp: MLP | MoE = MLP(hidden, recipe.intermediate_size) if is_dense else MoE(recipe)
        if is_mtp:
            self.enorm = RMSNorm(hidden, epsilon)
            self.hnorm = RMSNorm(hidden, epsilon)
            self.eh_proj = nn.Linear(2 * hidden, hidden, bias=False)
            self.shared_head = nn.ModuleDict({"norm": RMSNorm(hidden, epsilon)})

    def join(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        """The MTP layer's input: the next token's embedding and the main model's normed hidden state."""
        y: Tensor = self.eh_proj(torch.cat((self.enorm(embedded), self.hnorm(hidden)), -1))
        return y

    def forward(
        self, x: Tensor, layout: Layout, mask: Tensor | None, active: Tensor, counted: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x = x + self.self_attn(self.input_layernorm(x), layout, mask)
        y = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MLP):
            return x + self.mlp(y), None, None
        y, load, l1 = self.mlp(y, active, counted)
        return x + y, load, l1


class Nano(nn.Module):
    """The whole model; parameters are named as in a DeepSeek-V3 checkpoint (without the leading `model.`)."""

    def __init__(self, recipe: ModelRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.learns_l1 = False  # whether `forward`'s l1 carries a gradient
        count = recipe.num_hidden_layers
        self.embed_tokens = nn.Embedding(recipe.vocab_size, recipe.hidden_size)
        self.layers = nn.ModuleList(
            Layer(recipe, is_dense=i < recipe.first_k_dense_replace, is_mtp=i == count) for i in range(count + 1)
        )
        self.norm = RMSNorm(recipe.hidden_size, recipe.rms_norm_eps)
        self.lm_head = nn.Linear(recipe.hidden_size, recipe.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                is_last = name.endswith(("o_proj.weight", "down_proj.weight", "down_proj"))
                scale = recipe.initializer_range / (2 * count) ** 0.5 if is_last else recipe.initializer_range
                nn.init.normal_(parameter, std=scale)

    def hidden(
        self, tokens: Tensor, layout: Layout, mask: Tensor | None, active: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The normed hidden states [tokens, hidden] before the head, each MoE layer's load and mean activation."""
        x = self.embed_tokens(tokens.flatten())
        counted = (tokens.flatten() != self.recipe.pad_token_id).float()
        loads, l1s = [], []
        for layer in self.layers[: self.recipe.num_hidden_layers]:
            x, load, l1 = layer(x, layout, mask, active, counted)
            if load is not None:
                loads.append(load)
                l1s.append(l1)
        return self.norm(x), loads, l1s

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits [rows, length, vocab] of whole rows, for comparison with others."""
        layout = Layout(torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape))
        active = torch.tensor(self.recipe.num_experts_per_tok, device=tokens.device)
        hidden, _, _ = self.hidden(tokens, layout, example_mask(layout), active)
        return self.lm_head(hidden).unflatten(0, tokens.shape)  # type: ignore[no-any-return]  # a module's call is untyped

    def forward(self, tokens: Tensor, targets: Tensor, later_targets: Tensor, layout: Layout, active: Tensor) -> Output:
        """The losses of a block: all [rows, length]; targets are -1 where nothing is learned."""
        mask = example_mask(layout)
        hidden, loads, l1s = self.hidden(tokens, layout, mask, active)
        logits = self.lm_head(hidden).float()
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=-1)
        following = tokens.flatten().roll(-1)
        counted = (tokens.flatten() != self.recipe.pad_token_id).float()
        mtp = self.layers[self.recipe.num_hidden_layers]
        x, load, l1 = mtp(mtp.join(self.embed_tokens(following), hidden), layout, mask, active, counted)
        later_logits = self.lm_head(mtp.shared_head["norm"](x)).float()
        mtp_loss = F.cross_entropy(later_logits, later_targets.flatten(), ignore_index=-1)
        with torch.no_grad():
            asked = later_targets.flatten() >= 0
            right = (later_logits.argmax(-1) == later_targets.flatten()) & asked
            mtp_right = right.sum() / asked.sum().clamp(min=1)
        mean_l1 = torch.stack([*l1s, l1]).mean()
        return Output(loss, mtp_loss, mean_l1 if self.learns_l1 else mean_l1.detach(), torch.stack([*loads, load]), mtp_right)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
