"""Run: pytest tests/builder/test_verify.py; engines are stood in for by a token-by-token model in float64."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import tiny_deepseek
from fakes.tiny_llama import FakeTensor, TinyRunner, tiny_checkpoint
from triune_builder.errors import BuildError
from triune_builder.targets.cpu.precisions import PRECISIONS
from triune_builder.verify.budget import Budget
from triune_builder.verify.comparison import text_losses
from triune_builder.verify.measure import Evidence, Sizes, answer_prompts, cut, difference, log_softmax, read_windows
from triune_builder.verify.reference import observe_inputs
from triune_builder.verify.report import BuildReport, Source, StageRun, WeightChange, verification_from
from triune_builder.verify.verification import Disagreement, TextLoss, Verification, problems
from triune_builder.verify.verify import verify
from triune_runtime.manifest import Limits

SIZES = Sizes(text=60, window=16, kept=12, answer=6)
LIMITS = Limits(max_sequences=5, max_length=64, prefill_chunk=8)


def measured(faults: dict[str, float], limits: Limits = LIMITS) -> Verification:
    checkpoint = tiny_checkpoint()
    runner = TinyRunner(checkpoint.config, checkpoint.weights, faults)
    return verify(runner, limits, checkpoint, sizes=SIZES)


@pytest.fixture(scope="module")
def good() -> Verification:
    return measured({})


def test_a_right_engine_is_within_the_float_budget(good: Verification) -> None:
    assert problems(good, PRECISIONS["fp32"].budget) == []
    assert good.text_tokens == 60
    assert good.greedy_tokens == good.prompts * 6
    assert good.batch_error == good.repeat_error == good.chunk_error == 0.0
    assert good.decode.maximum < 1e-5
    assert good.prefill.positions > good.prompts  # the prompts' ends, and the ends of chunks


@pytest.mark.parametrize(
    ("fault", "size", "says"),
    [
        ("noise", 0.5, "logits error when decoding"),
        ("noise", 0.5, "logits error of prefill"),
        ("noise", 2.0, "perplexity"),
        ("noise", 2.0, "greedy agreement"),
        ("mates", 1e-4, "alone and in a batch"),
        ("dirty", 1e-6, "among other work"),
        ("chunks", 1e-2, "ways of cutting"),
        ("nan", 1.0, "perplexity"),
        ("nan", 1.0, "KL divergence"),
        ("nan", 1.0, "logits error when decoding"),
        ("nan", 1.0, "alone and in a batch"),
    ],
)
def test_a_wrong_engine_is_over_the_budget(fault: str, size: float, says: str) -> None:
    assert any(says in problem for problem in problems(measured({fault: size}), PRECISIONS["fp32"].budget))


def test_a_row_whose_experts_are_others_in_a_batch_is_no_fault_where_rows_may_differ(good: Verification) -> None:
    exact, rough = (dataclasses.replace(PRECISIONS["fp32"].budget, batch_error=limit) for limit in (0.0, 0.05))
    dense = dataclasses.replace(good, batch_error=0.3)
    flipped = dataclasses.replace(dense, batch_median=1e-3)
    wrong = dataclasses.replace(dense, batch_median=0.2)
    said = {found: [bool(problems(found, budget)) for budget in (exact, rough)] for found in (dense, flipped, wrong)}
    assert said == {dense: [True, True], flipped: [True, False], wrong: [True, True]}
    assert verification_from(dataclasses.asdict(flipped)) == flipped


def test_of_a_model_with_experts_the_median_row_is_told() -> None:
    checkpoint = tiny_deepseek.tiny_checkpoint(seed=1)
    runner = TinyRunner(tiny_checkpoint().config, tiny_checkpoint().weights, {"mates": 1e-4})
    checkpoint.config["vocab_size"] = runner.vocab_size
    found = verify(runner, LIMITS, checkpoint, sizes=SIZES)
    assert found.batch_median is not None and 0 < found.batch_median <= (found.batch_error or 0.0)


def test_a_weight_that_is_off_shows_in_the_figures() -> None:
    checkpoint = tiny_checkpoint()
    bent = dict(checkpoint.weights)
    name = "model.layers.1.mlp.down_proj.weight"
    bent[name] = dataclasses.replace(bent[name], array=bent[name].array * np.float32(1.02))
    found = verify(TinyRunner(checkpoint.config, bent), LIMITS, checkpoint, sizes=SIZES)
    assert found.decode.maximum > 1e-3
    assert found.batch_error == 0.0
    assert any("logits error" in problem for problem in problems(found, PRECISIONS["fp32"].budget))


@pytest.mark.parametrize("limits", [
    Limits(max_sequences=1, max_length=24, prefill_chunk=1),
    Limits(max_sequences=64, max_length=32, prefill_chunk=100),
    Limits(max_sequences=2, max_length=17, prefill_chunk=3),
])  # fmt: skip
def test_any_limits_can_be_verified(limits: Limits) -> None:
    assert problems(measured({}, limits), PRECISIONS["fp32"].budget) == []


def test_engine_and_checkpoint_must_have_one_vocabulary() -> None:
    runner = TinyRunner(*(lambda c: (c.config, c.weights))(tiny_checkpoint(vocab_size=300)))
    with pytest.raises(BuildError, match="300 logits, the checkpoint 256"):
        verify(runner, LIMITS, tiny_checkpoint(), sizes=SIZES)


def test_perplexity_of_the_engine_is_that_of_its_logits() -> None:
    checkpoint = tiny_checkpoint()
    tokens = np.random.default_rng(1).integers(0, 256, 41).tolist()
    windows = read_windows(TinyRunner(checkpoint.config, checkpoint.weights), LIMITS, [("a", tokens)], SIZES)
    assert [len(w.tokens) for w in windows] == [16, 16, 8]
    runner = TinyRunner(checkpoint.config, checkpoint.weights)
    losses = []
    for start in (0, 16, 32):
        past: list[Any] = []
        for i in range(start, min(start + 16, 40)):
            row = runner.step(past, tokens[i])
            losses.append(math.log(sum(math.exp(v) for v in row)) - row[tokens[i + 1]])
    assert sum(loss for w in windows for loss in w.losses) == pytest.approx(sum(losses), rel=1e-6)


@pytest.mark.parametrize("scale", [300.0, 3000.0])
def test_an_engine_is_judged_where_logits_are_thousands(scale: float) -> None:
    checkpoint = tiny_checkpoint(tie_word_embeddings=False)
    head = checkpoint.weights["lm_head.weight"]
    weights = dict(checkpoint.weights) | {"lm_head.weight": dataclasses.replace(head, array=head.array * np.float32(scale))}
    large = dataclasses.replace(checkpoint, weights=weights)
    found = verify(TinyRunner(large.config, weights), LIMITS, large, sizes=SIZES)
    assert found.whole_text.reference > 700 and found.perplexity_reference == math.inf
    assert found.perplexity_ratio == pytest.approx(1, abs=1e-2)
    assert not any("perplexity" in problem for problem in problems(found, PRECISIONS["fp32"].budget))
    first, *others = found.texts
    worse = dataclasses.replace(found, texts=tuple(dataclasses.replace(t, engine=t.engine * 1.0001) for t in found.texts))
    assert any("perplexity" in problem for problem in problems(worse, PRECISIONS["fp32"].budget))
    lost = dataclasses.replace(found, texts=(dataclasses.replace(first, engine=math.nan), *others))
    assert any("perplexity over the reference's is nan" in problem for problem in problems(lost, PRECISIONS["fp32"].budget))
    assert verification_from(json.loads(json.dumps(dataclasses.asdict(found)))) == found


@pytest.mark.parametrize("precision", ["w8a8", "int8"])
def test_a_kind_of_text_over_its_budget_is_named_though_all_together_are_within(good: Verification, precision: str) -> None:
    kinds = ("english", "chinese", "code", "data")
    texts = [TextLoss(name=kind, tokens=250, reference=3.0, engine=3.0 + math.log(1.029)) for kind in kinds]
    within = dataclasses.replace(good, texts=tuple(texts))
    over = dataclasses.replace(within, texts=(*texts[1:], TextLoss(name="odd", tokens=250, reference=3.0, engine=3.032)))
    found = [problems(each, PRECISIONS[precision].budget) for each in (within, over)]
    assert found == [[], ["perplexity of odd texts over the reference's, beyond chance, is 1.032, allowed 1.03"]]


@pytest.mark.parametrize(
    ("nats", "standard_error", "is_over"),
    [(0.032, 0.0, True), (0.032, 0.008, False), (0.06, 0.008, True), (0.06, 1.0, True), (0.045, 1.0, False)],
    ids=["chance has no part", "chance may explain it", "more than chance explains", "far off, however scattered", "near"],
)
def test_a_kind_of_text_is_not_refused_for_what_chance_may_explain(
    good: Verification, nats: float, standard_error: float, is_over: bool
) -> None:
    odd = TextLoss(name="odd", tokens=250, reference=3.0, engine=3.0 + nats, standard_error=standard_error)
    others = (TextLoss(name=name, tokens=500, reference=3.0, engine=3.0) for name in ("code", "english"))
    assert bool(problems(dataclasses.replace(good, texts=(*others, odd)), PRECISIONS["w8a8"].budget)) == is_over


def test_the_standard_error_of_a_text_is_that_of_its_tokens() -> None:
    generator = np.random.default_rng(7)
    engine, expected = generator.normal(3.0, 1.0, (2, 300))
    halves = [Evidence(tokens=(1,), name="a", losses=list(part)) for part in (engine[:100], engine[100:])]
    losses = {id(half): list(part) for half, part in zip(halves, (expected[:100], expected[100:]), strict=True)}
    found = text_losses(halves, losses)[0]
    drawn = generator.choice(engine - expected, (4000, 300)).mean(-1)  # what other texts of the same kind would have shown
    assert found.standard_error == pytest.approx(drawn.std(), rel=0.1)


def test_greedy_answers_are_the_argmax_of_each_step() -> None:
    checkpoint = tiny_checkpoint()
    prompts = [[1, 2, 3], [200] * 9, [5]]
    runner = TinyRunner(checkpoint.config, checkpoint.weights)
    for prompt, answer in zip(prompts, answer_prompts(runner, LIMITS, prompts, SIZES), strict=True):
        past: list[Any] = []
        row = [runner.step(past, t) for t in prompt][-1]
        expected = []
        for _ in range(SIZES.answer):
            expected.append(int(row.argmax()))
            row = runner.step(past, expected[-1])
        assert list(answer.chosen.values()) == expected
        assert answer.tokens == (*prompt, *expected[:-1])


def test_ties_count_as_agreement_only_when_told(good: Verification) -> None:
    close = Disagreement(prompt=0, position=3, engine=1, reference=2, margin=0.0001, lead=1e-5)
    far = dataclasses.replace(close, lead=0.1)
    found = dataclasses.replace(good, disagreements=(close, far), greedy_tokens=100)
    assert found.agreement() == pytest.approx(0.98)
    assert found.agreement(tie=1e-4) == pytest.approx(0.99)
    assert dataclasses.replace(found, disagreements=(dataclasses.replace(close, lead=math.nan),)).agreement(1.0) < 1


def test_difference_is_zero_only_for_equal_bits() -> None:
    one = np.array([1.0, 2.0], np.float32)
    assert difference(one, one.copy()) == 0.0
    assert difference(one, np.nextafter(one, 9, dtype=np.float32)) > 0.0
    assert difference(one * np.float32(np.nan), one) == math.inf


def test_log_softmax_holds_for_large_logits() -> None:
    rows = np.array([[1e4, 0.0], [3.0, 3.0]], np.float32)
    np.testing.assert_allclose(np.exp(log_softmax(rows)), [[1, 0], [0.5, 0.5]], atol=1e-12)


def test_cut_covers_every_token_once() -> None:
    assert list(cut((1, 2, 3, 4, 5), 2)) == [(0, (1, 2)), (2, (3, 4)), (4, (5,))]


def test_every_linear_of_the_checkpoint_is_observed_once() -> None:
    checkpoint, seen = tiny_checkpoint(), []

    def observe(name: str, x: np.ndarray) -> None:
        seen.append(name)
        source = "model.embed_tokens.weight" if name == "lm_head.weight" else name
        assert x.dtype == np.float64 and x.shape == (4, checkpoint.weights[source].shape[1])

    observe_inputs(checkpoint.config, checkpoint.weights, [[1, 2, 3], [4]], observe)
    assert sorted(seen) == sorted([*(n for n in checkpoint.weights if n.endswith("_proj.weight")), "lm_head.weight"])


@pytest.mark.filterwarnings("error")
def test_weights_that_are_no_numbers_are_observed_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, seen = tiny_checkpoint(), []
    monkeypatch.setattr(FakeTensor, "float32", lambda self: np.full(self.shape, np.inf, np.float32))
    observe_inputs(checkpoint.config, checkpoint.weights, [[1, 2, 3]], lambda name, x: seen.append(bool(np.isfinite(x).all())))
    assert seen and not any(seen)


@pytest.fixture
def report(good: Verification) -> BuildReport:
    return BuildReport(
        model="tiny",
        target="cpu",
        precision="int8",
        inputs_hash="ab" * 32,
        sources=(Source(name="model.gguf", bytes=12345, sha256="cd" * 32),),
        tools={"onnx": "1.2.3"},
        stages=(StageRun(name="quantize", seconds=1.25, peak_bytes=512_000_000, reused=True),),
        changes=(
            WeightChange(name="a", scheme="blocks8", bytes_before=4000, bytes_after=1125, error=0.01, note="carried exactly"),
            WeightChange(name="b", scheme="blocks8", bytes_before=4000, bytes_after=1125, error=0.03, note="carried exactly"),
            WeightChange(name="c", scheme="w8a8", bytes_before=4000, bytes_after=1004, error=None),
        ),
        verification=good,
        budget=PRECISIONS["int8"].budget,
    )


def test_a_report_comes_back_from_its_json(report: BuildReport, tmp_path: Path) -> None:
    report.write(tmp_path)
    assert BuildReport.read(tmp_path) == report


def test_a_report_with_figures_that_are_no_numbers_is_still_json(report: BuildReport, tmp_path: Path) -> None:
    broken = dataclasses.replace(report, verification=measured({"nan": 1.0}))
    broken.write(tmp_path)
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert BuildReport.read(tmp_path).problems
    assert "OVER ITS BUDGET" in (tmp_path / "report.txt").read_text()


def test_the_table_tells_what_was_measured(report: BuildReport) -> None:
    text = report.text()
    for piece in ("within its budget", "the same bits", "carried exactly", "3.00e-02", "2.00e-02", "8 KB -> 2 KB", "reused",
                  "512 MB", "model.gguf", "cd" * 32, "1.2.3"):  # fmt: skip
        assert piece in text.replace("\n", ""), piece


def test_a_report_of_another_shape_is_refused(report: BuildReport, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no report\.json"):
        BuildReport.read(tmp_path)
    report.write(tmp_path)
    raw = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(raw | {"sauces": 1}))
    with pytest.raises(BuildError, match="cannot be read"):
        BuildReport.read(tmp_path)


def test_an_unlimited_figure_is_never_over_the_budget(good: Verification) -> None:
    wild = dataclasses.replace(good, chunk_error=9.0)
    assert problems(wild, Budget(greedy_agreement=0.5, perplexity_ratio=1.03)) == []
