"""Stored weights that flags of config.json contradict: settled as transformers does and said, or refused by both names.

Run: pytest tests/builder/test_settled_weights.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.tiny_build import LIMITS, settings
from fakes.tiny_deepseek import tiny_checkpoint as tiny_deepseek
from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import FakeCheckpoint, FakeTensor
from triune_builder.checkpoint.folder import open_folder
from triune_builder.dry_run import dry_run
from triune_builder.errors import BuildError
from triune_builder.graph import export as exporting
from triune_builder.graph import rope
from triune_builder.graph.arch import deepseek_v3, llama, mistral
from triune_builder.graph.export import export
from triune_builder.graph.promises import check_weights
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display
from triune_builder.verify.report import BuildReport

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
PLAIN = {"eos_token_id": 0, "bos_token_id": None}


def changed(checkpoint: FakeCheckpoint, **arrays: np.ndarray) -> FakeCheckpoint:
    more = {name: FakeTensor(np.asarray(array, np.float32)) for name, array in arrays.items()}
    return dataclasses.replace(checkpoint, weights=checkpoint.weights | more)


def tied(head: np.ndarray | None) -> FakeCheckpoint:
    checkpoint = dense_checkpoint("llama", **SIZES, tie_word_embeddings=True)
    return checkpoint if head is None else changed(checkpoint, **{HEAD: head})


def exported(checkpoint: FakeCheckpoint, **options: Any) -> exporting.GraphBundle:
    check_weights(checkpoint.config, checkpoint.weights)
    return export(checkpoint, max_length=16, **options)  # type: ignore[arg-type]  # a fake


def built(checkpoint: FakeCheckpoint, root: Path, form: str = "F32") -> BuildReport:
    plan = BuildPlan(model=str(write_folder(root / "model", checkpoint, form)), precision="fp32", limits=LIMITS)
    repository = build(plan, settings(root), display=Display(quiet=True)).repository
    return BuildReport.read(repository / "generate" / "1")


def test_a_stored_copy_of_the_table_leaves_a_tie_as_it_is() -> None:
    alone = exported(tied(None))
    beside = exported(tied(alone.sources[TABLE].float32()))
    assert beside.sources.keys() == alone.sources.keys() and not beside.remarks


def test_a_stored_head_with_other_numbers_is_used_and_said() -> None:
    bundle = exported(tied(np.ones((256, 64))))
    assert HEAD in bundle.sources
    assert any("the stored head is used, as in transformers" in remark for remark in bundle.remarks)


@pytest.mark.parametrize("form", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("place", [None, 0, -1])
def test_heads_in_files_are_compared_to_their_last_byte(form: str, place: int | None, tmp_path: Path) -> None:
    checkpoint = tied(None)
    head = checkpoint.weights[TABLE].array.copy()
    if place is not None:
        head.flat[place] += 1
    opened = open_folder(write_folder(tmp_path, tied(head), form))
    assert (HEAD in export(opened, max_length=16).sources) == (place is not None)


def test_a_head_of_another_shape_than_the_table_is_refused() -> None:
    with pytest.raises(BuildError, match=r"1 misshapen: lm_head\.weight is \[9, 64\], not \[256, 64\]"):
        exported(tied(np.ones((9, 64))))


def test_a_dry_run_reads_no_weight_and_says_what_the_build_will_compare(tmp_path: Path, capsys: Any) -> None:
    model = write_folder(tmp_path / "model", tied(np.ones((256, 64))), "F32")
    dry_run(BuildPlan(model=str(model), limits=LIMITS), settings(tmp_path))
    said = "".join(capsys.readouterr())
    assert "a build compares it with model.embed_tokens.weight" in " ".join(said.split())


def test_a_bias_that_the_config_denies_is_refused_by_both_names() -> None:
    checkpoint = changed(dense_checkpoint("llama", **SIZES), **{"model.layers.0.self_attn.o_proj.bias": np.ones(64)})
    with pytest.raises(BuildError, match=r"1 spare: model\.layers\.0\.self_attn\.o_proj\.bias; attention_bias is False in"):
        exported(checkpoint)
    checkpoint = changed(dense_checkpoint("llama", **SIZES), **{"model.layers.0.mlp.up_proj.bias": np.ones(96)})
    with pytest.raises(BuildError, match=r"1 spare: model\.layers\.0\.mlp\.up_proj\.bias; mlp_bias is False in config\.json"):
        exported(checkpoint)


def test_biases_that_the_config_promises_and_nobody_stored_are_refused_by_both_names() -> None:
    checkpoint = dense_checkpoint("llama", **SIZES)
    with pytest.raises(BuildError, match=r"8 missing: .*q_proj\.bias.*; attention_bias is True in config\.json"):
        check_weights(checkpoint.config | {"attention_bias": True}, checkpoint.weights)


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_an_output_bias_of_an_architecture_without_one_is_refused(kind: str) -> None:
    checkpoint = changed(dense_checkpoint(kind, **SIZES), **{"model.layers.0.self_attn.o_proj.bias": np.ones(64)})
    for flag in (False, True):
        with pytest.raises(BuildError, match=r"1 spare: model\.layers\.0\.self_attn\.o_proj\.bias"):
            check_weights(checkpoint.config | {"attention_bias": flag}, checkpoint.weights)


@pytest.mark.parametrize("key", ["num_nextn_predict_layers", "num_mtp_layers"])
def test_layers_of_further_tokens_that_were_never_saved_are_not_built_and_that_is_said(key: str) -> None:
    checkpoint = tiny_deepseek()
    config = {k: v for k, v in checkpoint.config.items() if k != "num_nextn_predict_layers"} | {key: 1}
    bundle = exported(dataclasses.replace(checkpoint, config=config), with_mtp=True)
    assert bundle.mtp is None
    assert any("has the weights of none: built with none" in remark for remark in bundle.remarks)


def test_layers_of_further_tokens_that_were_saved_are_built_though_the_config_is_silent() -> None:
    checkpoint = tiny_deepseek(num_nextn_predict_layers=1)
    config = {k: v for k, v in checkpoint.config.items() if k != "num_nextn_predict_layers"}
    bundle = exported(dataclasses.replace(checkpoint, config=config), with_mtp=True)
    assert bundle.mtp is not None and not bundle.remarks


def test_half_a_layer_of_further_tokens_is_refused() -> None:
    checkpoint = tiny_deepseek(num_nextn_predict_layers=1)
    fewer = {n: t for n, t in checkpoint.weights.items() if not n.endswith("eh_proj.weight")}
    with pytest.raises(BuildError, match=r"1 missing: model\.layers\.3\.eh_proj\.weight"):
        check_weights(checkpoint.config, fewer)


def test_moe_layer_freq_counts_where_layers_are_stored_as_dense_and_is_ignored_where_not() -> None:
    every = tiny_deepseek(first_k_dense_replace=0)
    second = tiny_deepseek(first_k_dense_replace=0, moe_layer_freq=2)
    assert "model.layers.1.mlp.gate_up_proj.weight" in exported(second).sources
    bundle = exported(dataclasses.replace(every, config=second.config))
    assert "model.layers.1.mlp.experts.gate_up_proj.weight" in bundle.stacks
    assert any("moe_layer_freq = 2 is ignored" in remark for remark in bundle.remarks)


YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8}
Break = Callable[[pytest.MonkeyPatch], None]
BROKEN: dict[str, tuple[Callable[[], FakeCheckpoint], Break]] = {
    "the older rope does not count": (
        lambda: dense_checkpoint("llama", **SIZES, rope_scaling=YARN, rope_parameters={"rope_type": "default"}),
        lambda patch: patch.setattr(rope, "_parameters", lambda config: ("rope_parameters", config["rope_parameters"])),
    ),
    "a missing epsilon is another": (
        lambda: without("rms_norm_eps", dense_checkpoint("llama", **SIZES, rms_norm_eps=1e-6)),
        lambda patch: patch.setitem(llama.KEYS, "rms_norm_eps", dataclasses.replace(llama.KEYS["rms_norm_eps"], missing=0.1)),
    ),
    "a tie counts before the stored head": (
        lambda: tied(np.random.default_rng(1).normal(size=(256, 64))),
        lambda patch: patch.setattr(exporting, "_with_stored_head", lambda cfg, weights, compare: cfg),
    ),
    "a window is not read": (
        lambda: dense_checkpoint("mistral", **SIZES, sliding_window=3),
        lambda patch: patch.setattr(mistral, "mistral_windows", lambda config, said: (None,) * said["num_hidden_layers"]),
    ),
    "inner norms have the config's epsilon": (
        lambda: tiny_deepseek(rms_norm_eps=0.1),
        lambda patch: patch.setattr(deepseek_v3, "INNER_NORM_EPS", 0.1),
    ),
}  # fmt: skip


def without(key: str, checkpoint: FakeCheckpoint) -> FakeCheckpoint:
    return dataclasses.replace(checkpoint, config={k: v for k, v in checkpoint.config.items() if k != key})


@pytest.mark.parametrize("name", BROKEN)
def test_verification_catches_a_reader_that_is_wrong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference reads the config by itself, so an engine of a wrong reader is far from it; and one of the right is not."""
    make, spoil = BROKEN[name]
    report = built(make(), tmp_path / "right")
    assert report.verification is not None and report.verification.prefill.maximum < 1e-4
    spoil(monkeypatch)
    with pytest.raises(BuildError, match="is over its budget and was not published"):
        built(make(), tmp_path / "wrong")
