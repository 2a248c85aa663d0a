"""Engines whose weights stay in the checkpoint's own form. Run: pytest tests/builder/test_fp8_engines.py"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fakes.tiny_deepseek import tiny_checkpoint as tiny_deepseek
from fakes.tiny_folders import rounded, write_folder
from fakes.tiny_llama import FakeCheckpoint, tiny_checkpoint
from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu import stored
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.precisions import find_precision
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Runner, Work
from triune_runtime.targets import make_runner

TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 24))


def tiny_llama() -> FakeCheckpoint:
    return tiny_checkpoint(hidden_size=64, intermediate_size=96)


MODELS = {"llama": tiny_llama, "deepseek": tiny_deepseek}


def engine(checkpoint: Any, precision: str, folder: Path) -> tuple[Runner, onnx_files.Written]:
    folder.mkdir(parents=True)
    bundle = lower(export(checkpoint, max_length=64))
    if (form := find_precision(precision).stored) is not None:
        bundle = stored.store(bundle, form)
    written = onnx_files.write(bundle, folder)
    manifest = EngineManifest(
        model="tiny", architecture=bundle.architecture, target="cpu", precision=precision, engine=onnx_files.MODEL,
        vocab_size=256,
        cache=bundle.cache, stop_token_ids=(0,), limits=Limits(max_sequences=2, max_length=64),
    )  # fmt: skip
    return make_runner(manifest, folder), written


def logits(runner: Runner) -> np.ndarray:
    """A prefill and a few decode steps."""
    found = [runner.run([Work(0, 0, TOKENS[:12])])]
    found += [runner.run([Work(0, at, TOKENS[at : at + 1])]) for at in range(12, 16)]
    return np.concatenate(found)


def dequantized(checkpoint: Checkpoint, fake: FakeCheckpoint) -> FakeCheckpoint:
    """The numbers that the folder's tensors stand for, as plain float32."""
    return rounded(fake, {name: tensor.float32() for name, tensor in checkpoint.weights.items()})


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(str(folder), cache=folder)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("form", "precision"), [("BF16", "bf16"), ("F16", "fp16"), ("F8_E4M3", "fp8")])
@pytest.mark.parametrize("pad", [8, 2])  # tensors at multiples of 8 bytes, and not
def test_an_engine_of_stored_weights_is_that_of_their_float_values(
    tmp_path: Path, model: str, form: str, precision: str, pad: int
) -> None:
    fake = MODELS[model]()
    checkpoint = opened(write_folder(tmp_path / "model", fake, form, shards=3, pad=pad))
    runner, written = engine(checkpoint, precision, tmp_path / "engine")
    expected, _ = engine(dequantized(checkpoint, fake), "fp32", tmp_path / "plain")
    got, wanted = logits(runner), logits(expected)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert set(written.linked) == {f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)} and not written.copied


def test_matrices_are_converted_where_the_checkpoint_has_another_form(tmp_path: Path) -> None:
    fake = tiny_llama()
    for form, precision, error in (
        ("F32", "bf16", 0.03),
        ("BF16", "fp16", 1e-5),
        ("F32", "fp16", 0.005),
        ("F8_E4M3", "bf16", 0.03),
    ):
        checkpoint = opened(write_folder(tmp_path / f"{form}-{precision}", fake, form))
        runner, _ = engine(checkpoint, precision, tmp_path / f"{form}-{precision}" / "engine")
        expected, _ = engine(dequantized(checkpoint, fake), "fp32", tmp_path / f"{form}-{precision}" / "plain")
        got, wanted = logits(runner), logits(expected)
        assert np.abs(got - wanted).max() <= error * np.abs(wanted).max(), (form, precision)


def test_nothing_is_copied_on_the_same_file_system(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", tiny_llama(), "BF16", shards=2)
    _, written = engine(opened(folder), "bf16", tmp_path / "engine")
    assert written.files == [
        onnx_files.MODEL,
        onnx_files.DATA,
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    for name in written.linked:
        assert (tmp_path / "engine" / name).samefile(folder / name)
    own = (tmp_path / "engine" / onnx_files.DATA).stat().st_size
    assert own < 64 * 16 * 4 + 2 * 4096  # the rotary tables, and what keeps each at its place
    stored = onnx.load(tmp_path / "engine" / onnx_files.MODEL, load_external_data=False).graph.initializer
    assert sum(t.data_type == onnx.TensorProto.BFLOAT16 for t in stored) == len(opened(folder).weights)


def test_numbers_that_lie_askew_are_copied(tmp_path: Path) -> None:
    fake = tiny_llama()
    checkpoint = opened(write_folder(tmp_path / "model", fake, "BF16", pad=1))
    runner, written = engine(checkpoint, "bf16", tmp_path / "engine")
    expected, _ = engine(dequantized(checkpoint, fake), "fp32", tmp_path / "plain")
    assert not written.linked and np.abs(logits(runner) - logits(expected)).max() <= 1e-5


def test_a_link_to_a_symbolic_link_is_to_the_file_itself(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", tiny_llama(), "BF16")  # as the hub's cache lays models out
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to("../blob")
    _, written = engine(opened(folder), "bf16", tmp_path / "engine")
    assert not (tmp_path / "engine" / "model.safetensors").is_symlink() and list(written.linked) == ["model.safetensors"]


def test_on_another_file_system_the_weights_are_copied_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("Invalid cross-device link")

    folder = write_folder(tmp_path / "model", tiny_llama(), "BF16")
    expected, _ = engine(opened(folder), "bf16", tmp_path / "linked")
    monkeypatch.setattr(os, "link", refuse)
    runner, written = engine(opened(folder), "bf16", tmp_path / "engine")
    assert written.files == [onnx_files.MODEL, onnx_files.DATA] and written.copied.keys() == {"model.safetensors"}
    (folder / "model.safetensors").unlink()
    assert np.array_equal(logits(runner), logits(expected))


def test_fp8_is_refused_where_the_checkpoint_has_none(tmp_path: Path) -> None:
    checkpoint = opened(write_folder(tmp_path / "model", tiny_llama(), "BF16"))
    with pytest.raises(BuildError, match="no FP8 weights to keep"):
        engine(checkpoint, "fp8", tmp_path / "engine")


def test_a_number_too_large_for_half_precision_is_named(tmp_path: Path) -> None:
    fake = tiny_llama()
    name = "model.layers.1.mlp.down_proj.weight"
    fake.weights[name].array[3, 4] = 1e5
    checkpoint = opened(write_folder(tmp_path / "model", fake, "BF16"))
    with pytest.raises(BuildError, match=rf"{name} has numbers up to .*too large for F16.*--precision bf16"):
        engine(checkpoint, "fp16", tmp_path / "engine")
    fake.weights[name].array[3, 4] = 3.4e38
    largest = opened(write_folder(tmp_path / "largest", fake, "F32"))
    with pytest.raises(BuildError, match=rf"{name} has numbers up to .*too large for BF16.*--precision fp32"):
        engine(largest, "bf16", tmp_path / "another")


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0x7F800000], ids=["nan", "signalling", "inf"])
def test_weights_that_are_no_numbers_are_written_without_a_librarys_warnings(
    tmp_path: Path, bits: int, recwarn: pytest.WarningsRecorder
) -> None:
    """The report of the build tells of them."""
    fake = tiny_llama()
    fake.weights["model.layers.1.mlp.down_proj.weight"].array.view(np.uint32)[3, 4] = bits
    engine(opened(write_folder(tmp_path / "model", fake, "F32")), "bf16", tmp_path / "engine")
    assert not list(recwarn)
