"""Tokens that the engine finds itself: who takes them, who does not, and what is then downloaded.

Run: pytest tests/runtime/test_best_tokens.py
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.constrained import Model
from fakes.drafts import Oracle
from fakes.hash_engine import Choose, HashRunner, hashed, highest, lowest
from fakes.host_engines import as_tensorrt
from fakes.runtime import run_out
from triune_runtime.drafting.speculator import Speculator
from triune_runtime.errors import TriuneError
from triune_runtime.manifest import FILE_NAME, EngineManifest, Limits
from triune_runtime.request import Chunk, Event, Request
from triune_runtime.runner import Best, Rows
from triune_runtime.sampling.sampler import Sampler, SamplingError
from triune_runtime.starting import step_loop
from triune_runtime.targets.device.plan import slot_plan

SEEDS = st.integers(0, 2**32)
DATE = ("regex", r"\d{4}-\d{2}")
SLOTS = 8  # as many rows as drafts have: both kinds of run then bring back blocks of one size
BLOCK = 256 + 4 * SLOTS  # bytes: tokens, and from the next aligned address on their logits


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    made = Model(tmp_path_factory.mktemp("engine"), thinks=True)
    made.manifest = dataclasses.replace(
        made.manifest, limits=Limits(max_length=128, max_sequences=SLOTS, prefill_chunk=16, max_queue=64)
    )
    return made


PLAIN: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True, "max_tokens": 12}
KINDS: list[dict[str, Any]] = [
    {},
    {},
    {"ignore_eos": False},
    {"min_tokens": 3, "ignore_eos": False},
    {"thinking_budget": 4},
    {"logprobs": 2},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5},
    {"repetition_penalty": 1.3},
    {"presence_penalty": 1.5},
    {"logit_bias": ((9, 2.0),)},
    {"bad_words": ((11,), (5, 6))},
]


def mixed(model: Model, rng: random.Random, key: int) -> Request:
    """A request of any kind; one and the same for one state of `rng`."""
    prompt = tuple(rng.randrange(2, model.manifest.vocab_size) for _ in range(rng.randint(1, 24)))
    opened = rng.random() < 0.5
    if rng.random() < 0.2:
        changes = {"thinking_budget": 4} if opened else {}
        return model.request(key, DATE, opened=opened, prompt=prompt, **(PLAIN | changes | {"max_tokens": 30}))
    return model.request(
        key, None, opened=opened, prompt=prompt, **(PLAIN | rng.choice(KINDS) | {"max_tokens": rng.randint(1, 12)})
    )


class Served(NamedTuple):
    """What became of a request."""

    tokens: list[int]  # its answer, tokens without text included
    last: Chunk | TriuneError


def serve(
    model: Model,
    runner: HashRunner,
    requests: Sequence[Request],
    speculator: Speculator | None = None,
    rng: random.Random | None = None,
) -> dict[int, Served]:
    """Serve requests, of which each may be a new one for every call; with `rng` they come one after the other."""
    engine = step_loop(model.manifest, runner.runner, model.table, clock=lambda: 0.0, drafts=speculator)
    events: list[Event] = []
    sequences = []
    for request in requests:
        model.submit(engine, request)
        sequences.append([*engine.scheduler.waiting][-1])
        while rng is not None and engine.has_work and rng.random() < 0.5:
            events += engine.step()
    events += run_out(engine)
    last = {event.key: event.item for event in events if event.last}
    return {s.key: Served(s.tokens[len(s.request.prompt) :], last[s.key]) for s in sequences}


def by_hand(request: Request, vocab_size: int, choose: Choose) -> list[int]:
    """Prompt and greedy answer, from the definition of the hash."""
    tokens = list(request.prompt)
    for _ in range(request.params.max_tokens or 0):
        tokens.append(choose(hashed(tokens, vocab_size)))
    return tokens


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_an_engine_that_finds_tokens_answers_as_one_that_does_not(model: Model, seed: int) -> None:
    count = random.Random(seed).randint(1, 12)

    def requests() -> list[Request]:  # constraints have a state, so each engine gets its own
        rng = random.Random(seed)
        return [mixed(model, rng, key) for key in range(count)]

    with_tokens, without = (
        serve(model, HashRunner.of(model.manifest, best=best), requests(), rng=random.Random(seed)) for best in (True, False)
    )
    assert with_tokens == without
    assert len(with_tokens) == count


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_which_of_equal_logits_is_taken_never_depends_on_the_company(model: Model, seed: int) -> None:
    """The engine takes the last of them, the sampler the first: a request has the one or the other, token by token."""
    count = random.Random(seed).randint(2, 12)

    def requests() -> list[Request]:
        rng = random.Random(seed)
        return [mixed(model, rng, key) for key in range(count)]

    together = serve(model, HashRunner.of(model.manifest, highest), requests(), rng=random.Random(seed))
    for request in requests():
        alone = serve(model, HashRunner.of(model.manifest, highest), [request])
        assert alone[request.key] == together[request.key], request


@pytest.mark.parametrize(
    ("changes", "choose"),
    [
        ({}, highest),
        ({"stop": ("nowhere",)}, highest),
        ({"seed": 5, "top_k": 3, "top_p": 0.5}, highest),
        ({"logprobs": 0}, lowest),
        ({"logit_bias": ((9, 0.0),)}, lowest),
        ({"min_tokens": 12}, lowest),
        ({"bad_words": ((1, 2, 3),)}, lowest),
    ],
)
def test_plain_greedy_rows_take_the_engines_token_and_all_others_the_samplers(
    model: Model, changes: dict[str, Any], choose: Choose
) -> None:
    requests = [model.request(key, None, prompt=(key + 2, 7), **(PLAIN | changes)) for key in range(6)]
    mates = [model.request(6, None, temperature=1.0, max_tokens=40), model.request(7, DATE, max_tokens=40)]
    for company in ([], mates):
        served = serve(model, HashRunner.of(model.manifest, highest), [*requests, *company])
        for request in requests:
            wanted = by_hand(request, model.manifest.vocab_size, choose)
            assert served[request.key].tokens == wanted[len(request.prompt) :]
    other = lowest if choose is highest else highest
    assert any(by_hand(r, model.manifest.vocab_size, other) != by_hand(r, model.manifest.vocab_size, choose) for r in requests)


def test_a_row_takes_the_engines_tokens_once_nothing_adjusts_it_any_more(model: Model) -> None:
    request = model.request(0, None, prompt=(3, 4), **(PLAIN | {"min_tokens": 5}))
    tokens = list(request.prompt)
    for number in range(12):
        tokens.append((lowest if number < 5 else highest)(hashed(tokens, model.manifest.vocab_size)))
    found = serve(model, HashRunner.of(model.manifest, highest), [request])
    assert found[0].tokens == tokens[2:]


@pytest.mark.parametrize("best", [True, False])
@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_drafts_change_no_token(model: Model, best: bool, seed: int) -> None:
    """Also behind drafts that close the thinking, where a constraint begins in the midst of a run."""
    rng = random.Random(seed)
    count, known, wanted = rng.randint(1, 6), {}, {}

    def request(key: int) -> Request:
        return mixed(model, random.Random(seed + key), key)

    for key in range(count):
        wanted |= serve(model, HashRunner.of(model.manifest, highest, best=best), [request(key)])
        known[key] = [*request(key).prompt, *wanted[key].tokens]
    drafted = serve(
        model,
        HashRunner.of(model.manifest, highest, best=best),
        [request(key) for key in range(count)],
        Oracle(known, rng),
        rng,
    )
    for key in range(count):
        assert drafted[key].tokens == wanted[key].tokens


def test_answers_to_one_prompt_share_a_row_that_some_read(model: Model) -> None:
    """Two greedy answers and a sampled one: of the prompt's last row the first two want the engine's token."""
    prompt = tuple(range(2, 30))
    kinds = ({}, {"temperature": 1.0}, {})
    members = [model.request(key, None, prompt=prompt, **(PLAIN | kind)) for key, kind in enumerate(kinds)]
    alone = [serve(model, HashRunner.of(model.manifest, highest), [member])[member.key] for member in members]
    engine = step_loop(model.manifest, HashRunner.of(model.manifest, highest).runner, model.table)
    engine.submit_group(members)
    sequences = [*engine.scheduler.waiting][-1].members
    run_out(engine)
    assert [s.tokens[len(prompt) :] for s in sequences] == [served.tokens for served in alone]
    assert alone[0].tokens == by_hand(members[0], model.manifest.vocab_size, highest)[len(prompt) :]


def test_an_all_greedy_step_downloads_no_logits(model: Model) -> None:
    ours = HashRunner.of(model.manifest)
    served = serve(model, ours, [model.request(key, None, prompt=tuple(range(2, 30)), **PLAIN) for key in range(SLOTS)])
    assert all(len(one.tokens) == 12 for one in served.values())
    assert ours.device.downloaded == ours.compute.calls * BLOCK


def test_a_row_that_is_read_costs_its_own_logits_and_no_others(model: Model) -> None:
    """Prompts in two chunks: of the first nothing is wanted."""
    ours = HashRunner.of(model.manifest)
    greedy = [model.request(key, None, prompt=tuple(range(2, 30)), **PLAIN) for key in range(5)]
    sampled = model.request(5, None, prompt=tuple(range(2, 30)), **(PLAIN | {"temperature": 1.0, "max_tokens": 9}))
    serve(model, ours, [*greedy[:2], sampled, *greedy[2:]])
    assert ours.device.downloaded == ours.compute.calls * BLOCK + 9 * 4 * model.manifest.vocab_size


def test_an_engine_without_tokens_downloads_all_logits(model: Model) -> None:
    ours = HashRunner.of(model.manifest, best=False)
    serve(model, ours, [model.request(0, None, prompt=(3, 4), **PLAIN)])
    assert ours.device.downloaded == 12 * 4 * model.manifest.vocab_size


@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize("logprobs", [None, 0])
def test_logits_that_are_no_numbers_end_only_their_own_sequence(model: Model, drafts: bool, logprobs: int | None) -> None:
    poison = by_hand(model.request(1, None, prompt=(3, 4), **PLAIN), model.manifest.vocab_size, lowest)[7]
    params = PLAIN | {"logprobs": logprobs}
    requests = [model.request(key, None, prompt=prompt, **params) for key, prompt in enumerate(((5, 6), (3, 4), (9,)))]
    known = {r.key: by_hand(r, model.manifest.vocab_size, lowest) for r in requests}
    assert poison not in known[0] + known[2]
    speculator = Oracle(known, random.Random(1)) if drafts else None
    served = serve(model, HashRunner.of(model.manifest, poison=poison), requests, speculator)
    assert "not numbers" in str(served[1].last)
    for key in (0, 2):
        assert served[key].tokens == known[key][len(requests[key].prompt) :]


@pytest.mark.parametrize(("token", "logit"), [(10**9, 1.0), (-1, 1.0), (3, np.inf), (3, -np.inf), (3, np.nan)])
def test_a_token_that_is_none_is_never_handed_on(model: Model, token: int, logit: float) -> None:
    sampler, logits = Sampler(40), np.zeros((2, 40), np.float32)
    for key in (0, 1):
        sampler.add(model.request(key, None, **PLAIN), frozenset())
    best = Best(np.array([7, token]), np.array([0.0, logit], np.float32))
    with pytest.raises(SamplingError) as error:
        sampler.sample([0, 1], Rows(logits, best))
    assert error.value.keys == {1}
    assert sampler.sample([0], Rows(logits, best), [0])[0][0] == 7


def test_a_plan_that_says_nothing_of_best_tokens_is_one_without(model: Model, tmp_path: Path) -> None:
    as_tensorrt(model.manifest).save(tmp_path)
    raw = json.loads((tmp_path / FILE_NAME).read_text("utf-8"))
    assert raw["plan"].pop("best_tokens") is True
    (tmp_path / FILE_NAME).write_text(json.dumps(raw), "utf-8")
    assert not slot_plan(EngineManifest.load(tmp_path)).best_tokens
