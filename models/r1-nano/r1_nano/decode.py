"""Greedy decoding of many prompts at once in PyTorch, for the evaluation at the end of training. Not a server."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .experts import MLP
from .model import Layer, Nano

_COMPACT_EVERY = 32  # steps between looks at which rows have ended


@torch.inference_mode()
def greedy(model: Nano, prompts: Sequence[Sequence[int]], *, most_tokens: int, batch: int = 1024) -> list[list[int]]:
    """For each prompt the tokens that follow, without the end token; at most so many."""
    device = model.lm_head.weight.device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for first in range(0, len(order), batch):
            chunk = order[first : first + batch]
            for i, tokens in zip(chunk, _Batch(model, [prompts[i] for i in chunk], most_tokens).run(), strict=True):
                answers[i] = tokens
    return answers


class _Batch:
    """Prompts padded on the left, so that all rows write the same column next."""

    def __init__(self, model: Nano, prompts: Sequence[Sequence[int]], most_tokens: int) -> None:
        self.model = model
        self.device = model.lm_head.weight.device
        self.most_tokens = most_tokens
        self.width = max(map(len, prompts))
        pad = model.recipe.pad_token_id
        self.tokens = torch.tensor([[pad] * (self.width - len(p)) + list(p) for p in prompts], device=self.device)
        self.padding = torch.tensor([self.width - len(p) for p in prompts], device=self.device)
        r, total = model.recipe, self.width + most_tokens
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        shape = (len(prompts), r.num_attention_heads, total)
        self.keys = [torch.zeros(*shape, r.qk_head_dim, device=self.device, dtype=dtype) for _ in range(r.num_hidden_layers)]
        self.values = [torch.zeros(*shape, r.v_head_dim, device=self.device, dtype=dtype) for _ in range(r.num_hidden_layers)]
        self.active = torch.tensor(r.num_experts_per_tok, device=self.device)

    def run(self) -> list[list[int]]:
        rows = list(range(len(self.tokens)))
        written: list[list[int]] = [[] for _ in rows]
        fresh: list[Tensor] = []
        next_token = self._forward(self.tokens, 0)
        for step in range(self.most_tokens):
            fresh.append(next_token)
            if (step + 1) % _COMPACT_EVERY == 0 or step + 1 == self.most_tokens:
                for row, tokens in zip(rows, torch.stack(fresh, 1).tolist(), strict=True):
                    written[row].extend(tokens)
                fresh = []
                kept = [i for i, row in enumerate(rows) if self.model.recipe.eos_token_id not in written[row]]
                if not kept:
                    break
                if len(kept) < len(rows):
                    rows = [rows[i] for i in kept]
                    next_token = self._keep(torch.tensor(kept, device=self.device), next_token)
            if step + 1 < self.most_tokens:
                next_token = self._forward(next_token.unsqueeze(1), self.width + step)
        end = self.model.recipe.eos_token_id
        return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in written]

    def _keep(self, kept: Tensor, next_token: Tensor) -> Tensor:
        self.padding = self.padding[kept]
        self.keys = [k[kept] for k in self.keys]
        self.values = [v[kept] for v in self.values]
        return next_token[kept]

    def _forward(self, tokens: Tensor, start: int) -> Tensor:
        """tokens [rows, new] in columns from `start` on -> the next token of each row."""
        count, new = tokens.shape
        query = torch.arange(start, start + new, device=self.device)
        column = torch.arange(start + new, device=self.device)
        positions = (query - self.padding.unsqueeze(1)).clamp(min=0)
        sees = (column <= query.unsqueeze(1)) & (column >= self.padding.view(-1, 1, 1))
        sees |= column == query.unsqueeze(1)  # padding sees itself, so that no row of the softmax is empty
        x = self.model.embed_tokens(tokens.flatten())
        counted = torch.ones(len(x), device=self.device)
        for index in range(self.model.recipe.num_hidden_layers):
            layer = self.model.layers[index]
            assert isinstance(layer, Layer), "the model's layers are layers"
            x = x + self._attend(index, layer, layer.input_layernorm(x), positions, sees.unsqueeze(1), start)
            y = layer.post_attention_layernorm(x)
            x = x + (layer.mlp(y) if isinstance(layer.mlp, MLP) else layer.mlp(y, self.active, counted)[0])
        last: Tensor = self.model.lm_head(self.model.norm(x.view(count, new, -1)[:, -1]))
        return last.argmax(-1)

    def _attend(self, index: int, layer: Layer, x: Tensor, positions: Tensor, sees: Tensor, start: int) -> Tensor:
        shape, end = positions.shape, start + positions.shape[1]
        q, k, v = (t.unflatten(0, shape).transpose(1, 2) for t in layer.self_attn.project(x, positions.flatten()))
        keys, values = self.keys[index], self.values[index]
        keys[:, :, start:end], values[:, :, start:end] = k, v
        scale = self.model.recipe.qk_head_dim**-0.5
        seen = F.scaled_dot_product_attention(
            q.to(keys.dtype), keys[:, :, :end], values[:, :, :end], attn_mask=sees, scale=scale
        )
        y: Tensor = layer.self_attn.o_proj(seen.transpose(1, 2).reshape(shape.numel(), -1))
        return y
