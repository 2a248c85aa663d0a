"""SmolLM2-135M served by Triton with vLLM behind it, on the CPU in float32. Run: make test-vllm"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import psutil
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from support.real_prompts import PROMPTS
from support.real_server import RealServer, start, stop, wait_ready
from support.watching import wait_until
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import plan_of
from triune_builder.repository.assemble import ENGINE_FOLDER
from triune_client.grpc import GrpcClient

ROOT = Path(__file__).parents[2]
START_S = 900.0  # on two busy cores
COUNT = 16
TIE = 1e-4  # of the largest logit
ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
SCHEMA = {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 40}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"], "additionalProperties": False,
}  # fmt: skip
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]


@pytest.fixture(scope="module")
def repository() -> Path:
    asked = {"model": "smollm2-135m", "target": "vllm", "precision": "fp32", "max_length": 1024, "max_sequences": 8}
    return build(plan_of(asked), Settings(build_dir=ROOT / "build")).repository


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    os.environ.setdefault("TRIUNE_VLLM_THREADS", "1")  # others may compute here, too
    running = start(tmp_path_factory.mktemp("server"), repository, timeout_s=START_S)
    yield running
    stop(running)


def test_greedy_answers_are_those_of_the_float_model_up_to_a_near_tie(
    server: RealServer, repository: Path, record_property: Any
) -> None:
    folder = repository / ENGINE_FOLDER
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        body = {"text_input": PROMPTS[number], "max_tokens": COUNT, "ignore_eos": True}
        url = f"{server.url}/v2/models/triune/generate"
        answers[number] = httpx.post(url, json=body, timeout=600).json()["text_output"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal = 0
    for number, prompt in enumerate(PROMPTS):
        ids = tokenizer.encode(prompt).ids
        with torch.no_grad():
            wanted = model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                min_new_tokens=COUNT, max_new_tokens=COUNT, eos_token_id=None, pad_token_id=0,
            )[0, len(ids) :].tolist()  # fmt: skip
        if tokenizer.decode(wanted, skip_special_tokens=True) == answers[number]:
            equal += 1
            continue
        same = max(
            n for n in range(COUNT) if answers[number].startswith(tokenizer.decode(wanted[:n], skip_special_tokens=True))
        )
        with torch.no_grad():
            logits = model(torch.tensor([ids + wanted[:same]])).logits[0, -1]
        first, second = logits.topk(2).values.tolist()
        assert first - second <= TIE * logits.abs().max().item(), f"{prompt!r}: {answers[number]!r} after {same} tokens"
    print(f"{equal} of {len(PROMPTS)} greedy answers of {COUNT} tokens are equal, the others up to a near-tie")
    record_property("equal", equal)


def test_http_grpc_and_openais_package_have_the_same_text(server: RealServer) -> None:
    asked: dict[str, Any] = {"max_tokens": 16, "temperature": 0}
    question = "What is the capital of France?"
    with GrpcClient(f"127.0.0.1:{server.options.grpc_port}", timeout_s=600) as client:
        pieces = [chunk.text for chunk in client.stream_chat(question, **asked)]
    with openai.OpenAI(base_url=f"{server.options.openai_url}/v1", api_key="none", max_retries=0, timeout=600) as sdk:
        messages: list[Any] = [{"role": "user", "content": question}]
        whole = sdk.chat.completions.create(model="triune", messages=messages, logprobs=True, top_logprobs=2, **asked)
        streamed = [
            event.choices[0].delta.content or ""
            for event in sdk.chat.completions.create(model="triune", messages=messages, stream=True, **asked)
        ]
    assert len(pieces) > 1 and "".join(pieces) == "".join(streamed) == whole.choices[0].message.content
    assert "Paris" in "".join(pieces)
    assert whole.choices[0].logprobs and len((whole.choices[0].logprobs.content or [])[0].top_logprobs) == 2
    assert whole.usage and whole.usage.prompt_tokens == 37


def test_tools_and_schemas_hold(server: RealServer) -> None:
    with openai.OpenAI(base_url=f"{server.options.openai_url}/v1", api_key="none", max_retries=0, timeout=600) as sdk:
        call: dict[str, Any] = {"model": "triune", "messages": ASK, "max_tokens": 100, "temperature": 0}
        (made,) = sdk.chat.completions.create(tools=TOOLS, tool_choice="required", parallel_tool_calls=False, **call).choices
        form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
        (held,) = sdk.chat.completions.create(response_format=form, **call).choices
    assert made.finish_reason == "tool_calls" and made.message.tool_calls
    called: Any = made.message.tool_calls[0]
    jsonschema.validate(json.loads(called.function.arguments), SCHEMA)
    jsonschema.validate(json.loads(held.message.content or ""), SCHEMA)


def test_a_client_that_leaves_frees_its_place_within_a_second(server: RealServer) -> None:
    body = {"text_input": "Once upon a time", "max_tokens": 900, "stream": True, "ignore_eos": True}
    aborted = server.metric("triune_requests_aborted_total", reason="cancelled")
    with httpx.stream("POST", f"{server.url}/v2/models/triune/generate_stream", json=body, timeout=600) as stream:
        lines = stream.iter_lines()
        for _ in range(4):
            next(lines)
        # The server hands its metrics on once a second: what is idle before they know of it is none of our business.
        wait_until(lambda: server.metric("vllm:num_requests_running") > 0, "the server's metrics tell of the request")
    began = time.monotonic()
    server.wait_idle()
    assert server.metric("triune_requests_aborted_total", reason="cancelled") == aborted + 1
    print(f"idle {time.monotonic() - began:.1f} s after its client left")


def test_an_engine_that_is_killed_answers_everyone_and_is_back_by_itself(server: RealServer) -> None:
    body = {"text_input": "Once upon a time", "max_tokens": 900, "stream": True, "ignore_eos": True}
    ended: list[str] = []

    def ask() -> None:
        with httpx.stream("POST", f"{server.url}/v2/models/triune/generate_stream", json=body, timeout=600) as stream:
            ended.append(list(stream.iter_lines())[-2])

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    while not server.metric("vllm:num_requests_running"):
        time.sleep(0.2)
    core = next(p for p in psutil.Process(server.process.pid).children(recursive=True) if "EngineCor" in p.name())
    os.kill(core.pid, signal.SIGKILL)
    began = time.monotonic()
    for thread in threads:
        thread.join(60)
    assert len(ended) == 10 and all("error" in line for line in ended), ended
    print(f"all answered {time.monotonic() - began:.1f} s after the kill")
    time.sleep(3)
    wait_ready(server, START_S)
    print(f"ready again {time.monotonic() - began:.0f} s after the kill")
    assert "Paris" in server.generate(text_input=PROMPTS[0], max_tokens=8, ignore_eos=True).json()["text_output"]
