"""Thinking on a real server, over a made-up engine with R1's template and markers: its logits are a hash, its rules are real.

Run: pytest tests/e2e/test_thinking.py
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from fakes.thinking import thinking_repository, thinking_tokenizer
from support.real_server import RealServer, start, stop
from triune_client import AsyncClient, BadRequest, Client, Completion
from triune_client.grpc import AsyncGrpcClient, GrpcClient

pytestmark = pytest.mark.triton
MESSAGES = json.dumps([{"role": "user", "content": "hello"}])
OPTIONS: dict[str, Any] = {"max_tokens": 40, "thinking_budget": 9, "ignore_eos": True, "seed": 4}
CLOSING = "\n</think>\n\n"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server of the made-up engine."""
    repository = tmp_path_factory.mktemp("thinking") / "repository"
    running = start(tmp_path_factory.mktemp("server"), thinking_repository(repository))
    yield running
    stop(running)


def events(server: RealServer, **body: Any) -> list[dict[str, Any]]:
    url = f"{server.url}/v2/models/triune/generate_stream"
    with httpx.stream("POST", url, json=body | {"stream": True}, timeout=60) as response:
        return [json.loads(line[5:]) for line in response.iter_lines() if line.startswith("data:")]


def test_thinking_has_an_output_of_its_own_streamed_or_not(thinker: RealServer) -> None:
    whole = thinker.generate(messages=MESSAGES, **OPTIONS).json()
    stream = events(thinker, messages=MESSAGES, **OPTIONS)
    for name in ("text_output", "reasoning_output"):
        assert "".join(e[name] for e in stream) == whole[name] != ""
        assert "think>" not in whole[name]
    for name in ("num_output_tokens", "num_reasoning_tokens", "num_input_tokens"):
        assert sum(e[name] for e in stream) == whole[name]
    assert 0 < whole["num_reasoning_tokens"] <= 9


def test_a_raw_prompt_gets_one_text_and_no_new_outputs(thinker: RealServer) -> None:
    chat = thinker.generate(messages=MESSAGES, **OPTIONS).json()
    raw = thinker.generate(text_input="<U>hello<A><think>\n", **OPTIONS).json()
    assert raw["text_output"] == chat["reasoning_output"] + CLOSING + chat["text_output"]
    assert not {"reasoning_output", "num_reasoning_tokens"} & raw.keys()


def test_the_old_ensemble_keeps_thinking_apart_for_who_asks(thinker: RealServer) -> None:
    values = {"text_input": b"<U>hello<A><think>\n", "stream": True, **OPTIONS, "separate_reasoning": True}
    kinds = {bytes: ("BYTES", np.object_), bool: ("BOOL", np.bool_), int: ("INT32", np.int32)}
    inputs = []
    for name, value in values.items():
        kind, dtype = ("UINT64", np.uint64) if name == "seed" else kinds[type(value)]
        inputs.append(triton_grpc.InferInput(name, [1, 1], kind))
        inputs[-1].set_data_from_numpy(np.array([[value]], dtype))
    results: list[Any] = []
    with triton_grpc.InferenceServerClient(thinker.options.grpc_url) as client:
        client.start_stream(callback=lambda result, error: results.append(error or result))
        client.async_stream_infer("ensemble", inputs)
        client.stop_stream()
    chat = thinker.generate(messages=MESSAGES, **OPTIONS).json()
    for name in ("text_output", "reasoning_output"):
        assert {r.as_numpy(name).shape for r in results} == {(1,)}
        assert b"".join(r.as_numpy(name)[0] for r in results).decode() == chat[name]


def test_all_four_clients_give_the_same_thinking_and_answer(thinker: RealServer) -> None:
    async def over(client: AsyncClient | AsyncGrpcClient) -> Completion:
        async with client, client.stream_chat("hello", **OPTIONS) as stream:
            assert all(not (c.text and c.reasoning) for c in [chunk async for chunk in stream])
        return stream.completion

    async def both() -> list[Completion]:
        return [await over(AsyncClient(thinker.url)), await over(AsyncGrpcClient(thinker.options.grpc_url))]

    answers = asyncio.run(both())
    with Client(thinker.url) as http, GrpcClient(thinker.options.grpc_url) as grpc:
        answers += [http.chat("hello", **OPTIONS), grpc.chat("hello", **OPTIONS)]
    assert len({(a.text, a.reasoning, a.usage) for a in answers}) == 1
    assert answers[0].text and answers[0].reasoning
    assert answers[0].usage.reasoning_tokens == thinker.generate(messages=MESSAGES, **OPTIONS).json()["num_reasoning_tokens"]


def test_thinking_off_and_on_and_for_ever(thinker: RealServer) -> None:
    closing = thinking_tokenizer().token_to_id("</think>")
    with Client(thinker.url) as client:
        off = client.chat("hello", max_tokens=10, ignore_eos=True, enable_thinking=False)
        assert (off.reasoning, off.usage.reasoning_tokens) == ("", 0)
        assert off.text
        none = client.chat("hello", max_tokens=10, ignore_eos=True, thinking_budget=0)
        assert none.reasoning == "" and none.text
        ever = client.chat("hello", max_tokens=10, ignore_eos=True, logit_bias={closing: -100})
        assert (ever.text, ever.finish_reason) == ("", "length")
        assert ever.reasoning
        soon = client.chat("hello", max_tokens=10, ignore_eos=True, logit_bias={closing: 100})
        assert soon.reasoning == ""


def test_a_stop_string_ends_the_thinking_as_it_ends_an_answer(thinker: RealServer) -> None:
    with Client(thinker.url) as client:
        whole = client.chat("hello", **OPTIONS)
        wanted = re.findall(r"[!-~]", whole.reasoning)[-1]  # bytes that are no character cannot be asked for
        stopped = client.chat("hello", **OPTIONS, stop=wanted)
    assert (stopped.finish_reason, stopped.stop_reason, stopped.text) == ("stop", wanted, "")
    assert stopped.reasoning == whole.reasoning[: whole.reasoning.index(wanted)]


def test_the_publishers_temperature_is_the_default_and_0_is_greedy(thinker: RealServer) -> None:
    def answer(seed: int, **options: Any) -> str:
        return str(
            thinker.generate(messages=MESSAGES, max_tokens=12, ignore_eos=True, seed=seed, **options).json()["reasoning_output"]
        )

    assert len({answer(seed) for seed in range(4)}) > 1
    assert len({answer(seed, temperature=0.0) for seed in range(4)}) == 1


def test_what_cannot_be_is_refused_by_name(thinker: RealServer) -> None:
    with Client(thinker.url) as client:
        for options, message in (
            ({"stop": ["x"] * 65}, "stop has 65 entries"),
            ({"stop": "x" * 300}, "at most 256 bytes"),
            ({"min_tokens": 9, "max_tokens": 8}, "at most max_tokens, which is 8"),
            ({"thinking_budget": -1}, "thinking_budget is -1"),
        ):
            with pytest.raises(BadRequest, match=message):
                client.chat("hello", **options)  # type: ignore[arg-type]  # dictionaries of different options
        with pytest.raises(BadRequest, match="enable_thinking is given without messages"):
            client.generate("hello", enable_thinking=True)
    refused = thinker.generate(text_input="a", end_id=10**6)
    assert refused.status_code == 400 and "end_id is 1000000" in refused.text
