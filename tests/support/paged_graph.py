"""A decoder of Qwen2's shape with random weights as an engine for ONNX Runtime CUDA, and what it computes, by torch in float32.

Written on its own, from what the operators are documented to do: it stands for no builder. Needs torch and a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper

from triune_runtime.manifest import CacheTensor, EngineManifest, Limits
from triune_runtime.targets.cuda.plan import CudaPlan
from triune_runtime.targets.device.stored import StoredWeight, save_weights

CONTRIB = "com.microsoft"
ONNX_TYPE = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder; heads have 128 numbers."""

    vocab: int
    hidden: int
    layers: int
    heads: int = 12
    kv_heads: int = 2
    intermediate: int
    positions: int = 2048
    head: int = 128

    @property
    def packed(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head


TINY = Shape(vocab=1000, hidden=256, layers=2, intermediate=512)
TWO_LAYERS = Shape(vocab=151936, hidden=1536, layers=2, intermediate=8960)  # of DeepSeek-R1-Distill-Qwen-1.5B


def make_weights(shape: Shape, dtype: str, seed: int = 1234) -> dict[str, torch.Tensor]:
    """Random weights on the GPU, matrices as [inputs, outputs]."""
    chance = torch.Generator(device="cuda").manual_seed(seed)

    def normal(*sizes: int, std: float = 0.02) -> torch.Tensor:
        return (torch.randn(*sizes, generator=chance, device="cuda") * std).to(getattr(torch, dtype))

    weights = {"embed": normal(shape.vocab, shape.hidden, std=1.0), "head": normal(shape.hidden, shape.vocab)}
    weights["norm"] = 1 + normal(shape.hidden, std=0.1)
    for layer in range(shape.layers):
        weights |= {
            f"{layer}.norm1": 1 + normal(shape.hidden, std=0.1),
            f"{layer}.norm2": 1 + normal(shape.hidden, std=0.1),
            f"{layer}.qkv": normal(shape.hidden, shape.packed),
            f"{layer}.bias": normal(shape.packed, std=0.3),
            f"{layer}.o": normal(shape.heads * shape.head, shape.hidden),
            f"{layer}.gate": normal(shape.hidden, shape.intermediate),
            f"{layer}.up": normal(shape.hidden, shape.intermediate),
            f"{layer}.down": normal(shape.intermediate, shape.hidden),
        }
    frequency = 1.0 / 10000.0 ** (torch.arange(0, shape.head, 2, device="cuda") / shape.head)
    angle = torch.arange(shape.positions, device="cuda")[:, None] * frequency[None]
    return weights | {"cos": angle.cos().to(getattr(torch, dtype)), "sin": angle.sin().to(getattr(torch, dtype))}


class _Graph:
    """Nodes one after the other."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op: str, inputs: list[str], outputs: int | list[str] = 1, domain: str = "", **attributes: Any) -> str:
        made = [f"v{len(self.nodes)}.{n}" for n in range(outputs)] if isinstance(outputs, int) else outputs
        self.nodes.append(helper.make_node(op, inputs, made, domain=domain, **attributes))
        return made[0]


def make_engine(
    shape: Shape, weights: dict[str, torch.Tensor], dtype: str, folder: Path, limits: Limits, block_tokens: int = 128
) -> EngineManifest:
    """Write model.onnx, weights.bin and weights.json; the manifest of that engine."""
    graph, kind, norm = _Graph(), ONNX_TYPE[dtype], {"epsilon": 1e-6}
    info = helper.make_tensor_value_info
    inputs = [
        info("input_ids", TensorProto.INT64, ["T"]), info("cu_seqlens", TensorProto.INT32, ["B1"]),
        info("past_seqlens", TensorProto.INT32, ["B"]), info("block_table", TensorProto.INT32, ["B", "W"]),
        info("attention_metadata", TensorProto.INT32, [3]), info("logits_at", TensorProto.INT64, ["R"]),
    ]  # fmt: skip
    cache = [
        CacheTensor(name=f"{layer}.{which}", heads=shape.kv_heads, dim=shape.head, dtype=dtype)
        for layer in range(shape.layers)
        for which in ("key", "value")
    ]
    inputs += [info(f"past.{c.name}", kind, ["N", block_tokens, c.heads, c.dim]) for c in cache]
    residual = graph.add("Gather", ["embed", "input_ids"], axis=0)
    x = graph.add("SimplifiedLayerNormalization", [residual, "0.norm1"], axis=-1, stash_type=1, **norm)
    for layer in range(shape.layers):
        qkv = graph.add("Add", [graph.add("MatMul", [x, f"{layer}.qkv"]), f"{layer}.bias"])
        attended = graph.add(
            "PagedAttention",
            [qkv, "", "", f"past.{layer}.key", f"past.{layer}.value", "cu_seqlens", "past_seqlens", "block_table", "cos", "sin",
             *[""] * 6, "attention_metadata"],
            domain=CONTRIB, num_heads=shape.heads, kv_num_heads=shape.kv_heads, do_rotary=1, scale=1 / math.sqrt(shape.head),
        )  # fmt: skip
        out = graph.add("MatMul", [attended, f"{layer}.o"])
        x, residual = f"{layer}.x", f"{layer}.residual"
        graph.add(
            "SkipSimplifiedLayerNormalization",
            [out, f"{layer - 1}.last" if layer else "v0.0", f"{layer}.norm2"], [x, "", "", residual], CONTRIB, **norm,
        )  # fmt: skip
        gate, up = graph.add("MatMul", [x, f"{layer}.gate"]), graph.add("MatMul", [x, f"{layer}.up"])
        act = graph.add("Mul", [graph.add("QuickGelu", [gate], domain=CONTRIB, alpha=1.0), up])
        down = graph.add("MatMul", [act, f"{layer}.down"])
        following = f"{layer + 1}.norm1" if layer + 1 < shape.layers else "norm"
        x = f"{layer}.next"
        graph.add(
            "SkipSimplifiedLayerNormalization", [down, residual, following], [x, "", "", f"{layer}.last"], CONTRIB, **norm
        )
    logits = graph.add("MatMul", [graph.add("Gather", [x, "logits_at"], axis=0), "head"])
    graph.add("Cast", [logits], ["logits"], to=TensorProto.FLOAT)
    stored, initializers, offset = list[StoredWeight](), list[onnx.TensorProto](), 0
    with (folder / "weights.bin").open("wb") as file:
        for name, tensor in weights.items():
            length = tensor.numel() * tensor.element_size()
            file.seek(offset)
            file.write(tensor.contiguous().view(torch.uint8).cpu().numpy().data)
            stored.append(
                StoredWeight(
                    name=name, dtype=dtype, shape=tuple(tensor.shape), file="weights.bin", offset=offset, length=length
                )
            )
            proto = onnx.TensorProto(name=name, data_type=kind, dims=tensor.shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", "weights.bin"), ("offset", str(offset)), ("length", str(length))):
                entry = proto.external_data.add()
                entry.key, entry.value = key, value
            initializers.append(proto)
            offset += -(-length // 4096) * 4096
        file.truncate(offset)
    made = helper.make_graph(
        graph.nodes, "decoder", inputs, [info("logits", TensorProto.FLOAT, ["R", shape.vocab])], initializers
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    (folder / "model.onnx").write_bytes(helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString())
    save_weights(stored, folder)
    return EngineManifest(
        model="random", architecture="qwen2", target="cuda", precision=dtype, engine="model.onnx", vocab_size=shape.vocab,
        cache=tuple(cache), stop_token_ids=(0,), limits=limits, plan=CudaPlan(dtype=dtype, block_tokens=block_tokens).to_json(),
    )  # fmt: skip


def reference(shape: Shape, weights: dict[str, torch.Tensor], tokens: list[int]) -> torch.Tensor:
    """Logits [tokens, vocab] in float32, of one sequence."""
    count, head = len(tokens), shape.head

    def w(name: str) -> torch.Tensor:
        return weights[name].float()

    def norm(x: torch.Tensor, scale: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w(scale)

    cos, sin = w("cos")[:count, None], w("sin")[:count, None]

    def rotated(x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    x = w("embed")[torch.tensor(tokens, device="cuda")]
    for layer in range(shape.layers):
        qkv = norm(x, f"{layer}.norm1") @ w(f"{layer}.qkv") + w(f"{layer}.bias")
        sizes = [shape.heads * head, shape.kv_heads * head, shape.kv_heads * head]
        q, k, v = (part.view(count, -1, head) for part in qkv.split(sizes, -1))
        each = shape.heads // shape.kv_heads
        q, k, v = (t.transpose(0, 1) for t in (rotated(q), rotated(k).repeat_interleave(each, 1), v.repeat_interleave(each, 1)))
        mixed = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        x = x + mixed.transpose(0, 1).reshape(count, -1) @ w(f"{layer}.o")
        h = norm(x, f"{layer}.norm2")
        x = x + (torch.nn.functional.silu(h @ w(f"{layer}.gate")) * (h @ w(f"{layer}.up"))) @ w(f"{layer}.down")
    return norm(x, "norm") @ w("head")
