"""The whole loop over the paged runner on a device without a GPU: answers equal those of the paged fake by hand.

Run: pytest tests/runtime/test_cuda_loop.py
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.cuda_engines import HostPaged, cuda_manifest
from fakes.paged import PagedRunner
from fakes.runtime import STOPS, TOKENS, VOCAB, chunks_of, run_out, text_of
from triune_runtime.generation.groups import derived_seed
from triune_runtime.generation.loop import StepLoop
from triune_runtime.kv.blocks import BlockStore
from triune_runtime.manifest import Limits
from triune_runtime.request import Event, Request, SamplingParams
from triune_runtime.runner import Runner
from triune_runtime.sampling.sampler import Sampler
from triune_runtime.targets.cuda import TARGET

LENGTH, BLOCK = 64, 4
GREEDY = frozenset({"greedy"})
DRAWING = GREEDY | {"temperature", "top_k", "top_p", "min_p", "logit_bias", "min_tokens", "presence_penalty"}


def loop_over(runner: Runner, blocks: int, limits: Limits) -> tuple[StepLoop, BlockStore]:
    store = BlockStore(limits.max_sequences, blocks, BLOCK)
    manifest = cuda_manifest(VOCAB, limits, BLOCK, STOPS)
    loop = StepLoop(manifest, runner, TOKENS, store=store, sampler=Sampler(VOCAB), clock=lambda: 0.0)
    loop.start()
    return loop, store


def random_group(rng: random.Random, key: int, prefixes: list[tuple[int, ...]]) -> list[Request]:
    prompt = (*rng.choice(prefixes), *(rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 12))))[:30]
    params = SamplingParams(
        max_tokens=rng.choice([1, 5, 20]),
        temperature=rng.choice([0.0, 0.0, 1.0]),
        top_k=rng.choice([0, 5]),
        min_tokens=rng.choice([0, 3]),
        logit_bias=rng.choice([(), ((5, 2.0),)]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.3]),
        presence_penalty=rng.choice([0.0, 0.5]),
        stop=rng.choice([(), ("ab",)]),
        seed=rng.randrange(100),
        logprobs=rng.choice([None, None, 1]),
    )
    return [
        Request(key=key + n, prompt=prompt, params=replace(params, seed=derived_seed(params.seed, n)), stream=True)
        for n in range(rng.choice([1, 1, 1, 2, 3]))
    ]


def whole(events: list[Event], key: int) -> tuple[Any, ...]:
    chunks = chunks_of(events, key)
    entries = tuple(entry for chunk in chunks for entry in chunk.logprobs)
    return text_of(chunks), sum(c.new_tokens for c in chunks), chunks[-1].finish_reason, entries


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), chooses=st.sampled_from([None, GREEDY, DRAWING]))
def test_answers_are_those_of_the_paged_fake_whoever_chooses(seed: int, chooses: frozenset[str] | None) -> None:
    """Prefixes shared, sequences sent back, several answers to a prompt, steps in flight."""
    rng = random.Random(seed)
    slots, chunk, blocks = rng.randint(3, 8), rng.choice([1, 3, 4, 8]), rng.randint(LENGTH // BLOCK, 40)
    limits = Limits(max_sequences=slots, max_length=LENGTH, prefill_chunk=chunk, max_step_tokens=rng.choice([None, chunk * 3]))
    made = HostPaged(cuda_manifest(VOCAB, limits, BLOCK, STOPS), chooses=chooses, blocks=blocks)
    loop, store = loop_over(made.runner, blocks, limits)
    prefixes = [(), *(tuple(rng.randrange(2, VOCAB) for _ in range(rng.randint(4, 20))) for _ in range(2))]
    groups = [random_group(rng, 10 * number, prefixes) for number in range(rng.randint(2, 8))]
    arrivals, events = list(groups), list[Event]()
    while arrivals or loop.has_work:
        if arrivals and rng.random() < 0.4:
            loop.submit_group(arrivals.pop(0))
        events += loop.step()
        loop.scheduler.check()
    assert store.usage().used == 0
    for request in (one for group in groups for one in group):
        fake = PagedRunner(VOCAB, LENGTH // BLOCK, BLOCK, STOPS, depth=0)
        alone, _ = loop_over(fake, LENGTH // BLOCK, replace(limits, max_sequences=1))
        alone.submit(request)
        assert whole(events, request.key) == whole(run_out(alone), request.key)
    loop.close()
    assert made.program.closed


def test_the_targets_store_has_the_runners_blocks() -> None:
    limits = Limits(max_sequences=3, max_length=LENGTH, prefill_chunk=8)
    manifest = cuda_manifest(VOCAB, limits, BLOCK, STOPS)
    made = HostPaged(manifest, blocks=23)
    store = TARGET.store(manifest, made.runner)
    assert store.slots == 3 and store.usage().blocks == 23 and store.usage().block_tokens == BLOCK
