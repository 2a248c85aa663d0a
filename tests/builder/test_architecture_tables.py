"""Who knows which architecture: one set of names everywhere, and nothing unknown is accepted.

Run: pytest tests/builder/test_architecture_tables.py
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fakes.tiny_build import LIMITS, settings
from fakes.tiny_deepseek import tiny_checkpoint as tiny_deepseek
from fakes.tiny_dense import dense_checkpoint, random_changes
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.checkpoint import gguf_architectures
from triune_builder.errors import BuildError
from triune_builder.graph.arch import ARCHITECTURES, Architecture, decoder, deepseek_config, llama, mistral, qwen2, qwen3
from triune_builder.graph.config import positions_key, read_config
from triune_builder.graph.keys import REFUSED
from triune_builder.graph.promises import check_weights, promised_weights
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display
from triune_builder.verify import reference_config
from triune_builder.verify.report import BuildReport

KEYS = {
    "llama": llama.KEYS, "mistral": mistral.KEYS, "qwen2": qwen2.KEYS, "qwen3": qwen3.KEYS, "deepseek_v3": deepseek_config.KEYS,
}  # fmt: skip
DENSE = sorted(ARCHITECTURES.keys() - {"deepseek_v3"})


def tiny(name: str, **changes: Any) -> FakeCheckpoint:
    return tiny_deepseek(**changes) if name == "deepseek_v3" else dense_checkpoint(name, **changes)


def test_every_table_knows_the_same_architectures() -> None:
    assert set(reference_config.READERS) == set(ARCHITECTURES) == set(KEYS)
    assert {row.model_type for row in gguf_architectures.ARCHITECTURES.values()} <= set(ARCHITECTURES)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_checkpoint_without_weights_is_refused(name: str) -> None:
    with pytest.raises(BuildError, match=r"missing: model\.embed_tokens\.weight"):
        check_weights(tiny(name).config, {})


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_dense_config_varies_its_own_weights_are_those_promised(name: str, seed: int) -> None:
    checkpoint = dense_checkpoint(name, seed=seed, **random_changes(name, seed))
    check_weights(checkpoint.config, checkpoint.weights)
    promised = promised_weights(checkpoint.config)
    shapes = {weight: tensor.shape for weight, tensor in checkpoint.weights.items()}
    assert promised.required.items() <= shapes.items() <= (promised.required | promised.optional).items()
    assert {n for n in shapes if n.endswith(".bias")} <= promised.required.keys()


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": None}, {"num_nextn_predict_layers": 1}, {"attention_bias": True}])
def test_whatever_a_deepseek_config_varies_its_own_weights_are_those_promised(changes: dict[str, Any]) -> None:
    checkpoint = tiny_deepseek(**changes)
    check_weights(checkpoint.config, checkpoint.weights)
    for name in checkpoint.weights:
        optional = promised_weights(checkpoint.config).optional
        left = {n: w for n, w in checkpoint.weights.items() if n != name}
        if name not in optional:
            with pytest.raises(BuildError, match=f"1 missing: {name}"):
                check_weights(checkpoint.config, left)


def test_qwen3_has_heads_of_128_where_its_config_is_silent() -> None:
    config = {key: value for key, value in dense_checkpoint("qwen3").config.items() if key != "head_dim"}
    promised = promised_weights(config).required
    assert promised["model.layers.0.self_attn.q_proj.weight"] == (config["num_attention_heads"] * 128, config["hidden_size"])
    assert promised["model.layers.0.self_attn.q_norm.weight"] == (128,)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mistal"}, "no architecture for model_type 'mistal'; known: .*mistral.*did you mean 'mistral'"),
        ({"model_type": "mamba"}, "no architecture for model_type 'mamba'; known: deepseek_v3, llama, mistral, qwen2, qwen3"),
        ({"model_type": ["llama"]}, "no architecture for model_type"),
        ({}, "config.json has no model_type; known: deepseek_v3"),
        ({"model_type": "mistral"}, "config.json of a mistral lacks hidden_size, intermediate_size, num_attention_heads"),
    ],
)
def test_a_config_that_names_nothing_known_is_refused_with_what_is(config: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=f"(?s){says}"):
        check_weights(config, {})


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_key_that_is_missing_is_named_or_has_a_meaning(name: str) -> None:
    config = tiny(name).config
    needed = {key for key, meant in KEYS[name].items() if meant.missing is REFUSED}
    assert needed == {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"}
    for key in config:
        rest = {k: v for k, v in config.items() if k != key}
        if key in needed:
            with pytest.raises(BuildError, match=f"lacks {key};"):
                ARCHITECTURES[name].read(rest)
        else:
            with contextlib.suppress(BuildError):  # which says what does not fit
                ARCHITECTURES[name].read(rest)


def test_a_new_architecture_is_its_file_a_row_and_a_reference_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy is Llama with normalized heads: read, weighed, built and proved with nothing changed but two rows."""

    def read(config: Mapping[str, Any]) -> decoder.Config:
        said, remarks = read_config(config, decoder.KEYS | positions_key(2048))
        windows = (None,) * said["num_hidden_layers"]
        return decoder.make(config, said, remarks, windows=windows, biases=(), head_norms=True)

    def read_again(config: Mapping[str, Any]) -> reference_config.Dense:
        return dataclasses.replace(reference_config.llama(config), normalized=True)

    like_qwen3 = dense_checkpoint("qwen3", hidden_size=64, intermediate_size=96, head_dim=16)
    config = {k: v for k, v in like_qwen3.config.items() if k != "attention_bias"} | {"model_type": "toy"}
    toy = dataclasses.replace(like_qwen3, config=config)
    model = write_folder(tmp_path / "model", toy, "F32")
    plan = BuildPlan(model=str(model), precision="fp32", limits=LIMITS)

    monkeypatch.setitem(ARCHITECTURES, "toy", Architecture(read, decoder.promises, decoder.forward))
    with pytest.raises(BuildError, match="no reference for model_type 'toy'"):
        build(plan, settings(tmp_path), display=Display(quiet=True))
    monkeypatch.setitem(reference_config.READERS, "toy", read_again)
    built = build(plan, settings(tmp_path), display=Display(quiet=True))
    report = BuildReport.read(built.repository / "generate" / "1")
    assert report.verification is not None and report.verification.decode.maximum < 1e-4
