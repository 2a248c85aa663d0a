"""Graphs that check drafts give the bits of one token after the other. Run: pytest tests/builder/test_drafts.py"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from fakes.drafts import Eager
from fakes.engines import allowed_batch_error, made_up_maxima
from fakes.tiny_deepseek import tiny_checkpoint as tiny_deepseek
from fakes.tiny_llama import tiny_checkpoint as tiny_llama
from triune_builder.checkpoint import open_checkpoint
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display, StageClock
from triune_builder.quantize.apply import quantize
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.compiling import _speculates, compile_engine
from triune_builder.targets.cpu.drafts import write_checking
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.precisions import PRECISIONS, find_precision
from triune_builder.verify.drafts import DraftFigures, verify_drafts
from triune_builder.verify.report import verification_from
from triune_builder.verify.verification import LogitsError, TextLoss, Verification, problems
from triune_runtime.drafting.lookup import LookupDrafter
from triune_runtime.drafting.mtp import MtpDrafter
from triune_runtime.drafting.speculator import Speculator
from triune_runtime.generation.loop import StepLoop
from triune_runtime.manifest import EngineManifest, Limits, MtpEngine, Speculation
from triune_runtime.request import Request, SamplingParams
from triune_runtime.runner import Runner, Work
from triune_runtime.starting import step_loop
from triune_runtime.targets.cpu.plan import HEADS
from triune_runtime.targets.cpu.runner import OrtRunner
from triune_runtime.text.tokenizer import TextTokenizer

ROOT = Path(__file__).parents[2]
TOKENS = 3
LIMITS = Limits(max_sequences=3, max_length=64, prefill_chunk=16)
LLAMA = {"hidden_size": 64, "intermediate_size": 96}
DEEPSEEK: dict[str, Any] = {
    "num_nextn_predict_layers": 1, "kv_lora_rank": 32, "v_head_dim": 16, "qk_nope_head_dim": 24,
    "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1,
}  # fmt: skip


def build(kind: str, precision: str, folder: Path) -> tuple[Any, EngineManifest]:
    """A tiny engine that checks drafts, of DeepSeek with its MTP layer."""
    checkpoint: Any = tiny_llama(**LLAMA) if kind == "llama" else tiny_deepseek(**DEEPSEEK)
    bundle = export(checkpoint, max_length=LIMITS.max_length, with_mtp=True)
    bundle = lower(quantize(bundle, find_precision(precision), made_up_maxima(checkpoint)).bundle)
    onnx_files.write(bundle, folder)
    write_checking(folder / onnx_files.MODEL, folder / onnx_files.CHECKING, TOKENS)
    mtp = None
    if bundle.mtp is not None:
        onnx_files.write(bundle.mtp, folder, name=onnx_files.MTP, beside=onnx_files.MODEL)
        mtp = MtpEngine(engine=onnx_files.MTP, hidden_size=checkpoint.config["hidden_size"], cache=bundle.mtp.cache)
    manifest = EngineManifest(
        model="tiny", architecture=bundle.architecture, target="cpu", precision=precision, engine=onnx_files.MODEL,
        vocab_size=bundle.vocab_size, cache=bundle.cache, stop_token_ids=(), limits=LIMITS,
        speculation=Speculation(engine=onnx_files.CHECKING, tokens=TOKENS, mtp=mtp),
        plan={HEADS: checkpoint.config["num_attention_heads"]},
    )  # fmt: skip
    return checkpoint, manifest


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4", "w8a8"])
@pytest.mark.parametrize("kind", ["llama", "deepseek"])
def test_checking_drafts_changes_no_bit_and_the_mtp_layer_is_the_references(kind: str, precision: str, tmp_path: Path) -> None:
    checkpoint, manifest = build(kind, precision, tmp_path)
    runner = OrtRunner(manifest, tmp_path)
    assert manifest.speculation is not None
    text = np.random.default_rng(2).integers(0, 256, 60).tolist()
    figures = verify_drafts(runner, manifest.speculation, LIMITS, checkpoint.config, checkpoint.weights, text)
    assert figures.error <= allowed_batch_error(precision) and figures.checked >= 3 * 20
    if kind == "llama":
        assert figures.mtp_error is None
    else:
        assert figures.mtp_positions == 59 and figures.mtp_error is not None and figures.mtp_kl is not None
        assert figures.mtp_kl < {"fp32": 1e-8, "int8": 0.2, "w8a8": 0.2, "int4": 1.0}[precision]  # of random weights
        assert precision != "fp32" or figures.mtp_error < 1e-4


def test_slots_do_not_disturb_each_other_when_drafts_are_taken_back_and_sequences_move(tmp_path: Path) -> None:
    _, manifest = build("deepseek", "w8a8", tmp_path)
    runner, alone = OrtRunner(manifest, tmp_path), OrtRunner(manifest, tmp_path)
    texts = np.random.default_rng(3).integers(0, 256, (3, 40)).tolist()
    wanted = []
    for text in texts:
        alone.run([Work(0, 0, tuple(text[:9]))])
        wanted.append([alone.run([Work(0, at, (text[at],))])[0].copy() for at in range(9, 30)])
    slots = [0, 1, 2]
    for slot, text in zip(slots, texts, strict=True):
        runner.run([Work(slot, 0, tuple(text[:9]))])
    for at in range(9, 30):
        if at == 20:
            runner.copy_slot(2, 1, at)  # the second sequence leaves, the third takes its place
            slots = [0, None, 1]  # type: ignore[list-item]
        drafted = at % 3
        work = []
        for number, slot in enumerate(slots):
            if slot is not None:
                wrong = (texts[number][at], 7, 8)[: 1 + at % 3] if number != drafted else (texts[number][at],)
                work.append(Work(slot, at, wrong, len(wrong) - 1))
        rows, row = runner.run(work), 0
        for number, item in zip([n for n, slot in enumerate(slots) if slot is not None], work, strict=True):
            assert np.array_equal(rows[row], wanted[number][at - 9])
            row += 1 + item.drafts


def test_weights_that_both_graphs_have_are_on_disk_once(tmp_path: Path) -> None:
    build("deepseek", "fp32", tmp_path)
    used: dict[str, set[str]] = {}
    for name in (onnx_files.MODEL, onnx_files.CHECKING, onnx_files.MTP):
        values = ir.load(tmp_path / name).graph.initializers.values()
        for value in values:
            if isinstance(value.const_value, ir.ExternalTensor):
                used.setdefault(value.name or "", set()).add(str(value.const_value.location))
    assert used["model.embed_tokens.weight"] == {"model.data"}
    assert {name for names in used.values() for name in names} == {"model.data", "mtp.data"}
    assert all(len(files) == 1 for files in used.values())


def test_a_window_and_drafts_exclude_each_other() -> None:
    bundle = export(tiny_llama(sliding_window=16, **LLAMA), max_length=64)  # type: ignore[arg-type]  # a fake
    bundle = dataclasses.replace(bundle, cache=tuple(dataclasses.replace(c, window=16) for c in bundle.cache))
    assert not _speculates(BuildPlan(), bundle)
    with pytest.raises(BuildError, match="drafts cannot be checked where layers have a window"):
        _speculates(BuildPlan(speculation="on"), bundle)


def test_a_difference_between_tokens_and_drafts_is_over_every_budget() -> None:
    error = LogitsError(positions=1, maximum=0.0, median=0.0, mean_kl=0.0, maximum_kl=0.0)
    found = Verification(
        decode=error, prefill=error, prompts=1, greedy_tokens=1, disagreements=(),
        texts=(TextLoss(name="a", tokens=1, reference=1.0, engine=1.0),),
        batch_error=0.0, repeat_error=0.0, chunk_error=0.0, engine_seconds=1.0, reference_seconds=1.0,
        drafts=DraftFigures(checked=5, error=1e-9, mtp_positions=5, mtp_error=0.5, mtp_kl=9.0),
    )  # fmt: skip
    assert verification_from(dataclasses.asdict(found)) == found
    assert [p.split(" is ")[0] for p in problems(found, PRECISIONS["w8a8"].budget)] == [
        "difference of a token alone and checked as a draft", "mean KL divergence of the MTP layer",
    ]  # fmt: skip
    assert "relative logits error of the MTP layer is 0.5, allowed 0.001" in problems(found, PRECISIONS["fp32"].budget)


@contextmanager
def quietly(name: str) -> Iterator[StageClock]:
    with Display().stage(name, done=lambda clock: None) as clock:
        yield clock


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineManifest, Runner, TextTokenizer]:
    """r1-nano with eight-bit blocks, whose activations are rounded: the least difference would spread."""
    folder = tmp_path_factory.mktemp("nano")
    plan = BuildPlan(model="r1-nano", precision="int8", speculation="on")
    checkpoint = open_checkpoint("r1-nano", cache=folder)
    facts = compile_engine(plan, checkpoint, folder, quietly)
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer_json, "utf-8")
    manifest = EngineManifest(
        model="r1-nano", architecture=facts.architecture, target="cpu", precision="int8", engine=facts.engine,
        vocab_size=facts.vocab_size, cache=facts.cache, stop_token_ids=checkpoint.stop_token_ids,
        speculation=facts.speculation, limits=Limits(max_sequences=4), plan=facts.plan,
    )  # fmt: skip
    manifest.save(folder)
    assert EngineManifest.load(folder) == manifest
    return manifest, OrtRunner(manifest, folder), TextTokenizer.load(folder, manifest)


@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_r1_nano_says_the_same_with_and_without_drafts(
    nano: tuple[EngineManifest, Runner, TextTokenizer], temperature: float
) -> None:
    manifest, runner, tokenizer = nano
    count = 20 if temperature == 0 else 6
    asked = [f"<｜User｜>What is {31 * n + 17} {'+-*'[n % 3]} {7 * n + 12}?<｜Assistant｜><think>\n" for n in range(count)]
    params = SamplingParams(max_tokens=70, temperature=temperature, logprobs=0)
    requests = [
        Request(key=n, prompt=tuple(tokenizer.encode(text)), params=dataclasses.replace(params, seed=n))
        for n, text in enumerate(asked)
    ]

    def answers(speculator: Speculator | None) -> tuple[list[list[Any]], int, int]:
        engine = step_loop(manifest, runner, tokenizer.token_bytes(), clock=lambda: 0.0, drafts=speculator or Eager(1, 0, ()))
        if speculator is not None:
            made.append(engine)
        for request in requests:
            engine.submit(request)
        said: list[list[Any]] = [[] for _ in requests]
        drafted = accepted = 0
        while engine.has_work:
            for event in engine.step():
                assert not isinstance(event.item, Exception), event.item
                said[event.key] += event.item.logprobs
                drafted, accepted = drafted + event.item.drafted, accepted + event.item.accepted
        return said, drafted, accepted

    assert runner.mtp is not None and manifest.speculation is not None
    made: list[StepLoop] = []
    plain, none, _ = answers(None)
    for drafters in ([MtpDrafter(runner.mtp, lambda *of: made[-1].sampler.guess(*of))], [LookupDrafter()]):
        said, drafted, accepted = answers(Eager(manifest.speculation.tokens, manifest.limits.max_length, drafters))
        assert said == plain, "other tokens, or other log probabilities of them"
        assert none == 0 and drafted > 100
        if isinstance(drafters[0], MtpDrafter):
            assert accepted > 0.9 * drafted, f"{accepted} of {drafted}"
