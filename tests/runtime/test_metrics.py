"""Run: pytest tests/runtime/test_metrics.py"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.runtime import STOPS, VOCAB, make_engine
from triune_runtime.errors import Overloaded, RequestError
from triune_runtime.generation.loop import StepLoop
from triune_runtime.kv.store import KvUsage
from triune_runtime.metrics import FAMILIES, Family, Metrics, Snapshot, Update
from triune_runtime.request import Request, SamplingParams
from triune_runtime.runner import Work
from triune_runtime.targets.fake.runner import FakeRunner


def values(updates: list[Update], family: str) -> dict[str, float]:
    """Label value -> value, "" where the family has no label."""
    return {u.labels[0][1] if u.labels else "": u.value for u in updates if u.family == family}


def seen(updates: list[Update], family: str) -> tuple[float, ...]:
    return tuple(value for u in updates if u.family == family for value in u.observations)


class Clock:
    """Seconds that pass only in a runner's step."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowRunner(FakeRunner):
    """Every run takes a second."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(VOCAB, STOPS)
        self._clock = clock

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        self._clock.now += 1
        return super().run(work)


@pytest.fixture
def engine() -> StepLoop:
    clock = Clock()
    return make_engine(SlowRunner(clock), clock=clock, max_sequences=1, prefill_chunk=4, max_length=40, max_queue=2)


def request(key: int, prompt: int = 1, max_tokens: int = 1, deadline: float | None = None) -> Request:
    return Request(
        key=key,
        prompt=(3,) * prompt,
        params=SamplingParams(max_tokens=max_tokens, ignore_eos=True),
        deadline=deadline,
    )


def run_out(engine: StepLoop) -> None:
    while engine.has_work:
        engine.step()


def test_times_of_a_request_add_up(engine: StepLoop) -> None:
    engine.submit(request(0, prompt=1, max_tokens=2))  # steps 1 and 2
    engine.submit(request(1, prompt=6, max_tokens=4))  # waits for them; prompt in 3 and 4, tokens at 4, 5, 6, 7
    run_out(engine)
    updates = engine.metrics.drain()
    assert seen(updates, "vllm:request_queue_time_seconds") == (0.0, 2.0)
    assert seen(updates, "vllm:time_to_first_token_seconds") == (1.0, 4.0)
    assert seen(updates, "vllm:request_prefill_time_seconds") == (1.0, 2.0)
    assert seen(updates, "vllm:request_decode_time_seconds") == (1.0, 3.0)
    assert seen(updates, "vllm:e2e_request_latency_seconds") == (2.0, 7.0)
    for name in ("time_per_output_token", "request_time_per_output_token"):
        assert seen(updates, f"vllm:{name}_seconds") == (1.0, 1.0)
    assert values(updates, "vllm:prompt_tokens_total") == {"": 7}
    assert values(updates, "vllm:generation_tokens_total") == {"": 6}
    assert values(updates, "vllm:request_success_total") == {"stop": 0, "length": 2, "abort": 0, "error": 0}


def test_every_gap_between_tokens_is_observed_not_their_mean() -> None:
    clock = Clock()
    runner = SlowRunner(clock)
    engine = make_engine(runner, clock=clock, max_sequences=1, prefill_chunk=4, max_length=40, max_queue=2)
    engine.submit(request(0, max_tokens=4))
    engine.step()
    for wait_s in (0.0, 4.0, 1.0):
        clock.now += wait_s  # beside the second that every step takes
        engine.step()
    assert seen(engine.metrics.drain(), "vllm:inter_token_latency_seconds") == (1.0, 5.0, 2.0)


def test_many_gaps_are_handed_on_as_an_even_sample() -> None:
    metrics = Metrics(Snapshot(slots=1, kv=KvUsage(blocks=1, used=0, block_tokens=1)))
    for number in range(1999):
        metrics.next_token(float(number))
    found = seen(metrics.drain(), "vllm:inter_token_latency_seconds")
    assert found == tuple(map(float, range(0, 1999, 4)))
    assert seen(metrics.drain(), "vllm:inter_token_latency_seconds") == ()


def test_an_answer_of_one_token_has_no_time_between_tokens(engine: StepLoop) -> None:
    engine.submit(request(0))
    run_out(engine)
    assert seen(engine.metrics.drain(), "vllm:inter_token_latency_seconds") == ()


def test_aborted_and_refused_requests_are_counted_by_reason(engine: StepLoop) -> None:
    for key in range(2):
        engine.submit(request(key, max_tokens=30, deadline=101.5 if key else None))
    with pytest.raises(Overloaded):
        engine.submit(request(2))
    with pytest.raises(RequestError):
        engine.submit(request(3, prompt=99))
    engine.step()
    engine.step()
    engine.abort(0)
    run_out(engine)
    updates = engine.metrics.drain()
    assert values(updates, "triune_requests_aborted_total") == {"cancelled": 1, "deadline": 1, "error": 0}
    assert values(updates, "vllm:request_success_total")["abort"] == 2
    assert values(updates, "triune_requests_refused_total") == {"overloaded": 1, "invalid": 1}


def test_gauges_show_slots_and_tokens() -> None:
    metrics = Metrics(Snapshot(slots=4, kv=KvUsage(blocks=4, used=0, block_tokens=100)))
    metrics.gauges(
        Snapshot(decoding=2, prefilling=1, waiting=7, tokens=80, slots=4, kv=KvUsage(blocks=4, used=3, block_tokens=100))
    )
    updates = metrics.drain()
    assert values(updates, "vllm:num_requests_running") == {"": 3}
    assert values(updates, "vllm:num_requests_waiting") == {"": 7}
    assert values(updates, "vllm:kv_cache_usage_perc") == {"": 0.2}
    assert values(updates, "triune_kv_cache_tokens") == {"used": 80, "free": 320, "max": 400}
    requests = {"waiting": 7, "context": 1, "scheduled": 3, "active": 10, "max": 4}
    assert values(updates, "nv_trt_llm_request_metrics") == requests
    blocks = {"used": 3, "free": 1, "max": 4, "tokens_per": 100, "fraction": 0.75}
    assert values(updates, "nv_trt_llm_kv_cache_block_metrics") == blocks


def test_the_first_drain_names_every_series_and_the_next_only_what_changed() -> None:
    metrics = Metrics(Snapshot(slots=1, kv=KvUsage(blocks=1, used=0, block_tokens=1)))
    first = {(u.family, u.labels) for u in metrics.drain()}
    for family in FAMILIES.values():
        if family.kind != "histogram":
            for label in [((family.label, v),) for v in family.values] if family.label else [()]:
                assert (family.name, label) in first
    metrics.prompt(3)
    metrics.prompt(4)
    metrics.freed(0.5)
    changed = [u for u in metrics.drain() if FAMILIES[u.family].kind != "gauge"]
    assert changed == [
        Update("vllm:prompt_tokens_total", (), 7),
        Update("triune_abort_to_free_seconds", (), observations=(0.5,)),
    ]
    assert all(FAMILIES[u.family].kind == "gauge" for u in metrics.drain())


def test_undrained_observations_take_bounded_memory() -> None:
    metrics = Metrics(Snapshot(slots=1, kv=KvUsage(blocks=1, used=0, block_tokens=1)))
    for value in range(20_000):
        metrics.freed(value)
    kept = seen(metrics.drain(), "triune_abort_to_free_seconds")
    assert len(kept) == 10_000 and kept[-1] == 19_999


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
def test_families_are_well_formed(family: Family) -> None:
    assert re.fullmatch(r"[a-z_:][a-z0-9_:]*", family.name) and family.help
    assert (family.kind == "histogram") == bool(family.buckets)
    assert list(family.buckets) == sorted(set(family.buckets))
    assert family.kind != "counter" or family.name.endswith("_total")
    assert bool(family.label) == bool(family.values)
