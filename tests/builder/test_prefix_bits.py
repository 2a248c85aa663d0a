"""Prompts that begin with another's KV have the bits that they have alone, with engines that are really built.

Run: pytest tests/builder/test_prefix_bits.py
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.engines import allowed_batch_error, make_engine
from fakes.tiny_deepseek import tiny_checkpoint
from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_llama import FakeCheckpoint
from triune_runtime.kv.names import Prompt
from triune_runtime.kv.slots import Sharing, SlotStore
from triune_runtime.manifest import EngineManifest, replace_limits
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.runner import Runner, Work
from triune_runtime.starting import step_loop
from triune_runtime.targets import find_target
from triune_runtime.text.vocabulary import TokenBytes

CHUNK, LENGTH = 64, 256
SIZES = {"hidden_size": 64, "intermediate_size": 96}
TABLE = TokenBytes([bytes([n % 128]) for n in range(256)])
# precision, and what it is of; drops nothing, or drops what a window has passed
ENGINES = {
    "fp32": ("fp32", lambda: dense_checkpoint("llama", **SIZES)),
    "w8a8": ("w8a8", lambda: dense_checkpoint("qwen2", **SIZES)),
    "int4": ("int4", lambda: dense_checkpoint("llama", **SIZES)),
    "deepseek": ("w8a8", lambda: tiny_checkpoint()),
    "window": ("fp32", lambda: windowed()),
}


def windowed() -> FakeCheckpoint:
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    on = {
        "use_sliding_window": True,
        "sliding_window": 80,
        "layer_types": kinds,
        "max_window_layers": 0,
        "num_hidden_layers": 3,
    }
    return dense_checkpoint("qwen2", **(SIZES | on))


@pytest.fixture(scope="module", params=list(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineManifest, Runner]:
    precision, made = ENGINES[request.param]
    if allowed_batch_error(precision):
        pytest.skip(f"without VNNI the bits of {precision} depend on how many sequences run together: docs/quantization.md")
    built = make_engine(made(), precision, tmp_path_factory.mktemp(request.param), slots=4, max_length=LENGTH)
    return replace_limits(built.manifest, prefill_chunk=CHUNK), built.runner


def read(runner: Runner, slot: int, tokens: Sequence[int], start: int = 0) -> NDArray[np.float32]:
    """The logits after `tokens`, run from `start` on in parts that end at multiples of CHUNK."""
    row = np.empty(0, np.float32)
    while start < len(tokens):
        end = min(len(tokens), (start // CHUNK + 1) * CHUNK)
        row = runner.run([Work(slot, start, tuple(tokens[start:end]))])[0].copy()
        start = end
    return row


def store_of(manifest: EngineManifest) -> SlotStore:
    store = find_target("cpu").store(dataclasses.replace(manifest, target="cpu"), None)  # type: ignore[arg-type]
    assert isinstance(store, SlotStore) and store.shares
    return store


def test_a_prompt_has_the_same_bits_from_every_beginning_that_the_store_gives_it(
    engine: tuple[EngineManifest, Runner],
) -> None:
    """Beginnings, ends and the other prompt's own end lie anywhere; what the store finds is copied, or taken as it is."""
    manifest, runner = engine
    rng, found = random.Random(3), set[int]()
    for number in range(40):
        prompt = [rng.randrange(1, 256) for _ in range(rng.randint(3, 200))]
        common = rng.randint(1, len(prompt))
        other = prompt[:common] + [rng.randrange(1, 256) for _ in range(rng.choice([0, 1, 2, 16, rng.randint(0, 55)]))]
        expected = read(runner, 3, prompt)
        store = store_of(manifest)
        (slot,) = store.admit(Prompt(other), 1).slots
        for end in (*range(CHUNK, len(other), CHUNK), len(other)):
            runner.run([Work(slot, (end - 1) // CHUNK * CHUNK, tuple(other[(end - 1) // CHUNK * CHUNK : end]))])
            store.settle(slot, other, end, together=True)
        if number % 2:
            store.release(slot)
        held = store.admit(Prompt(prompt), 1)
        runner.launch([Work(3, 0, (1,))], store.orders()).collect()
        found.add(held.cached)
        assert held.cached <= common
        assert np.array_equal(read(runner, held.slots[0], prompt, held.cached).view(np.int32), expected.view(np.int32)), (
            f"{len(prompt)} tokens, the first {held.cached} of them another's"
        )
    assert len(found) > 2


def test_a_token_that_is_run_alone_has_other_bits_than_among_others(engine: tuple[EngineManifest, Runner]) -> None:
    """Why answers are not shared, nor a prompt's last token run alone. If this fails, more can be."""
    manifest, runner = engine
    rng = random.Random(1)
    prompts = [[rng.randrange(1, 256) for _ in range(40)] for _ in range(8)]
    alone = [(read(runner, 0, one), runner.run([Work(0, 39, (one[39],))])[0].copy()) for one in prompts]
    assert manifest.precision != "fp32" or any(not np.array_equal(among, single) for among, single in alone)


def test_answers_are_the_same_to_the_bit_with_and_without_shared_prefixes(engine: tuple[EngineManifest, Runner]) -> None:
    """Conversations over two system prompts, several at once, with log probabilities to tell bits by; one is left."""
    manifest, runner = engine
    answers = []
    for caching in (True, False):
        rng = random.Random(9)
        systems = [tuple(rng.randrange(1, 256) for _ in range(n)) for n in (100, 70)]
        loop = step_loop(dataclasses.replace(manifest, target="cpu"), runner, TABLE, prefix_caching=caching, clock=lambda: 0.0)
        chunks = dict[int, list[Chunk]]()
        for key in range(24):
            prompt = (*systems[key % 2], *(rng.randrange(1, 256) for _ in range(rng.randint(1, 60))))
            params = SamplingParams(max_tokens=rng.randint(1, 25), ignore_eos=True, logprobs=2)
            several = [Request(key=key * 2 + i, prompt=prompt, params=params) for i in range(1 + (key % 5 == 0))]
            loop.submit_group(several)
            for _ in range(rng.choice([0, 3, 40])):
                collect(loop.step(), chunks)
                loop.scheduler.check()
            if key == 12:
                collect(loop.abort(key * 2), chunks)
        while loop.has_work:
            collect(loop.step(), chunks)
        hits = {u.family: u.value for u in loop.metrics.drain() if u.family.startswith("vllm:prefix_cache")}
        assert (hits["vllm:prefix_cache_hits_total"] > 100) == caching
        told = {key: [t for chunk in of for t in chunk.logprobs] for key, of in chunks.items()}
        answers.append({key: entries for key, entries in told.items() if key != 24})
    assert answers[0] == answers[1]


def collect(events: Sequence[object], chunks: dict[int, list[Chunk]]) -> None:
    for event in events:
        item = event.item  # type: ignore[attr-defined]
        assert isinstance(item, Chunk), item
        chunks.setdefault(event.key, []).append(item)  # type: ignore[attr-defined]


def test_an_engine_whose_steps_cut_prompts_by_the_load_shares_nothing() -> None:
    manifest = EngineManifest(
        model="", architecture="", target="cpu", precision="", engine="", vocab_size=2, cache=(), stop_token_ids=()
    )
    assert Sharing.of(replace_limits(manifest, max_step_tokens=512), 16) is None
    assert Sharing.of(manifest, 16) == Sharing(unit=16, chunk=256)
