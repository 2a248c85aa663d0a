"""The real `openai` package against the gateway over the real server. Run: pytest tests/gateway/test_real_server.py"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageParam

from support.real_server import RealServer, start, stop
from triune_gateway.keys import KEYS_VARIABLE

pytestmark = pytest.mark.triton

PARIS: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
LONG: dict[str, Any] = {"max_tokens": 1500, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def client(server: RealServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.options.openai_url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def test_a_chat_is_the_ensembles_answer(client: openai.OpenAI, server: RealServer) -> None:
    found = client.chat.completions.create(model="triune", messages=PARIS, max_tokens=32, temperature=0)
    (choice,) = found.choices
    direct = server.generate(messages=json.dumps(PARIS), max_tokens=32, temperature=0).json()
    assert choice.message.content == direct["text_output"]
    assert "Paris" in direct["text_output"]
    assert choice.finish_reason == "stop"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (
        direct["num_input_tokens"],
        direct["num_output_tokens"],
    )


def test_a_stream_is_the_whole_answer(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "triune", "messages": PARIS, "max_tokens": 40, "temperature": 0.9, "seed": 5}
    salts = [{"cache_salt": f"the {how} answer"} for how in ("whole", "streamed")]  # so that both are computed
    whole = client.chat.completions.create(**ask, extra_body=salts[0])
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**ask, **options, extra_body=salts[1]))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]


def test_the_packages_own_stream_helper_gathers_the_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="triune", messages=PARIS, max_tokens=32, temperature=0) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "Paris" in (final.choices[0].message.content or "")
    assert {"chunk", "content.delta", "content.done"} <= set(events)


def test_a_seed_decides_every_choice(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {
        "model": "triune", "messages": [{"role": "user", "content": "Tell a story."}],
        "max_tokens": 12, "temperature": 1.5, "n": 3,
    }  # fmt: skip
    one, same, other = (client.chat.completions.create(**ask, seed=seed) for seed in (7, 7, 8))
    texts = [[choice.message.content for choice in found.choices] for found in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3
    assert one.usage is not None and one.usage.completion_tokens == 36


def test_completions_continue_each_prompt(client: openai.OpenAI) -> None:
    prompts = ["The capital of France is", "1, 2, 3, 4,"]
    found = client.completions.create(model="triune", prompt=prompts, max_tokens=6, temperature=0, echo=True)
    assert [choice.index for choice in found.choices] == [0, 1]
    assert "Paris" in found.choices[0].text
    assert "5" in found.choices[1].text
    assert all(choice.text.startswith(prompt) for choice, prompt in zip(found.choices, prompts, strict=True))
    assert {choice.finish_reason for choice in found.choices} == {"length"}
    streamed = ["", ""]
    for chunk in client.completions.create(model="triune", prompt=prompts, max_tokens=6, temperature=0, echo=True, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in found.choices]


def test_stop_strings_end_the_answer_and_are_no_part_of_it(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model="triune", messages=PARIS, max_tokens=32, temperature=0, stop=[" Paris"])
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("The capital of France is", "stop")


def test_biases_change_the_answer(client: openai.OpenAI, server: RealServer) -> None:
    ask: dict[str, Any] = {"model": "triune", "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0}
    plain = client.completions.create(**ask).choices[0].text
    sampling = {"max_tokens": 1, "temperature": 0, "logprobs": 0}
    direct = server.generate(text_input=ask["prompt"], sampling_parameters=json.dumps(sampling)).json()
    (entry,) = json.loads(direct["logprobs"])
    assert client.completions.create(**ask, logit_bias={str(entry["token_id"]): -100}).choices[0].text != plain


def test_chat_logprobs_spell_the_answer(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {
        "model": "triune", "messages": PARIS, "max_tokens": 32, "temperature": 0, "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip
    (choice,) = client.chat.completions.create(**ask).choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    spelled = b"".join(bytes(token.bytes or ()) for token in choice.logprobs.content)
    assert spelled.decode() == choice.message.content
    for token in choice.logprobs.content:
        assert token.logprob <= 0
        assert [best.logprob for best in token.top_logprobs] == sorted((b.logprob for b in token.top_logprobs), reverse=True)
        assert len(token.top_logprobs) == 3
        assert (token.top_logprobs[0].token, token.top_logprobs[0].logprob) == (token.token, token.logprob)  # it was greedy
        assert sum(math.exp(best.logprob) for best in token.top_logprobs) <= 1 + 1e-3
    events = client.chat.completions.create(**ask, stream=True)
    streamed = [token for e in events for token in ((e.choices[0].logprobs and e.choices[0].logprobs.content) or [])]
    assert [token.token for token in streamed] == [token.token for token in choice.logprobs.content]


def test_completion_logprobs_point_into_the_text(client: openai.OpenAI) -> None:
    found = client.completions.create(model="triune", prompt="Grüße aus 東京:", max_tokens=24, temperature=0, logprobs=2)
    (choice,) = found.choices
    logprobs = choice.logprobs
    assert (
        logprobs is not None and logprobs.tokens and logprobs.text_offset and logprobs.top_logprobs and logprobs.token_logprobs
    )
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert "\ufffd" in token or choice.text.startswith(token, offset)
    for token, logprob, best in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert best[token] == logprob


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"model": "gpt-5"}, openai.NotFoundError, 404),
        ({"tools": [{"type": "function", "function": {"name": "f g"}}]}, openai.BadRequestError, 400),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError, 400),
        ({"temperature": 3}, openai.BadRequestError, 400),
        ({"max_tokens": 10**6}, openai.BadRequestError, 400),
        ({"logit_bias": {"99999999": 1}}, openai.BadRequestError, 400),
        ({"extra_body": {"thinking_budget": 5}}, openai.BadRequestError, 400),  # this model does not think
        ({"stop": ["x" * 1000]}, openai.BadRequestError, 400),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_packages_own(
    client: openai.OpenAI,
    server: RealServer,
    body: dict[str, Any],
    kind: type[openai.APIStatusError],
    status: int,
    stream: bool,
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**({"model": "triune", "messages": PARIS, "stream": stream} | body))
    assert caught.value.status_code == status
    assert caught.value.type == "invalid_request_error"
    if "max_tokens" in body:
        assert caught.value.code == "context_length_exceeded"
    named = next(iter(body.get("extra_body", body)))
    assert caught.value.param == (None if named == "model" else named)


def test_the_model_is_listed_by_all_its_names(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["triune", "smollm2-135m"]
    assert client.models.retrieve("smollm2-135m").object == "model"


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
def test_leaving_frees_the_slots(server: RealServer, stream: bool, n: int) -> None:
    async def visit() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.options.openai_url}/v1", api_key="none", max_retries=0) as client:
            call = client.chat.completions.create(model="triune", messages=PARIS, n=n, stream=stream, **LONG)
            if stream:
                async with await call as events:
                    async for event in events:
                        if event.choices[0].delta.content:
                            break
                return
            task = asyncio.ensure_future(call)
            deadline = time.monotonic() + 20
            while server.metric("vllm:num_requests_running") < n:
                assert time.monotonic() < deadline and not task.done()
                await asyncio.sleep(0.05)
            task.cancel()

    aborted = server.metric("triune_requests_aborted_total", reason="cancelled")
    asyncio.run(visit())
    deadline = time.monotonic() + 5  # the answers would have taken far longer
    while server.metric("triune_requests_aborted_total", reason="cancelled") < aborted + n:
        assert time.monotonic() < deadline, "the server was not told"
        time.sleep(0.05)
    server.wait_idle(timeout_s=5)
    assert server.metric("triune_requests_aborted_total", reason="cancelled") == aborted + n


def test_many_streams_at_once_each_get_their_own_answer(server: RealServer) -> None:
    async def run() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{server.options.openai_url}/v1", api_key="none", max_retries=0) as client:

            async def one(number: int) -> str:
                prompt = f"Count: {number}, {number + 1}, {number + 2},"
                events = await client.completions.create(
                    model="triune", prompt=prompt, max_tokens=12, temperature=0, stream=True
                )
                return "".join([event.choices[0].text async for event in events])

            return list(await asyncio.gather(*map(one, range(24)))), [await one(number) for number in (0, 7, 23)]

    together, alone = asyncio.run(run())
    assert [together[number] for number in (0, 7, 23)] == alone


def test_the_page_and_the_description_are_served(server: RealServer) -> None:
    assert "<h1>Triune</h1>" in httpx.get(f"{server.options.openai_url}/").text
    assert "/v1/chat/completions" in httpx.get(f"{server.options.openai_url}/openapi.json").json()["paths"]
    assert "triune_openai_requests_total" in httpx.get(f"{server.options.openai_url}/metrics").text


def test_a_gateway_that_dies_is_started_again_and_its_server_is_not(own_server: RealServer) -> None:
    def gateways() -> list[Any]:
        children = psutil.Process(own_server.process.pid).children()
        return [p for p in children if p.cmdline()[1:3] == ["-m", "triune_gateway"]]

    stubs = {p.pid for p in own_server.stubs("generate")}
    (first,) = gateways()
    first.kill()
    first.wait(10)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{own_server.options.openai_url}/health", timeout=2).status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.1)
    (second,) = gateways()
    assert second.pid != first.pid
    assert {p.pid for p in own_server.stubs("generate")} == stubs


def test_api_keys_come_from_the_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, "secret")
    running = start(tmp_path_factory.mktemp("keys"))
    try:
        base = f"{running.options.openai_url}/v1"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=base, api_key="wrong", max_retries=0).models.list()
        assert openai.OpenAI(base_url=base, api_key="secret", max_retries=0).models.list().data
    finally:
        stop(running)
