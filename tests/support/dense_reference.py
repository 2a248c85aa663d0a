"""A dense decoder in PyTorch, float32 throughout, by its published definition: from config.json and the checkpoint's weights.

Shares nothing with the builder. Of an engine with four or eight bits it reads the codes, by the definition of MatMulNBits.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_STACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
_BLOCK = 32  # numbers of a row that have one scale
_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def read_checkpoint(folder: Path, device: str) -> dict[str, Tensor]:
    """All weights of model.safetensors, in float32."""
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
    raw = np.memmap(path, np.uint8, "r", 8 + size)
    found = {}
    for name, told in header.items():
        if name != "__metadata__":
            begin, end = told["data_offsets"]
            numbers = torch.from_numpy(np.array(raw[begin:end])).view(_TYPES[told["dtype"]])
            found[name] = numbers.to(device).float().reshape(told["shape"])
    return found


def with_codes(weights: Mapping[str, Tensor], engine: Path) -> dict[str, Tensor]:
    """The weights of an engine in blocks of few bits; of those that it keeps as they are, the checkpoint's.

    Raises:
        AssertionError: codes are further from the checkpoint's weight than rounding explains.
    """
    listed = json.loads((engine / "weights.json").read_text("utf-8"))
    stored = {name: (shape, file, offset, length) for name, _, shape, file, offset, length in listed}
    found = dict(weights)
    for name in [name for name in stored if name.endswith(".packed")]:
        base = name.removesuffix(".packed")
        (rows, blocks, size), codes = _stored(engine, stored[name], np.uint8)
        bits = size * 8 // _BLOCK
        codes = np.stack([codes & 15, codes >> 4], -1).reshape(rows, blocks, _BLOCK) if bits == 4 else codes
        _, scales = _stored(engine, stored[f"{base}.scale"], np.float16)
        device = next(iter(weights.values())).device
        steps = torch.from_numpy(scales).to(device).float().reshape(rows, blocks, 1)
        whole = ((torch.from_numpy(codes).to(device).float() - 2 ** (bits - 1)) * steps).reshape(rows, -1)
        part = base.removesuffix(".weight").rpartition(".")[2]
        names = [base.replace(part, one) for one in _STACKED.get(part, (part,))]
        plain = [weights.get(one, weights["model.embed_tokens.weight"]) for one in names]  # a tied head
        for one, own, given in zip(names, whole.split([len(rows) for rows in plain]), plain, strict=True):
            error = float((own - given).norm() / given.norm())
            assert error < 0.2, f"{one}: the codes are {error:.2f} from the checkpoint's weight"
            found[one] = own
    return found


def _stored(engine: Path, place: Sequence[Any], dtype: type[np.generic]) -> tuple[Any, Any]:
    shape, file, offset, length = place
    with (engine / file).open("rb") as opened:
        opened.seek(offset)
        return shape, np.frombuffer(bytearray(opened.read(length)), dtype).reshape(shape)


class DenseReference:
    """llama, qwen2 and qwen3 without windows or scaled rotations."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        self._weights, self._epsilon, self._theta = weights, float(config["rms_norm_eps"]), float(config["rope_theta"])
        self._layers, self._heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        self._kv_heads = int(config["num_key_value_heads"])
        self._head = int(config.get("head_dim") or config["hidden_size"] // self._heads)

    def hidden(self, tokens: Sequence[int]) -> Tensor:
        """What the head reads after each of `tokens`, [tokens, hidden]."""
        w, count, head = self._weights, len(tokens), self._head
        device = w["model.norm.weight"].device
        powers = torch.arange(0, head, 2, device=device, dtype=torch.float64) / head
        angles = torch.arange(count, device=device)[:, None] * self._theta**-powers
        cosines, sines = angles.cos().float(), angles.sin().float()

        def rotated(x: Tensor) -> Tensor:
            low, high = x.chunk(2, -1)
            return torch.cat([low * cosines - high * sines, high * cosines + low * sines], -1)

        x = w["model.embed_tokens.weight"][torch.tensor(tokens, device=device)]
        for layer in range(self._layers):
            at = f"model.layers.{layer}."
            h = self._norm(x, at + "input_layernorm.weight")
            q, k, v = (self._heads_of(h, f"{at}self_attn.{part}") for part in "qkv")
            each = self._heads // self._kv_heads
            k, v = rotated(k).repeat_interleave(each, 0), v.repeat_interleave(each, 0)
            scores = rotated(q) @ k.transpose(1, 2) / math.sqrt(head)
            later = torch.ones(count, count, dtype=torch.bool, device=device).triu(1)
            mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
            x = x + mixed.transpose(0, 1).reshape(count, -1) @ w[at + "self_attn.o_proj.weight"].T
            h = self._norm(x, at + "post_attention_layernorm.weight")
            gate, up = (h @ w[f"{at}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
            x = x + (torch.nn.functional.silu(gate) * up) @ w[at + "mlp.down_proj.weight"].T
        return self._norm(x, "model.norm.weight")

    def logits(self, hidden: Tensor) -> Tensor:
        """Of rows of `hidden`."""
        return hidden @ self._weights.get("lm_head.weight", self._weights["model.embed_tokens.weight"]).T

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._epsilon) * self._weights[name]

    def _heads_of(self, x: Tensor, part: str) -> Tensor:
        """Queries, keys or values [heads, tokens, head]."""
        y = x @ self._weights[f"{part}_proj.weight"].T
        if (bias := self._weights.get(f"{part}_proj.bias")) is not None:
            y = y + bias
        y = y.reshape(len(x), -1, self._head)
        if f"{part}_norm.weight" in self._weights:
            y = self._norm(y, f"{part}_norm.weight")
        return y.transpose(0, 1)
