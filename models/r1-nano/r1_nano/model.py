"""DeepSeek-V3 in PyTorch, in the form that trains fast: the published mathematics and names, experts as one dense product.

Names differ from the published ones in one place only: a layer's routed experts are three stacked parameters
(`mlp.experts.gate_proj` [experts, inner, hidden], ...), which `export` splits. The last layer is the MTP layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .experts import MLP, MoE
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
