"""The simulated scheduler keeps the laws that the real one keeps. Run: pytest tests/builder/planning/test_simulate.py"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fakes.planned import planned
from fakes.runtime import scheduler_of
from triune_builder.errors import BuildError
from triune_builder.planning.calibration import TRIUNE
from triune_builder.planning.replica import Limits, Pace, Served, serve
from triune_builder.planning.roofline import Roofline
from triune_builder.planning.simulate import dispatch, needed, pace_of, parse_slo, simulate
from triune_builder.planning.traffic import Traffic, read_traffic
from triune_runtime.manifest import Limits as Manifest
from triune_runtime.request import Request, SamplingParams

CHUNK, SEQUENCES = 64, 8
PACE = Pace(
    linear=[1e-3 + 1e-5 * n for n in range(CHUNK + SEQUENCES + 1)], overhead=[1e-3] * (SEQUENCES + 1), context=1e-6, pair=1e-8
)
REQUESTS = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=40)
LAWS = settings(deadline=None, max_examples=60)
ROOMS = st.sampled_from([260, 400, 1000, 100_000])  # tokens; the longest request has 260


def limits(kv_tokens: int = 100_000, sequences: int = SEQUENCES) -> Limits:
    return Limits(sequences=sequences, step_tokens=CHUNK, chunk=CHUNK, kv_tokens=kv_tokens)


def traffic(requests: list[tuple[float, int, int]]) -> Traffic:
    ordered = sorted(requests)
    return Traffic(*(np.array(column) for column in zip(*ordered, strict=True)))


def run(requests: list[tuple[float, int, int]], bounds: Limits) -> tuple[Traffic, Served]:
    load = traffic(requests)
    return load, serve(load.arrival.tolist(), load.prompt.tolist(), load.output.tolist(), PACE, bounds)


@LAWS
@given(REQUESTS, ROOMS, st.integers(1, SEQUENCES))
def test_every_token_comes_once_whatever_memory_there_is(
    requests: list[tuple[float, int, int]], room: int, sequences: int
) -> None:
    load, served = run(requests, limits(room, sequences))
    assert sum(served.counts) == int(load.output.sum()) - len(load)


@LAWS
@given(REQUESTS, ROOMS)
def test_nothing_comes_before_it_can(requests: list[tuple[float, int, int]], room: int) -> None:
    load, served = run(requests, limits(room))
    quickest = PACE.linear[1] + PACE.overhead[0]
    for at, first, last, output in zip(load.arrival, served.first, served.last, load.output, strict=True):
        assert first >= at + quickest
        assert last >= first + (output - 1) * quickest * 0.999
    assert min(served.gaps, default=1.0) > 0
    assert served.busy <= max(served.last) - load.arrival[0] + 1e-9


@LAWS
@given(REQUESTS)
def test_prompts_start_to_answer_in_the_order_they_came(requests: list[tuple[float, int, int]]) -> None:
    _, served = run(requests, limits())
    assert served.first == sorted(served.first)


@LAWS
@given(REQUESTS)
def test_gaps_add_up_to_the_time_between_first_and_last_token(requests: list[tuple[float, int, int]]) -> None:
    _, served = run(requests, limits())
    spans = sum(last - first for first, last in zip(served.first, served.last, strict=True))
    assert sum(g * n for g, n in zip(served.gaps, served.counts, strict=True)) == pytest.approx(spans)


@LAWS
@given(REQUESTS, st.integers(1, 6))
def test_more_replicas_never_make_anybody_wait_longer(requests: list[tuple[float, int, int]], replicas: int) -> None:
    load, bounds = traffic(requests), limits(sequences=1)
    waits = []
    for count in (replicas, replicas + 1):
        chosen, first = dispatch(load, count, PACE, bounds), np.empty(len(load))
        for number in range(count):
            mine = np.flatnonzero(chosen == number)
            part = [column[mine].tolist() for column in (load.arrival, load.prompt, load.output)]
            first[mine] = serve(part[0], part[1], part[2], PACE, bounds).first if len(mine) else []
        waits.append(first)
    assert (waits[1] <= waits[0] + 1e-9).all()


def test_one_alone_takes_what_its_steps_take() -> None:
    _, served = run([(1.0, 100, 5)], limits())
    prompt = PACE.linear[64] + PACE.linear[36] + 2 * PACE.overhead[0] + PACE.pair * (64 * 32 + 36 * (64 + 18))
    assert served.first == [pytest.approx(1 + prompt)]
    rounds = sum(PACE.linear[1] + PACE.overhead[1] + PACE.context * (100 + n) for n in range(4))
    assert served.last == [pytest.approx(1 + prompt + rounds)]


def test_each_part_of_a_prompt_takes_what_one_takes() -> None:
    slow = replace(PACE, prompt=0.5)
    whole, cut = (serve([0.0], [length], [1], slow, limits()).first[0] for length in (CHUNK, CHUNK + 1))
    plain = [serve([0.0], [length], [1], PACE, limits()).first[0] for length in (CHUNK, CHUNK + 1)]
    assert whole - plain[0] == pytest.approx(0.5) and cut - plain[1] == pytest.approx(1.0)
    assert serve([0.0, 0.0], [9, 9], [1, 1], slow, limits()).first[1] == pytest.approx(
        1.0 + serve([0.0, 0.0], [9, 9], [1, 1], PACE, limits()).first[1]
    )


def test_the_youngest_gives_its_memory_back_and_still_ends() -> None:
    _, served = run([(0.0, 100, 60), (0.0, 100, 60), (0.0, 60, 60)], limits(330))
    assert served.sent_back and served.last[0] < served.last[2]


def test_who_was_sent_back_leaves_nothing_behind() -> None:
    crowd = [(0.0, 100, 60), (0.0, 100, 60), (0.0, 60, 60), (0.01, 90, 60)]
    _, served = run([*crowd, (1000.0, 100, 60)], limits(330))
    _, alone = run([(1000.0, 100, 60)], limits(330))
    assert served.sent_back and (served.first[-1], served.last[-1]) == (alone.first[0], pytest.approx(alone.last[0], abs=1e-9))


def test_decoding_stands_still_while_more_are_about_to_start() -> None:
    requests = [(0.0, 10, 60)] + [(0.02, 64, 3)] * 6
    _, served = run(requests, limits())
    step = PACE.linear[64] + PACE.overhead[0]
    assert max(served.gaps) > 2 * step  # two steps of prompts at least between two of its tokens


@LAWS
@given(REQUESTS, st.integers(1, SEQUENCES))
def test_requests_are_served_as_the_runtimes_scheduler_serves_them(
    requests: list[tuple[float, int, int]], sequences: int
) -> None:
    pace = Pace(linear=PACE.linear, overhead=[1e-3 * (1 + n / 7) for n in range(SEQUENCES + 1)], context=0.0, pair=0.0)
    load, bounds = traffic(requests), limits(sequences=sequences)
    served = serve(load.arrival.tolist(), load.prompt.tolist(), load.output.tolist(), pace, bounds)
    first, last, closed_gaps = scheduled(load, pace, bounds)
    assume(not closed_gaps)
    assert served.first == pytest.approx(first, abs=1e-9) and served.last == pytest.approx(last, abs=1e-9)


def scheduled(load: Traffic, pace: Pace, bounds: Limits) -> tuple[list[float], list[float], bool]:
    """When each request gets its first and last token from the runtime's own scheduler, if its steps took that long.

    And whether decoding sequences could not stand still because a slot between them was free, of which the model knows nothing.
    """
    scheduler = scheduler_of(
        Manifest(max_sequences=bounds.sequences, prefill_chunk=bounds.chunk, max_length=300, max_queue=len(load))
    )
    arrival, now, coming = load.arrival.tolist(), 0.0, 0
    first, last, closed_gaps = dict[int, float](), dict[int, float](), False
    while coming < len(arrival) or scheduler.queued or scheduler.running:
        if not (scheduler.queued or scheduler.running):
            now = max(now, arrival[coming])
        while coming < len(arrival) and arrival[coming] <= now:
            prompt = tuple(range(1000 * coming, 1000 * coming + int(load.prompt[coming])))  # none begins like another
            params = SamplingParams(max_tokens=int(load.output[coming]))
            scheduler.add(Request(key=coming, prompt=prompt, params=params))
            coming += 1
        closed_gaps |= bool(scheduler.decoding and (scheduler.prefilling or scheduler.waiting) and scheduler._has_gaps)
        step = scheduler.plan()
        decodes = sum(part.start >= len(part.sequence.request.prompt) for part in step.slices)
        now += pace.linear[sum(part.length for part in step.slices)] + pace.overhead[decodes]
        scheduler.commit(step, {part.sequence.key: [7] for part in step.slices if part.samples})
        for sequence in scheduler.running:
            if sequence.generated:
                first.setdefault(sequence.key, now)
            if sequence.generated >= sequence.max_tokens:
                last[sequence.key] = now
                scheduler.remove(sequence)
    return [first[n] for n in range(len(arrival))], [last[n] for n in range(len(arrival))], closed_gaps


def test_objectives_hold_for_those_who_keep_them() -> None:
    load = traffic([(float(n), 64, 4) for n in range(10)])
    easy, hard = (simulate(load, 1, PACE, limits(), {"first_token": s}) for s in (1.0, 1e-6))
    assert easy.kept == 1 and hard.kept == 0 and hard.goodput == 0
    assert easy.goodput == pytest.approx(10 / easy.seconds) and easy.tokens == 40


def test_the_fewest_replicas_are_found() -> None:
    load = read_traffic("poisson:200,60,20", requests=400, seed=3)
    objectives = {"first_token": 0.2}
    found = needed(load, PACE, limits(), objectives)
    assert found is not None and found > 1
    enough, fewer = (simulate(load, count, PACE, limits(), objectives) for count in (found, found - 1))
    assert enough.kept >= 0.99 > fewer.kept
    assert needed(load, PACE, limits(), objectives, group=4) == -(-found // 4) * 4
    assert needed(load, PACE, limits(), {"first_token": 1e-9}) is None


def test_a_plans_pace_is_its_rooflines() -> None:
    line = Roofline(planned("r1-distill-qwen-1.5b"), TRIUNE)
    pace = pace_of(line, Limits(sequences=16, step_tokens=512, chunk=512, kv_tokens=1 << 20))
    for batch in (1, 8, 9, 16):
        expected = pace.linear[batch] + pace.overhead[batch] + pace.context * batch * 700
        assert line.decode(batch, 700) == pytest.approx(expected, rel=0.01)
    prompt = pace.linear[512] + pace.overhead[0] + pace.pair * 512 * 256
    assert line.step(0, 0, 512, 512 * 256) == pytest.approx(prompt, rel=0.01)


def test_traces_are_read_in_both_forms(tmp_path: Path) -> None:
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    rows = [{"arrival": 1.5, "prompt": 10, "output": 3}, {"arrival": 0.5, "prompt": 20, "output": 1}]
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    table.write_text("arrival,prompt,output\n1.5,10,3\n0.5,20,1\n")
    loads = tmp_path / "b.csv"  # as `triune load --trace` takes it
    loads.write_text("at,input_tokens,output_tokens\n1.5,10,3\n0.5,20,1\n")
    for path in (lines, table, loads):
        found = read_traffic(str(path), requests=100, seed=0)
        assert found.arrival.tolist() == [0.5, 1.5] and found.prompt.tolist() == [20, 10] and found.output.tolist() == [1, 3]


def test_the_same_seed_draws_the_same_requests() -> None:
    one, same, other = (read_traffic("poisson:10,100,50", requests=2000, seed=seed) for seed in (1, 1, 2))
    assert (one.arrival == same.arrival).all() and (one.prompt != other.prompt).any()
    assert one.rate == pytest.approx(10, rel=0.1) and one.prompt.mean() == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("said", ["poisson:4", "poisson:0,10,10", "poisson:1,0,1", "/no/such/file", "poisson:a,b,c"])
def test_traffic_that_is_none_is_told(said: str) -> None:
    with pytest.raises(BuildError, match="--simulate") as error:
        read_traffic(said, requests=10, seed=0)
    assert "poisson:4,1000,300" in (error.value.hint or "")


@pytest.mark.parametrize(
    "text",
    ["arrival,prompt\n1,2\n", "arrival,prompt,output\n1,2,x\n", '{"arrival": 1}', "", "arrival,prompt,output\n1,0,1\n"],
)
def test_a_trace_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(BuildError, match="trace"):
        read_traffic(str(tmp_path / "trace"), requests=10, seed=0)


def test_objectives_are_read_as_the_load_test_reads_them() -> None:
    assert parse_slo("first_token=2s, between=50ms") == {"first_token": 2.0, "between": 0.05}
    for wrong in ("first=2s", "between=50", "between=-1s", "", "between=s"):
        with pytest.raises(BuildError, match="--slo"):
            parse_slo(wrong)


def test_a_request_that_fits_nowhere_is_told() -> None:
    with pytest.raises(BuildError, match="KV memory for 50"):
        simulate(traffic([(0.0, 60, 4)]), 1, PACE, limits(50))
