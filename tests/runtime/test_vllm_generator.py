"""Requests served by vLLM's process, which is its double here: the real one is in vllm_real/.

Run: pytest tests/runtime/test_vllm_generator.py
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fakes.sinks import UNHURRIED, Client, wait_until
from fakes.vllm_engines import use_double, vllm_engine
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.errors import ManifestError, Overloaded, RequestError, TooLong, TriuneError
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.starting import generator_of
from triune_runtime.targets.vllm.child import Host
from triune_runtime.targets.vllm.generator import VllmGenerator
from triune_runtime.targets.vllm.progress import Progress
from triune_runtime.text.tokenizer import load_token_bytes
from triune_runtime.worker import Worker

DIES, HANGS, REFUSES, ENDS = 7, 8, 9, 10  # first tokens that the double knows
SCHEMA = {
    "type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"], "additionalProperties": False,
}  # fmt: skip


class Engine:
    """A generator with a worker around it."""

    def __init__(self, folder: Path) -> None:
        self.manifest = vllm_engine(folder)
        self.token_bytes = load_token_bytes(folder, self.manifest)
        made = generator_of(self.manifest, folder, self.token_bytes)
        assert isinstance(made, VllmGenerator)
        self.generator = made
        self.host = made._engine
        self.worker = Worker(made, UNHURRIED)

    @property
    def pid(self) -> int:
        assert isinstance(self.host, Host)
        return self.host.pid

    def ask(self, key: int, first: int = 20, *, constraint: Any = None, **fields: Any) -> Client:
        client = Client()
        of_request = {name: fields.pop(name) for name in ("stream", "deadline", "cache_salt", "id") if name in fields}
        prompt = fields.pop("prompt", (first, 30, 31))
        params = SamplingParams(**({"max_tokens": 12, "ignore_eos": True} | fields))
        request = Request(key=key, prompt=prompt, params=params, **of_request)
        self.worker.submit_group([(request, client)], [constraint] if constraint else [])
        return client

    def tokens(self, client: Client) -> list[int]:
        client.wait()
        return [token for chunk in client.chunks for token in chunk.cut.token_ids]

    def text(self, client: Client) -> str:
        client.wait()
        cuts = [chunk.cut for chunk in client.chunks]
        return b"".join(self.token_bytes.join(c.token_ids)[c.byte_start : c.byte_stop] for c in cuts).decode("utf-8", "replace")

    def idle(self) -> bool:
        snapshot = self.generator.snapshot()
        return not snapshot.decoding + snapshot.waiting


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One that the tests share which do not break it."""
    with pytest.MonkeyPatch.context() as patch:
        use_double(patch)
        made = Engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.worker.close()
    assert not psutil.pid_exists(made.pid)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    use_double(monkeypatch)
    made = Engine(tmp_path)
    yield made
    made.worker.close()
    assert not psutil.pid_exists(made.pid), "nothing of an engine outlives it"


def test_an_answer_is_the_same_alone_among_others_streamed_and_whole(engine: Engine) -> None:
    alone = engine.tokens(engine.ask(1))
    clients = [engine.ask(key, first=20 + key % 2, stream=key % 3 == 0) for key in range(10, 18)]
    assert len(alone) == 12
    assert all(engine.tokens(client) == alone for client in clients[::2])
    last = clients[0].last
    assert isinstance(last, Chunk) and last.finish_reason == "length"
    assert sum(chunk.new_tokens for chunk in clients[0].chunks) == 12


def test_seeds_of_64_bits_repeat_and_differ(engine: Engine) -> None:
    texts = {
        seed: [engine.tokens(engine.ask(key, temperature=1.0, seed=seed)) for key in (100 + seed % 97, 300 + seed % 97)]
        for seed in (0, 5, (1 << 64) - 1, (1 << 63) - 1 - 1)
    }
    assert all(one == other for one, other in texts.values())
    assert len({tuple(one) for one, _ in texts.values()}) == 4


def test_a_stop_string_ends_the_answer_and_frees_its_place(engine: Engine) -> None:
    whole = engine.text(engine.ask(20, max_tokens=60))
    stop = whole[30:32]
    cut = engine.ask(21, max_tokens=60, stop=(stop,))
    assert engine.text(cut) == whole[: whole.index(stop)]
    assert cut.chunks[-1].finish_reason == "stop"
    wait_until(engine.idle)


def test_stop_tokens_bans_and_biases_reach_the_engine(engine: Engine) -> None:
    free = engine.tokens(engine.ask(30))
    ended = engine.ask(31, stop_token_ids=(free[3],))
    engine.tokens(ended)
    assert ended.chunks[-1].finish_reason == "stop" and sum(chunk.new_tokens for chunk in ended.chunks) == 4
    assert free[0] not in engine.tokens(engine.ask(32, bad_words=((free[0],),)))
    biased = engine.tokens(engine.ask(33, logit_bias=((50, 40.0), (50, 50.0))))
    assert set(biased) == {50}
    late = engine.ask(34, stop_token_ids=tuple(range(11, 200)), min_tokens=5)
    engine.tokens(late)
    assert sum(chunk.new_tokens for chunk in late.chunks) >= 6


def test_log_probabilities_come_with_their_tokens(engine: Engine) -> None:
    client = engine.ask(40, logprobs=2, prompt_logprobs=1, max_tokens=3)
    tokens = engine.tokens(client)
    found = [entry for chunk in client.chunks for entry in chunk.logprobs]
    assert [entry.token_id for entry in found] == tokens and all(len(entry.top) == 2 for entry in found)
    scores = [entry for chunk in client.chunks for entry in chunk.scores]
    assert [(entry.token_id, entry.rank) for entry in scores] == [(30, 9), (31, 9)]


def test_a_schema_holds_and_neighbours_keep_their_text(engine: Engine) -> None:
    compiler = ConstraintCompiler(engine.manifest, engine.token_bytes)
    guide = ("json_schema", json.dumps(SCHEMA))
    free = engine.tokens(engine.ask(50))
    clients = []
    for key in range(51, 55):
        params = {"guide": guide, "temperature": 1.0, "seed": key, "ignore_eos": False, "max_tokens": 100}
        request = Request(key=key, prompt=(20, 30, 31), params=SamplingParams(guide=guide))
        clients.append(engine.ask(key, constraint=compiler.make(guide, request), **params))
    beside = engine.ask(60)
    for client in clients:
        assert isinstance(json.loads(engine.text(client))["n"], int)
        assert client.chunks[-1].finish_reason == "stop"
    assert engine.tokens(beside) == free
    compiler.close()


def test_prefixes_are_told_and_a_salt_keeps_them_apart(engine: Engine) -> None:
    prompt = tuple(range(20, 60))
    found = []
    for key, salt in ((70, "a"), (71, "a"), (72, "b")):
        client = engine.ask(key, prompt=prompt, cache_salt=salt)
        client.wait()
        found.append(client.chunks[-1].kv.reused_tokens)
    assert found == [0, 32, 0]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"temperature": 0.001}, "temperature is 0.001"),
        ({"temperature": 3.0}, "temperature is 3"),
        ({"presence_penalty": 5.0}, "presence_penalty is 5"),
        ({"frequency_penalty": -3.0}, "frequency_penalty is -3"),
        ({"max_drafts": 4}, "num_draft_tokens is 4"),
        ({"prompt": (20, 320)}, "prompt has token id 320"),
        ({"prompt": (20, -1)}, "prompt has token id -1"),
        ({"logit_bias": ((999, 1.0),)}, "logit_bias has token id 999"),
        ({"stop_token_ids": (999,)}, "stop_token_ids has token id 999"),
        ({"max_tokens": 500}, "max_tokens is 500"),
        ({"first": REFUSES}, "it does not please"),
    ],
)
def test_what_is_not_served_is_refused_by_name_and_others_go_on(engine: Engine, asked: dict[str, Any], named: str) -> None:
    beside = engine.ask(80)
    refused = engine.ask(81, **asked).last
    assert isinstance(refused, (RequestError, TooLong)) and named in str(refused)
    assert len(engine.tokens(beside)) == 12


def test_who_leaves_and_who_is_late_free_their_places(engine: Engine) -> None:
    leaving = engine.ask(90, max_tokens=100, stream=True, id="mine")
    leaving.wait(lambda client: bool(client.chunks))
    engine.worker.abort_id("mine")
    assert isinstance(leaving.last, Chunk) and leaving.last.finish_reason == "cancelled"
    late = engine.ask(91, first=HANGS, deadline=time.monotonic() + 0.05)
    assert isinstance(late.last, Chunk) and late.last.finish_reason == "deadline"
    wait_until(engine.idle)


def test_an_answer_that_the_engine_gives_up_is_an_error_of_its_own(engine: Engine) -> None:
    beside, failed = engine.ask(95), engine.ask(96, first=ENDS).last
    assert isinstance(failed, TriuneError) and failed.code == "engine_failed"
    assert len(engine.tokens(beside)) == 12


def test_more_than_may_wait_are_refused(own: Engine) -> None:
    held = [own.ask(key, first=HANGS) for key in range(12)]
    with pytest.raises(Overloaded):
        own.ask(20)
    for key in range(12):
        own.worker.abort(key)
    assert all(isinstance(client.last, Chunk) for client in held)


def _dies(engine: Engine) -> None:
    engine.ask(99, first=DIES)


def _is_killed(engine: Engine) -> None:
    os.kill(engine.pid, signal.SIGKILL)


@pytest.mark.parametrize("breaks", [_dies, _is_killed])
def test_an_engine_that_dies_answers_everyone_and_ends_the_worker(own: Engine, breaks: Any) -> None:
    clients = [own.ask(key, first=HANGS) for key in range(6)]
    breaks(own)
    for client in clients:
        assert isinstance(client.last, TriuneError) and "vLLM runs no more" in str(client.last)
    wait_until(lambda: not own.worker.alive)
    with pytest.raises(Overloaded):
        own.ask(50)


def test_an_engine_that_makes_no_step_is_as_one_that_died(own: Engine) -> None:
    own.generator._progress = Progress(stall_s=0.3)
    clients = [own.ask(key, first=HANGS) for key in range(2)]
    for client in clients:
        assert isinstance(client.last, TriuneError) and "has made no step" in str(client.last)
    wait_until(lambda: not own.worker.alive)


def test_why_it_does_not_start_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_double(monkeypatch)
    said = "ValueError: To serve at least one request, 2 GiB KV cache is needed"
    manifest = vllm_engine(tmp_path, double_fails=said)
    with pytest.raises(ManifestError, match=f"^vLLM does not start: {said}; hint: ") as failed:
        generator_of(manifest, tmp_path, load_token_bytes(tmp_path, manifest))
    assert "MAX_LENGTH" in (failed.value.hint or "")


def test_a_checkpoint_that_went_away_and_shares_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_double(monkeypatch)
    manifest = vllm_engine(tmp_path)
    table = load_token_bytes(tmp_path, manifest)
    with pytest.raises(ManifestError, match="no fair shares"):
        generator_of(manifest, tmp_path, table, client_sequences=0)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ManifestError, match="the checkpoint of this engine is not in"):
        generator_of(manifest, tmp_path, table)
