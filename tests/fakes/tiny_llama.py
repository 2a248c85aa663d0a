"""A random Llama of a few thousand weights: its checkpoint, and a runner that computes it token by token in float64.

Written on its own, from the published definition (rotation as complex numbers, one token at a time): what it computes
can stand for an engine's answer. Knows no ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from triune_runtime.runner import Immediate, Work


@dataclass(frozen=True)
class FakeTensor:
    """A weight in memory with a checkpoint tensor's surface; counts how often it is read."""

    array: NDArray[np.float32]
    reads: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> str:
        return "float32"

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    @property
    def beside(self) -> tuple[()]:
        return ()

    def float32(self) -> NDArray[np.float32]:
        self.reads.append(1)
        return self.array.copy()

    def blocks(self) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class FakeCheckpoint:
    """What `open_checkpoint` would return."""

    name: str = "tiny"
    config: dict[str, Any]
    weights: Mapping[str, FakeTensor]
    tokenizer_json: str
    chat_template: str | None = None
    tool_template: str | None = None
    special_tokens: dict[str, str] = field(default_factory=dict)
    stop_token_ids: tuple[int, ...] = (0,)
    bos_token_id: int | None = None
    generation_config: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def tiny_config(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": 256,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
    }
    return config | changes


def tiny_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, FakeTensor]:
    """Random weights, large enough that attention and rotation matter to every logit."""
    random = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {layer + f"{n}.weight": (hidden,) for n in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {layer + "self_attn.q_proj.weight": (q, hidden), layer + "self_attn.o_proj.weight": (hidden, q)}
        shapes |= {layer + f"self_attn.{n}_proj.weight": (kv, hidden) for n in "kv"}
        shapes |= {layer + f"mlp.{n}_proj.weight": (inner, hidden) for n in ("gate", "up")}
        shapes |= {layer + "mlp.down_proj.weight": (hidden, inner)}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return {
        name: FakeTensor((random.normal(size=s) * 2.0 / s[-1] ** 0.5 + (1.0 if len(s) == 1 else 0.0)).astype(np.float32))
        for name, s in shapes.items()
    }


def byte_tokenizer() -> str:
    """tokenizer.json whose 256 tokens are the bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return str(tokenizer.to_str())


def tiny_checkpoint(*, seed: int = 0, files: tuple[Path, ...] = (), **changes: Any) -> FakeCheckpoint:
    config = tiny_config(**changes)
    return FakeCheckpoint(config=config, weights=tiny_weights(config, seed), tokenizer_json=byte_tokenizer(), files=files)


class TinyRunner(Immediate):
    """A runner that computes one token of one sequence at a time; `faults` bend its numbers for tests.

    Faults: "noise" (adds random logits), "mates" (numbers depend on the batch), "chunks" (on where prompts are cut),
    "dirty" (on what else has run since), "nan".
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, FakeTensor], faults: Mapping[str, float] = {}):
        self.config, self.faults = config, faults
        self.w = {name: t.array.astype(np.float64) for name, t in weights.items()}
        self.cache: dict[int, list[list[tuple[Any, Any]]]] = {}  # slot -> token -> layer -> (key, value)
        self.calls = 0

    @property
    def vocab_size(self) -> int:
        return int(self.config["vocab_size"])

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        rows = []
        for item in work:
            self.calls += 1
            tokens = self.cache.setdefault(item.slot, [])
            assert len(tokens) >= item.start, f"slot {item.slot} holds {len(tokens)} tokens, work starts at {item.start}"
            del tokens[item.start :]
            for token in item.tokens:
                row = self.step(tokens, token)
            row = row + self.faults.get("mates", 0) * len(work) * np.arange(len(row))
            row = row + self.faults.get("chunks", 0) * len(item.tokens) * np.arange(len(row))
            row = row + self.faults.get("dirty", 0) * self.calls * np.arange(len(row))
            row = row + self.faults.get("noise", 0) * np.random.default_rng(len(tokens)).normal(size=len(row))
            rows.append(row * np.nan if "nan" in self.faults else row)
        return np.stack(rows).astype(np.float32)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        self.cache[target] = self.cache[source][:length]

    def step(self, past: list[list[tuple[Any, Any]]], token: int) -> NDArray[np.float64]:
        """Logits after `token`; appends its keys and values to `past`."""
        c, w = self.config, self.w
        heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        x = w["model.embed_tokens.weight"][token]
        position, grown = len(past), []
        past.append(grown)
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            h = self.norm(x, p + "input_layernorm")
            q, k, v = (w[f"{p}self_attn.{n}_proj.weight"] @ h for n in "qkv")
            dim = len(q) // heads
            grown.append((self.turn(k.reshape(kv_heads, dim), position), v.reshape(kv_heads, dim)))
            out = []
            for head, query in enumerate(self.turn(q.reshape(heads, dim), position)):
                shared = head * kv_heads // heads
                weights = np.exp([query @ layers[i][0][shared] / dim**0.5 for layers in past])
                out.append(sum(a * layers[i][1][shared] for a, layers in zip(weights / weights.sum(), past, strict=True)))
            x = x + w[p + "self_attn.o_proj.weight"] @ np.concatenate(out)
            h = self.norm(x, p + "post_attention_layernorm")
            gate = w[p + "mlp.gate_proj.weight"] @ h
            x = x + w[p + "mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * (w[p + "mlp.up_proj.weight"] @ h))
        head = "model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"
        return w[head] @ self.norm(x, "model.norm")

    def norm(self, x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x / np.sqrt((x**2).mean() + self.config["rms_norm_eps"]) * self.w[name + ".weight"]

    def turn(self, x: NDArray[np.float64], position: int) -> NDArray[np.float64]:
        half = x.shape[-1] // 2
        turns = np.exp(1j * position * self.config["rope_theta"] ** -(np.arange(half) / half))
        y = (x[..., :half] + 1j * x[..., half:]) * turns
        return np.concatenate([y.real, y.imag], -1)
