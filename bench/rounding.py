"""python -m bench.rounding: what four-bit weights lose by rounding to nearest and by GPTQ, in perplexity, on texts of your own.

    python -m bench.rounding --rescale --text code=/usr/lib/python3.11/textwrap.py

The model is computed in float by the NumPy reference, with the weights that the codes stand for: no activation is rounded, and
head and table stay floats. With --rescale every channel that a product reads is multiplied by a random factor and what makes it
divided by the same, which changes no result: a checkpoint that came in blocks of four bits, as SmolLM2, is then of floats that
lie on no block's grid, and can be rounded like any other.

With --library the codes of llm-compressor's GPTQ are judged beside ours, on the same calibration texts, for each --damping: a
Python of its own that has llmcompressor runs `gptq_library.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.graph.export import export
from triune_builder.quantize.schemes.blocks import BLOCK, ChosenPart, quantize_blocks
from triune_builder.targets.calibration import choose_calibrated
from triune_builder.targets.cpu.precisions import find_precision
from triune_builder.verify.texts import further_texts, texts_of, token_ids

from .losses import token_losses

_WINDOW = 256  # tokens read from an empty cache
_SPREAD = 0.4  # of the factors' logarithms
Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class InMemory:
    """A weight with the surface of a checkpoint's tensor."""

    array: Numbers
    has_blocks: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def float32(self) -> Numbers:
        return self.array.copy()

    def blocks(self) -> None:
        return None


def rescaled(checkpoint: Checkpoint) -> Checkpoint:
    """The same Llama in weights that lie on no grid."""
    random, config = np.random.default_rng(0), checkpoint.config
    arrays = {name: tensor.float32() for name, tensor in checkpoint.weights.items()}
    shared = config["num_attention_heads"] // config["num_key_value_heads"]

    def scale(readers: Sequence[str], maker: str, heads: int = 0) -> None:
        rows = len(arrays[maker])
        factor = np.exp(random.uniform(-_SPREAD, _SPREAD, rows)).astype(np.float32)
        arrays[maker] /= factor.reshape(-1, *[1] * (arrays[maker].ndim - 1))
        spread = np.repeat(factor.reshape(heads, -1), shared, axis=0).reshape(-1) if heads else factor
        for reader in readers:
            arrays[reader] *= spread

    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        products = [f"{at}.self_attn.{name}_proj.weight" for name in "qkv"]
        scale(products, f"{at}.input_layernorm.weight")
        scale([f"{at}.self_attn.o_proj.weight"], products[2], config["num_key_value_heads"])
        gate, up, down = (f"{at}.mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
        scale([gate, up], f"{at}.post_attention_layernorm.weight")
        scale([down], up)
    weights: Any = {name: InMemory(array) for name, array in arrays.items()}
    return dataclasses.replace(checkpoint, weights=weights)


def losses(checkpoint: Checkpoint, weights: Mapping[str, Any], texts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean -log p of the tokens of each text."""
    windows = [(kind, ids[i : i + _WINDOW + 1]) for kind, ids in texts.items() for i in range(0, len(ids) - 1, _WINDOW)]
    found: dict[str, list[float]] = {kind: [] for kind in texts}
    for (kind, _), lost in zip(windows, token_losses(checkpoint.config, weights, [ids for _, ids in windows]), strict=True):
        found[kind] += lost
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def rounded(checkpoint: Checkpoint, *, by_gptq: bool) -> dict[str, Any]:
    """The weights that codes of four bits stand for; what GPTQ has none for is rounded to nearest."""
    bundle, rules = export(checkpoint, max_length=_WINDOW), find_precision("int4")
    with tempfile.TemporaryDirectory() as folder:
        if by_gptq:
            choose_calibrated(bundle, checkpoint, rules, Path(folder))
        parts = {n: p for s in bundle.sources.values() for n, p in zip(s.part_names, s.parts, strict=True)}
        experts = [expert for stack in bundle.stacks.values() for expert in stack.experts]
        parts |= {n: p for s in experts for n, p in zip(s.part_names, s.parts, strict=True)}
        weights: dict[str, Any] = dict(checkpoint.weights)
        for name, part in parts.items():
            if isinstance(part, ChosenPart):
                weights[name] = InMemory(part.codes().values())
            elif name.endswith("_proj.weight"):
                weights[name] = InMemory(quantize_blocks(part.float32(), 4).values())
    return weights


def by_library(checkpoint: Checkpoint, python: Path, damping: float) -> dict[str, Any]:
    """The weights that llm-compressor's codes stand for, in groups as ours are."""
    with tempfile.TemporaryDirectory() as folder:
        here, written = Path(folder), Path(folder) / "chosen.safetensors"
        save_file({n: w.float32() for n, w in checkpoint.weights.items()}, here / "model.safetensors", {"format": "pt"})
        (here / "config.json").write_text(json.dumps(dict(checkpoint.config)), "utf-8")
        (here / "tokenizer.json").write_text(checkpoint.tokenizer_json, "utf-8")
        texts = [*texts_of(checkpoint.verification).calibration, *further_texts(checkpoint.verification)]
        (here / "calibration.json").write_text(json.dumps(token_ids(checkpoint.tokenizer_json, texts)), "utf-8")
        script = Path(__file__).with_name("gptq_library.py")
        # -P: bench/profile.py has the name of a module of Python's own.
        subprocess.run([python, "-P", script, here, str(BLOCK), str(damping), written], check=True, stdout=subprocess.DEVNULL)
        return {**checkpoint.weights, **{name: InMemory(array) for name, array in load_file(written).items()}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rounding", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rescale", action="store_true", help="let the weights of a Llama lie on no grid")
    parser.add_argument("--text", action="append", required=True, metavar="KIND=FILE", help="what to read; may be repeated")
    parser.add_argument("--tokens", type=int, default=1024, help="of each text")
    parser.add_argument("--library", type=Path, metavar="PYTHON", help="one that has llmcompressor")
    parser.add_argument("--damping", type=float, action="append", help="the library's; 0.01 and 0.1 by default")
    parser.add_argument("--cache", type=Path, default=Path("build/.cache/checkpoints"))
    asked = parser.parse_args()
    checkpoint = open_checkpoint(asked.model, cache=asked.cache)
    files = dict(text.split("=", 1) for text in asked.text)
    ids = token_ids(checkpoint.tokenizer_json, [Path(file).read_text("utf-8") for file in files.values()])
    texts = {kind: found[: asked.tokens + 1] for kind, found in zip(files, ids, strict=True)}
    if asked.rescale:
        checkpoint = rescaled(checkpoint)
    plain = losses(checkpoint, checkpoint.weights, texts)
    found: dict[str, Any] = {"perplexity": {kind: round(float(np.exp(loss)), 3) for kind, loss in plain.items()}}
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "nearest": lambda: rounded(checkpoint, by_gptq=False),
        "gptq": lambda: rounded(checkpoint, by_gptq=True),
    }
    for damping in (asked.damping or (0.01, 0.1)) if asked.library else ():
        ways[f"llm-compressor, damping {damping}"] = partial(by_library, checkpoint, asked.library, damping)
    for name, way in ways.items():
        began = time.monotonic()
        weights = way()
        found[f"{name}, seconds"] = round(time.monotonic() - began, 1)
        lost = losses(checkpoint, weights, texts)
        found[name] = {kind: f"{np.expm1(lost[kind] - plain[kind]):+.2%}" for kind in texts}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
