"""Builds of folders with the real tools: links into the checkpoint, its own sampling values, interrupted builds.

Run: pytest tests/builder/test_big_build.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from fakes.engines import made_up_maxima
from fakes.tiny_build import LIMITS, SIZES, settings, snapshot
from fakes.tiny_deepseek import tiny_checkpoint as tiny_deepseek
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import FakeCheckpoint, tiny_checkpoint
from triune_builder import fingerprint
from triune_builder.errors import BuildError
from triune_builder.fingerprint import sha256
from triune_builder.graph.export import export
from triune_builder.pipeline import Built, build
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display
from triune_builder.quantize.apply import quantize
from triune_builder.targets import find_target, journal, onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.pieces import OrtPieces
from triune_builder.targets.cpu.precisions import PRECISIONS, find_precision
from triune_builder.verify.budget import Budget
from triune_builder.verify.report import BuildReport
from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Work
from triune_runtime.targets import make_runner

ENGINE = Path("generate") / "1"
BUDGET = Budget(greedy_agreement=0.0, perplexity_ratio=100.0)  # random weights round badly


def tiny_llama() -> FakeCheckpoint:
    return tiny_checkpoint(hidden_size=64, intermediate_size=96)


def run(root: Path, **choices: Any) -> Built:
    exact = Budget(greedy_agreement=1.0, perplexity_ratio=1.001, logits_error=1e-3)
    budgets = dict.fromkeys(("int8", "int4", "w8a8"), BUDGET) | dict.fromkeys(("fp32", "bf16", "fp8"), exact)
    plan = BuildPlan(**({"model": str(root / "model"), "precision": "bf16", "limits": LIMITS} | choices))
    budgets["int4"] = dataclasses.replace(BUDGET, batch_error=PRECISIONS["int4"].budget.batch_error)
    precisions = {name: dataclasses.replace(PRECISIONS[name], budget=budget) for name, budget in budgets.items()}
    target = dataclasses.replace(find_target("cpu"), precisions=precisions)
    return build(plan, settings(root, sizes=SIZES), target=target, display=Display(quiet=True))


@pytest.mark.parametrize(("form", "precision"), [("BF16", "bf16"), ("F8_E4M3", "fp8")])
@pytest.mark.parametrize("fake", [tiny_llama, tiny_deepseek])
def test_a_published_engine_reads_the_checkpoints_own_files(tmp_path: Path, fake: Any, form: str, precision: str) -> None:
    model = write_folder(tmp_path / "model", fake(), form, shards=2)
    built = run(tmp_path, precision=precision)
    for number in (1, 2):
        name = f"model-0000{number}-of-00002.safetensors"
        assert (built.repository / ENGINE / name).samefile(model / name)
    assert run(tmp_path, precision=precision).unchanged
    report = BuildReport.read(built.repository / ENGINE)
    assert report.verification.decode.maximum < 1e-3 and not report.changes
    assert run(tmp_path, precision="fp32").inputs_hash != built.inputs_hash
    assert run(tmp_path, precision=precision).inputs_hash == built.inputs_hash


def test_a_checkpoint_changed_in_place_is_built_again(tmp_path: Path) -> None:
    fake = tiny_llama()
    model = write_folder(tmp_path / "model", fake, "BF16")
    before = run(tmp_path)
    name = "model.layers.0.mlp.down_proj.weight"
    fake.weights[name].array[:] = np.roll(fake.weights[name].array, 1, axis=0)
    inode = (model / "model.safetensors").stat().st_ino
    write_folder(model, fake, "BF16")  # writes through the link
    assert (model / "model.safetensors").stat().st_ino == inode
    after = run(tmp_path)
    assert not after.unchanged and after.inputs_hash != before.inputs_hash
    assert BuildReport.read(after.repository / ENGINE).verification.decode.maximum < 1e-3


def test_a_linked_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counted(path: Path, tell: Callable[[int], None]) -> str:
        hashed.append(path.name)
        return sha256(path, tell)

    monkeypatch.setattr(fingerprint, "sha256", counted)
    write_folder(tmp_path / "model", tiny_llama(), "BF16")
    run(tmp_path)
    assert hashed.count("model.safetensors") == 1 and "model.data" in hashed


def test_the_model_may_go_once_it_is_built(tmp_path: Path) -> None:
    model = write_folder(tmp_path / "model", tiny_llama(), "BF16")
    built = run(tmp_path)
    shutil.rmtree(model)
    assert (built.repository / ENGINE / "model.safetensors").stat().st_size > 0


def test_the_publishers_sampling_values_reach_the_manifest(tmp_path: Path) -> None:
    model = write_folder(tmp_path / "model", tiny_llama(), "BF16")
    (model / "generation_config.json").write_text(
        json.dumps({"_from_model_config": True, "do_sample": True, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [0, 5]})
    )
    manifest = EngineManifest.load(run(tmp_path).repository / ENGINE)
    assert (manifest.defaults.temperature, manifest.defaults.top_p, manifest.defaults.top_k) == (0.6, 0.95, None)
    assert manifest.stop_token_ids[:2] == (0, 5)


def test_a_build_names_missing_and_spare_weights_as_a_dry_run_does(tmp_path: Path) -> None:
    fake = tiny_llama()
    del fake.weights["model.layers.1.self_attn.v_proj.weight"]
    fake.weights["model.layers.0.mlp.bonus.weight"] = fake.weights["model.norm.weight"]
    write_folder(tmp_path / "model", fake, "BF16")
    with pytest.raises(BuildError, match=r"1 missing: model\.layers\.1\.self_attn\.v_proj\.weight; 1 spare: .*bonus"):
        run(tmp_path)


class Stopped(Exception):
    """Stands for a build that was ended."""


@pytest.mark.parametrize("precision", ["int4", "w8a8", "fp32"])
def test_weights_written_before_an_interruption_are_not_made_again(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_SYNCED", 1 << 14)
    monkeypatch.setattr(onnx_files, "_SMALL", 8)  # at real sizes no part of a weight is small
    fake = tiny_checkpoint(hidden_size=64, intermediate_size=96, num_hidden_layers=4)

    def write(folder: Path, stop_at: int | None = None) -> list[Any]:
        def progress(done: int, total: int) -> None:
            if done == stop_at:
                raise Stopped

        folder.mkdir(exist_ok=True)
        made = quantize(export(fake, max_length=64), find_precision(precision), made_up_maxima(fake))  # type: ignore[arg-type]
        for tensor in fake.weights.values():
            tensor.reads.clear()
        bundle = lower(made.bundle)
        onnx_files.write(bundle, folder, progress, changes=made.changes)
        return made.changes

    wanted = write(tmp_path / "whole")
    reads = sum(len(t.reads) for t in fake.weights.values())
    total = len(onnx.load(tmp_path / "whole" / onnx_files.MODEL, load_external_data=False).graph.initializer)
    for stop_at in (total // 3, total // 2, total):
        with pytest.raises(Stopped):
            write(tmp_path / "again", stop_at)
        assert (tmp_path / "again" / ".written-model.onnx").exists()
    with (tmp_path / "again" / onnx_files.DATA).open("ab") as file:
        file.write(b"half a weight")
    with (tmp_path / "again" / ".written-model.onnx").open("a") as lines:
        lines.write('{"end": 99')  # and half a line about it
    changes = write(tmp_path / "again")
    assert sum(len(t.reads) for t in fake.weights.values()) < reads / 2
    assert snapshot(tmp_path / "again") == snapshot(tmp_path / "whole")
    assert changes == wanted


KILLED = """
import sys
from pathlib import Path
from triune_builder.targets import journal
from builder.test_big_build import run
journal._SYNCED = 1 << 14
run(Path(sys.argv[1]), precision=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("precision", ["bf16", "int4", "w8a8"])
def test_a_build_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path, precision: str) -> None:
    chance = random.Random(11)
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8}
    write_folder(tmp_path / "whole" / "model", tiny_checkpoint(**sizes), "BF16", shards=3)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    began = time.monotonic()
    wanted = snapshot(run(tmp_path / "whole", precision=precision).repository)
    usual = time.monotonic() - began
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "killed"), precision],
            env=os.environ | {"PYTHONPATH": paths},
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.8, 1.5 + usual))
        process.kill()
        process.wait()
    assert snapshot(run(tmp_path / "killed", precision=precision).repository) == wanted
    left = [
        p.name
        for p in (tmp_path / "killed" / "build").rglob("*")
        if p.name.startswith((".tmp-", ".old-", ".part-", ".written"))
    ]
    assert left == []


@pytest.mark.parametrize(("form", "precision"), [("BF16", "bf16"), ("BF16", "w8a8"), ("F8_E4M3", "fp8")])
@pytest.mark.parametrize("fake", [tiny_llama, tiny_deepseek])
@pytest.mark.parametrize("piece_bytes", [1, 1 << 15, 1 << 29])
def test_an_engine_in_pieces_says_what_it_says_as_a_whole(
    tmp_path: Path, fake: Any, form: str, precision: str, piece_bytes: int
) -> None:
    write_folder(tmp_path / "model", fake(), form)
    folder = run(tmp_path, precision=precision).repository / ENGINE
    manifest = EngineManifest.load(folder)
    texts = [tuple(int(t) for t in np.random.default_rng(i).integers(0, 256, n)) for i, n in enumerate((13, 5))]
    pieces = OrtPieces(folder / manifest.engine, manifest.cache, piece_bytes=piece_bytes)
    assert pieces.count > (10 if piece_bytes == 1 else 1)
    found = list(pieces.run(texts, [range(13), [4, 2]]))
    assert [(f.text, f.positions.tolist()) for f in found] == [(0, list(range(13))), (1, [4, 2])]
    runner = make_runner(manifest, folder)
    for one in found:
        for position, row in zip(one.positions, one.logits, strict=True):
            expected = runner.run([Work(0, 0, texts[one.text][: position + 1])])[0]
            assert np.abs(row - expected).max() <= 1e-5 * np.abs(expected).max()


def test_verification_by_layers_finds_the_same_and_says_what_it_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", tiny_llama(), "BF16")
    whole = BuildReport.read(run(tmp_path, verify="full").repository / ENGINE)
    built = run(tmp_path, verify="layers")
    report = BuildReport.read(built.repository / ENGINE)
    assert EngineManifest.load(built.repository / ENGINE).verified == "layers"
    assert report.verification is not None and whole.verification is not None
    assert report.verification.decode is None and report.verification.batch_error is None
    assert report.verification.prefill.maximum < 1e-3
    assert report.verification.perplexity_engine == pytest.approx(whole.verification.perplexity_engine, rel=1e-4)
    text = (built.repository / ENGINE / "report.txt").read_text()
    assert "VERIFIED IN PART: the engine was run a few weights at a time" in text and "alone and in a batch" not in text


def test_an_engine_that_is_wrong_does_not_pass_by_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "model", tiny_llama(), "BF16")
    spoiled = OrtPieces.run

    def run_spoiled(self: OrtPieces, *arguments: Any) -> Any:
        return (found._replace(logits=found.logits * np.float32(1.01)) for found in spoiled(self, *arguments))

    monkeypatch.setattr(OrtPieces, "run", run_spoiled)
    with pytest.raises(BuildError, match="over its budget and was not published: relative logits error of prefill"):
        run(tmp_path, verify="layers")


def test_no_verification_is_recorded_where_it_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", tiny_llama(), "BF16")
    built = run(tmp_path, verify="none")
    assert EngineManifest.load(built.repository / ENGINE).verified == "none"
    assert BuildReport.read(built.repository / ENGINE).verification is None
    assert "NOT VERIFIED" in (built.repository / ENGINE / "report.txt").read_text()
    assert run(tmp_path, verify="none").unchanged and not run(tmp_path, verify="full").unchanged


def test_an_engine_larger_than_the_free_memory_is_verified_by_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "model", tiny_llama(), "BF16")
    manifest = EngineManifest.load(run(tmp_path).repository / ENGINE)
    assert manifest.verified == "full"
    little = SimpleNamespace(available=1 << 20)
    monkeypatch.setattr("triune_builder.targets.cpu.target.psutil.virtual_memory", lambda: little)
    write_folder(tmp_path / "model", tiny_checkpoint(seed=1, hidden_size=64, intermediate_size=96), "BF16")
    assert EngineManifest.load(run(tmp_path).repository / ENGINE).verified == "layers"
