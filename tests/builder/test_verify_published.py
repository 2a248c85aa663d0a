"""`make verify`: an engine proved on the machine that serves it. Run: pytest tests/builder/test_verify_published.py"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.host_engines import as_tensorrt
from fakes.tiny_llama import TinyRunner, tiny_checkpoint
from triune_builder.repository.assemble import ENGINE_FOLDER
from triune_builder.targets import every_target
from triune_builder.verify.measure import Sizes
from triune_builder.verify.speed import measure_speeds
from triune_builder.verify_published import JSON_NAME, TEXT_NAME, Proof, main, prove
from triune_runtime.errors import ManifestError
from triune_runtime.machine import Gpu, Machine
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.targets import find_target
from triune_runtime.targets.cpu.processor import has_vnni

LIMITS = Limits(max_sequences=3, max_length=32, prefill_chunk=8)
SIZES = Sizes(text=30, window=16, kept=12, answer=4)
PLAIN = EngineManifest(
    model="tiny", architecture="llama", target="cpu", precision="fp16", engine="model.plan", vocab_size=256, cache=(),
    stop_token_ids=(0,), limits=LIMITS, inputs_hash="abc",
)  # fmt: skip
GPU = Machine(gpus=(Gpu("RTX 4090", "8.9"),))


def proof(folder: Path, faults: dict[str, float] | None = None) -> Proof:
    (folder / ENGINE_FOLDER).mkdir(parents=True)
    as_tensorrt(PLAIN).save(folder / ENGINE_FOLDER)
    checkpoint = tiny_checkpoint()
    runner = TinyRunner(checkpoint.config, checkpoint.weights, faults or {})
    return prove(folder, checkpoint, machine=GPU, runner=runner, sizes=SIZES)


def test_a_right_engine_is_proved_and_the_reports_say_where(tmp_path: Path) -> None:
    found = proof(tmp_path)
    assert found.problems == [] and found.replay_error == 0.0
    assert found.write(tmp_path) == tmp_path / TEXT_NAME
    said = (tmp_path / TEXT_NAME).read_text("utf-8")
    assert "RTX 4090, compute capability 8.9" in said and "within its budget" in said
    assert "decode, 1 sequences: " in said and "decode, 3 sequences: " in said and "prefill, 8 tokens: " in said
    raw = json.loads((tmp_path / JSON_NAME).read_text("utf-8"))
    assert (raw["model"], raw["inputs_hash"], raw["problems"]) == ("tiny", "abc", [])


def test_a_folder_that_no_report_can_be_written_to_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "smollm2-135m" / "cpu").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit):
        main("smollm2-135m", "cpu", tmp_path, False)
    assert "may not write to" in (said := capsys.readouterr().err) and "docker run -u" in said


@pytest.mark.parametrize(
    ("fault", "size", "says"),
    [
        ("noise", 2.0, "perplexity"),
        ("dirty", 1e-3, "run again differs"),
        ("mates", 1.0, "alone and in a batch"),
        ("nan", 1.0, "KL"),
    ],
)
def test_a_wrong_engine_is_over_its_budget_and_its_report_can_be_read(
    tmp_path: Path, fault: str, size: float, says: str
) -> None:
    found = proof(tmp_path, {fault: size})
    assert any(says in problem for problem in found.problems), found.problems
    assert found.write(tmp_path).read_text("utf-8").splitlines()[1].startswith("OVER ITS BUDGET: ")
    json.loads((tmp_path / JSON_NAME).read_text("utf-8"))


def test_the_same_bits_are_demanded_of_bit_exact_targets_and_of_no_others() -> None:
    exact: dict[bool, set[str]] = {True: set(), False: set()}
    for target in every_target():
        for name, precision in target.precisions.items():
            for budget in precision.budgets.values():
                exact[budget.batch_error == 0.0].add(target.name if name != "int4" else f"{target.name} int4")
    # What ONNX Runtime does with 4 bits depends on the processor: docs/quantization.md.
    int4 = {"cpu int4"}
    assert exact[True] == {"cpu"} | (int4 if has_vnni() else set()) and find_target("cpu").bit_exact
    assert {name.split()[0] for name in exact[False] - (set() if has_vnni() else int4)} == {"cuda", "tensorrt"}


def test_an_engine_has_no_less_room_than_its_network() -> None:
    """What a build accepts without a GPU must not be refused for the same numbers where there is one."""
    for target in every_target():
        for precision in target.precisions.values():
            if not precision.budgets:  # of a target whose engines are the checkpoint itself: nothing is proved of them
                assert target.name == "vllm"
                continue
            whole = precision.budgets["full"]
            for budget in precision.budgets.values():
                assert (whole.mean_kl or 1.0) >= (budget.mean_kl or 0.0) and whole.tie >= budget.tie
                assert whole.greedy_agreement <= budget.greedy_agreement
                assert whole.perplexity_ratio >= budget.perplexity_ratio


def test_speeds_are_those_of_every_batch_size_asked_for() -> None:
    checkpoint = tiny_checkpoint()
    runner = TinyRunner(checkpoint.config, checkpoint.weights)
    found = measure_speeds(runner, dataclasses.replace(LIMITS, max_sequences=9, max_length=8), 256)
    assert list(found.decode_ms) == [1, 8, 9] and found.prefill_tokens == 8
    assert all(ms > 0 for ms in (*found.decode_ms.values(), found.prefill_ms))


def test_what_runs_an_engine_is_named_or_missed() -> None:
    assert find_target("cpu").device(Machine(gpus=())) == "CPU"
    assert find_target("tensorrt").device(GPU) == "RTX 4090, compute capability 8.9"
    with pytest.raises(ManifestError, match=r"no supported GPU: an engine of target tensorrt .* \(none here\)"):
        find_target("tensorrt").device(Machine(gpus=(), no_gpu="none here"))


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_the_command_ends_with_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "triune_builder.verify_published", "--target", "tensorrt", "--build-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: no supported GPU: [^\n]+\n\nhint: [^\n]+\n", done.stderr), done.stderr
