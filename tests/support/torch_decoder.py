"""A dense decoder in PyTorch on the GPU: random weights and caches, a step's inputs, and its logits in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from triune_runtime.targets.cuda.fused.decoder import StepAddresses
from triune_runtime.targets.cuda.fused.shape import DecoderShape, DecoderWeights, LayerWeights


class Weights:
    """Random weights in the model's dtype or in blocks as `DecoderShape` has them, and caches."""

    def __init__(self, shape: DecoderShape, blocks: int) -> None:
        self.shape = shape
        self.type = getattr(torch, shape.dtype)
        self.cache_type = torch.float8_e4m3fn if shape.fp8_cache else self.type
        generator = torch.Generator(device="cuda").manual_seed(1)

        def draw(*size: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
            found = torch.empty(size, device="cuda", dtype=self.type)
            return found.normal_(mean, scale, generator=generator)

        s, query, kv = shape, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.embedding, self.norm = draw(s.vocabulary, s.hidden), draw(s.hidden, scale=0.1, mean=1)

        def matrix(name: str, rows: int, columns: int, bits: int, scale: float) -> dict[str, Tensor]:
            if bits == 16:
                return {name: draw(rows, columns, scale=scale)}
            size, step = (rows, columns * bits // 8), scale / (0.29 * 2**bits)  # codes are uniform
            packed = torch.randint(0, 256, size, device="cuda", dtype=torch.uint8, generator=generator)
            scales = draw(rows, columns // 32, scale=0.2 * step, mean=step)
            # Of either sign, as in GGUF's Q4_0. Codes lie half a step below zero in the mean: with scales of one sign all
            # weights have a part in common, which grows from layer to layer to most of the residual stream, and where it
            # nearly cancels out, roundings count several times as much as in a model.
            signs = torch.randint(0, 2, scales.shape, device="cuda", generator=generator) * 2 - 1
            return {name: packed, f"{name}_scale": scales * signs.to(scales.dtype)}

        self.head = matrix("head", s.vocabulary, s.hidden, s.head_bits, 0.02)
        frequencies = 1e4 ** (-torch.arange(0, s.head_dim, 2, device="cuda") / s.head_dim)
        angles = torch.arange(8192, device="cuda")[:, None] * frequencies
        self.cosines, self.sines = angles.cos().to(self.type), angles.sin().to(self.type)
        self.layers: list[dict[str, Tensor]] = []
        for _ in range(s.layers):
            layer = {name: draw(s.hidden, scale=0.1, mean=1) for name in ("attention_norm", "mlp_norm")}
            for name, rows, columns in (
                ("qkv", query + 2 * kv, s.hidden), ("out", s.hidden, query),
                ("gate_up", 2 * s.intermediate, s.hidden), ("down", s.hidden, s.intermediate),
            ):  # fmt: skip
                layer |= matrix(name, rows, columns, s.weight_bits, columns**-0.5)
            for name in ("keys", "values"):
                layer[name] = draw(blocks, s.block_tokens, s.kv_heads, s.head_dim).to(self.cache_type)
            if s.qkv_bias:
                layer["bias"] = draw(query + 2 * kv, scale=0.3)
            if s.qk_norm:
                layer |= {name: draw(s.head_dim, scale=0.1, mean=1) for name in ("query_norm", "key_norm")}
            self.layers.append(layer)

    @property
    def addresses(self) -> DecoderWeights:
        """Queries, keys and values are parts of one matrix, and so are gate and up."""
        s, query, kv = self.shape, self.shape.heads * self.shape.head_dim, self.shape.kv_heads * self.shape.head_dim
        layers = []
        for w in self.layers:
            at = {name: tensor.data_ptr() for name, tensor in w.items()}
            plain = ("attention_norm", "out", "mlp_norm", "down", "keys", "values", "query_norm", "key_norm")
            names = {name: at[name] for name in plain if name in at}
            starts = {"query": 0, "key": query, "value": query + kv}
            names |= {name: at["qkv"] + row * s.hidden * s.weight_bits // 8 for name, row in starts.items()}
            if s.qkv_bias:
                names |= {f"{name}_bias": at["bias"] + 2 * row for name, row in starts.items()}
            if s.weight_bits < 16:
                names |= {f"{name}_scale": at["qkv_scale"] + row * s.hidden // 16 for name, row in starts.items()}
                names |= {f"{name}_scale": at[f"{name}_scale"] for name in ("out", "down")}
                names["gate_scale"] = at["gate_up_scale"]
                names["up_scale"] = at["gate_up_scale"] + s.intermediate * s.hidden // 16
            gate = at["gate_up"]
            layers.append(LayerWeights(**names, gate=gate, up=gate + s.intermediate * s.hidden * s.weight_bits // 8))
        return DecoderWeights(
            layers=tuple(layers), embedding=self.embedding.data_ptr(), norm=self.norm.data_ptr(),
            head=self.head["head"].data_ptr(), cosines=self.cosines.data_ptr(), sines=self.sines.data_ptr(),
            head_scale=self.head["head_scale"].data_ptr() if "head_scale" in self.head else 0,
        )  # fmt: skip


def values(matrices: dict[str, Tensor], name: str) -> Tensor:
    """What a matrix stands for, in float32."""
    matrix = matrices[name]
    if f"{name}_scale" not in matrices:
        return matrix.float()
    scale = matrices[f"{name}_scale"].float()[..., None]
    if matrix.shape[1] == 32 * scale.shape[1]:
        codes = matrix.float() - 128
    else:
        codes = torch.stack([matrix & 15, matrix >> 4], -1).float() - 8
    return (codes.reshape(*scale.shape[:2], 32) * scale).reshape(len(matrix), -1)


class Inputs:
    """Of `len(lengths)` sequences that have so many tokens each; blocks in any order."""

    def __init__(self, shape: DecoderShape, lengths: list[int]) -> None:
        self.lengths, batch = lengths, len(lengths)
        most = max(lengths) // shape.block_tokens + 1
        self.blocks = batch * most
        self.table = torch.randperm(self.blocks, device="cuda", dtype=torch.int32).reshape(batch, most)
        self.past = torch.tensor(lengths, device="cuda", dtype=torch.int32)
        self.ids = torch.randint(0, shape.vocabulary, (batch,), device="cuda")
        self.logits = torch.zeros(batch, shape.vocabulary, device="cuda")

    @property
    def addresses(self) -> StepAddresses:
        return StepAddresses(
            input_ids=self.ids.data_ptr(), past_seqlens=self.past.data_ptr(), block_table=self.table.data_ptr(),
            most_blocks=self.table.shape[1], logits=self.logits.data_ptr(),
        )  # fmt: skip


def expected(weights: Weights, inputs: Inputs) -> Tensor:
    """Logits in float32 throughout; takes the new rows of the caches from its own numbers."""
    s, rows = weights.shape, []
    for n, past in enumerate(inputs.lengths):
        cosine, sine = weights.cosines[past].float(), weights.sines[past].float()

        def norm(x: Tensor, gain: Tensor) -> Tensor:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + s.epsilon) * gain.float()

        def rotate(x: Tensor, cosine: Tensor = cosine, sine: Tensor = sine) -> Tensor:
            low, high = x.chunk(2, -1)
            return torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1)

        x = weights.embedding[inputs.ids[n]].float()
        for w in weights.layers:
            qkv = values(w, "qkv") @ norm(x, w["attention_norm"])
            if s.qkv_bias:
                qkv = qkv + w["bias"].float()
            q, k, v = qkv.reshape(-1, s.head_dim).split([s.heads, s.kv_heads, s.kv_heads])
            if s.qk_norm:
                q, k = norm(q, w["query_norm"]), norm(k, w["key_norm"])
            kept = [w[c][inputs.table[n].long()].reshape(-1, s.kv_heads, s.head_dim)[:past].float() for c in ("keys", "values")]
            k = rotate(k)
            if s.fp8_cache:
                k, v = (x.to(weights.cache_type).float() for x in (k, v))
            k, v = torch.cat([kept[0], k[None]]), torch.cat([kept[1], v[None]])
            k, v = (t.repeat_interleave(s.heads // s.kv_heads, 1).transpose(0, 1) for t in (k, v))
            p = (k @ rotate(q)[..., None] / math.sqrt(s.head_dim)).softmax(1)
            x = x + values(w, "out") @ (p * v).sum(1).reshape(-1)
            gate, up = (values(w, "gate_up") @ norm(x, w["mlp_norm"])).chunk(2)
            x = x + values(w, "down") @ (torch.nn.functional.silu(gate) * up)
        rows.append(values(weights.head, "head") @ norm(x, weights.norm))
    return torch.stack(rows)
