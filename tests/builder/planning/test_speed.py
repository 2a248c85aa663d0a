"""Memory and speed beside what was measured (docs/cuda-log.md). Run: pytest tests/builder/planning/test_speed.py"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fakes.planned import geometry, planned
from support.planned_points import CLOSE, LARGE, RUNS, SMALL, Run, others, tables
from triune_builder.planning.calibration import TRIUNE, VLLM
from triune_builder.planning.choosing import Load, candidates, impossible
from triune_builder.planning.hardware import GPUS, find_gpu
from triune_builder.planning.roofline import Roofline, imbalance, touched
from triune_builder.planning.rule import compare
from triune_builder.planning.splits import Split

DOCS = Path(__file__).parents[3] / "docs" / "planning.md"
# Columns that are farther off than a fifth; docs/planning.md says why.
FAR = {("h200", "vllm, two processes"): {"gap 256", "prompt"}, ("h100", ""): {"gap 64"},
       ("h100", "vllm, two processes"): {"gap 64", "gap 256", "prompt"}}  # fmt: skip


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_speed_is_within_a_fifth_of_what_was_measured(run: Run) -> None:
    known = FAR.get((run.gpu, run.note), set()) if run.engine == VLLM else set()
    assert {column for column, plan, measured in run.cells() if abs(plan / measured - 1) > CLOSE} <= known


def test_other_figures_are_within_a_fifth_too() -> None:
    for what, plan, measured in others():
        assert plan == pytest.approx(measured, rel=CLOSE), what


def test_the_tables_of_the_docs_are_the_plans() -> None:
    (shown,) = re.findall(r"<!-- compared: begin -->\n(.*?)\n<!-- compared: end -->", DOCS.read_text("utf-8"), re.DOTALL)
    assert shown.splitlines() == tables(), "PYTHONPATH=tests python -m support.planned_points prints them"


def test_memory_is_within_a_twentieth_of_what_was_measured() -> None:
    rank = planned(SMALL, sequences=256).ranks[0]
    assert (rank.fixed + 1365 * 128 * rank.kv_per_token) / 2**20 == pytest.approx(9688.8, rel=0.05)


def test_a_batch_takes_longer_than_a_smaller_one_and_makes_no_fewer_tokens() -> None:
    line = Roofline(planned("deepseek-r1", precision="fp8", tensor=8), VLLM)
    times = [line.decode(batch, 2000) for batch in (1, 2, 8, 64, 256, 1024)]
    rates = [batch / seconds for batch, seconds in zip((1, 2, 8, 64, 256, 1024), times, strict=True)]
    assert times == sorted(times) and rates == sorted(rates)


def test_more_ranks_of_a_layer_are_faster_until_sums_take_longer() -> None:
    fast, slow = (Roofline(planned(LARGE, "h200", tensor=n), VLLM).decode(1, 1000) for n in (4, 1))
    assert fast < slow
    nvlink, pcie = (Roofline(planned(LARGE, name, tensor=4), VLLM) for name in ("h100", "h100-pcie"))
    assert pcie.parts(0, 64, 64_000).collectives > nvlink.parts(0, 64, 64_000).collectives


def test_stages_wait_for_each_other_unless_there_is_a_micro_batch_for_each() -> None:
    one, two = (Roofline(planned(LARGE, pipeline=n), VLLM) for n in (1, 2))
    assert two.decode(1, 1000) >= one.decode(1, 1000)
    assert two.prefill(1000) >= one.prefill(1000)


def test_sums_grow_with_ranks_and_whole_experts_send_tokens() -> None:
    line = Roofline(planned("deepseek-r1", precision="fp8", tensor=8), VLLM)
    assert line.volume(1) == (2 * 61 * 2 * 7 / 8 * 7168 * 2, 0.0)
    spread = Roofline(planned("deepseek-r1", precision="fp8", data=8, expert=True), VLLM)
    sums, sent = spread.volume(1)
    assert sums == 0 and sent == 58 * 8 * 7168 * (1 + 2) * 7 / 8


def test_four_bits_are_widened_only_where_our_engine_does_it() -> None:
    ours, other = (Roofline(planned(SMALL, precision="int4"), engine) for engine in (TRIUNE, VLLM))
    assert ours.parts(0, 9, 0).weights > 2 * ours.parts(0, 8, 0).weights
    assert other.parts(0, 9, 0).weights == pytest.approx(other.parts(0, 8, 0).weights)


def test_links_to_each_peer_are_shared_by_those_who_talk() -> None:
    mesh, switch = GPUS["mi300x"], GPUS["h200"]
    assert [mesh.link_among(n) for n in (2, 8, 16)] == [64e9, 448e9, 448e9]
    assert switch.link_among(2) == switch.link_among(8) == 450e9


def test_how_many_experts_a_batch_touches() -> None:
    assert touched(256, 8, 1) == pytest.approx(8)
    assert 220 < touched(256, 8, 64) < 225 and touched(256, 8, 10_000) == pytest.approx(256)
    assert imbalance(64, 8, 1) == 1 and 1 < imbalance(10_000, 8, 8) < imbalance(100, 8, 8) <= 8


def test_every_way_to_split_is_judged_and_the_best_comes_first() -> None:
    found = candidates(
        lambda split: Roofline(planned("deepseek-r1", precision="fp8", tensor=split.tensor, pipeline=split.pipeline,
                                       data=split.data, expert=split.expert), VLLM),
        geometry("deepseek-r1"), 8, 1, Load(sequences=64, prompt=1024, output=1024),
    )  # fmt: skip
    rates = [one.speed.overall for one in found if one.speed]
    assert rates == sorted(rates, reverse=True) and len(rates) >= 4
    copies = next(one for one in found if one.split == Split(data=8))
    assert copies.speed is None and "of 139.8 GiB of a GPU" in copies.why
    assert len({one.split for one in found}) == len(found)


def test_gpus_that_cannot_hold_a_model_are_told_how_many_can() -> None:
    whole = planned("deepseek-r1", precision="fp8")
    (one,) = candidates(lambda split: Roofline(whole, VLLM), whole.geometry, 1, 1, Load(sequences=1, prompt=10, output=10))
    error = impossible([one], whole, 1)
    assert "1 x h200 cannot hold it" in str(error) and error.hint is not None and "--gpus 8" in error.hint


def test_the_rule_is_the_articles_and_says_why_it_differs() -> None:
    found = compare(planned("deepseek-r1", precision="fp8", tensor=8), 64, 2048)
    assert found.weights == pytest.approx(671.0264192 * 2.2) and found.kv == pytest.approx(64 * 2048 * 0.0005)
    assert found.computed < found.rule and any("copied to 8" in why for why in found.why)
    assert found.computed_kv == pytest.approx(64 * 2048 * 61 * 576 * 2 * 8 / 1e9)


def test_every_gpu_of_the_table_is_whole() -> None:
    for gpu in GPUS.values():
        assert 20 < gpu.memory < 200 and 300 <= gpu.bandwidth <= 8000 and 100 < gpu.rates["bf16"] < 3000 and gpu.power > 50
        assert gpu.rate("fp8") >= gpu.rate("bf16")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200"), ("NVIDIA L40S", "l40s"), ("RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 5090", "rtx5090"), ("NVIDIA A100-SXM4-80GB", "a100-80"), ("A100", "a100-80"), ("MI300X", "mi300x"),
    ],
)  # fmt: skip
def test_names_are_understood_as_tools_print_them(said: str, meant: str) -> None:
    assert find_gpu(said).name == meant


def test_a_gpu_that_is_not_in_the_table_is_its_numbers() -> None:
    gpu = find_gpu("b300", memory=288, bandwidth=8000, rate=2500)
    assert gpu.bytes == 288e9 and gpu.rate("fp8") == 2500e12
    assert find_gpu("h200", bandwidth=4000).bandwidth == 4000
    assert find_gpu("h200", rate=500).rate("fp8") == pytest.approx(1e15, rel=0.01)
