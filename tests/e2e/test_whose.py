"""Where clients share a real server, its front alone says whose a request is. Run: pytest tests/e2e/test_whose.py

One sequence a client runs at a time here. So of two requests of one client the second ends after the first, though it is
shorter.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from support.real_server import REPOSITORY, RealServer, start, stop
from triune_client import _wire

pytestmark = pytest.mark.triton
CLIENT = "x-triune-client"
LONG, SHORT = 150, 20  # tokens
Ask = Callable[[RealServer, str, str, int], Iterator[object]]  # key, whose it says that it is, tokens -> pieces


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    folder = tmp_path_factory.mktemp("shared")
    keys = folder / "keys"
    keys.write_text("a # alice\nb # bob\n")
    keys.chmod(0o600)
    server = start(folder, REPOSITORY, f"--api-key-file={keys}", "--fair-share=1")
    yield server
    stop(server)


def headers(key: str, said: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", CLIENT: said}


def body(tokens: int, **more: Any) -> dict[str, Any]:
    return {"text_input": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, **more}


def by_generate(server: RealServer, key: str, said: str, tokens: int) -> Iterator[object]:
    """Says it in every way that JSON has."""
    text = json.dumps(body(tokens, stream=True))[1:-1]
    name = json.dumps(said)
    sent = f'{{"{CLIENT}":{name},"parameters":{{"{CLIENT}":{name}}},{text},"x\\u002dtriune-client":{name}}}'
    url = f"{server.url}/v2/models/triune/generate_stream"
    with httpx.stream("POST", url, content=sent, headers=headers(key, said), timeout=120) as response:
        assert response.status_code == 200, response.read()
        yield from (line for line in response.iter_lines() if line)


def by_infer(server: RealServer, key: str, said: str, tokens: int) -> Iterator[object]:
    types = {"text_input": "BYTES", "max_tokens": "INT32", "ignore_eos": "BOOL"}
    inputs = [{"name": name, "shape": [1], "datatype": types[name], "data": [one]} for name, one in body(tokens).items()]
    url = f"{server.url}/v2/models/triune_infer/infer"
    sent = {"inputs": inputs, "parameters": {CLIENT: said}}
    response = httpx.post(url, json=sent, headers=headers(key, said), timeout=120)
    assert response.status_code == 200, response.text
    yield response.json()


def message(model: str, said: str, tokens: int, *, stream: bool) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.parameters[CLIENT].string_param = said
    types = {"text_input": "BYTES", "max_tokens": "INT32", "ignore_eos": "BOOL", "stream": "BOOL"}
    for name, one in body(tokens, **({"stream": True} if stream else {})).items():
        request.inputs.add(name=name, datatype=types[name], shape=[1])
        request.raw_input_contents.append(_wire.pack(types[name], [one]))
    return request


def by_grpc(server: RealServer, key: str, said: str, tokens: int) -> Iterator[object]:
    with grpc.insecure_channel(server.options.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        asked = message("triune_infer", said, tokens, stream=False)
        yield stub.ModelInfer(asked, metadata=tuple(headers(key, said).items()), timeout=120)


def by_grpc_stream(server: RealServer, key: str, said: str, tokens: int) -> Iterator[object]:
    with grpc.insecure_channel(server.options.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        asked = message("triune", said, tokens, stream=True)
        for response in stub.ModelStreamInfer(iter([asked]), metadata=tuple(headers(key, said).items()), timeout=120):
            assert not response.error_message, response.error_message
            yield response


def by_openai(server: RealServer, key: str, said: str, tokens: int) -> Iterator[object]:
    asked = {"model": "triune", "prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    url = f"{server.options.openai_url}/v1/completions"
    with httpx.stream("POST", url, json=asked, headers=headers(key, said), timeout=120) as response:
        assert response.status_code == 200, response.read()
        yield from (line for line in response.iter_lines() if line)


def order(server: RealServer, ask: Ask, second: str) -> list[str]:
    """In which order a long request of alice's and a short one, with another key or the same, ended."""
    ended: list[str] = []
    first = by_generate(server, "a", "one", LONG)
    next(first)  # it runs

    def short() -> None:
        for _ in ask(server, second, "two", SHORT):
            pass
        ended.append("short")

    thread = threading.Thread(target=short)
    thread.start()
    for _ in first:
        pass
    ended.append("long")
    thread.join(120)
    return ended


@pytest.mark.parametrize("ask", [by_generate, by_infer, by_grpc, by_grpc_stream, by_openai])
def test_what_a_client_says_of_itself_gives_it_no_other_share(shared: RealServer, ask: Ask) -> None:
    assert order(shared, ask, "a") == ["long", "short"]
    assert order(shared, ask, "b") == ["short", "long"]


def test_the_step_that_generates_does_not_believe_its_options(shared: RealServer) -> None:
    """Who asks it directly, past the step that makes its options."""
    options = json.dumps({"params": {"max_tokens": 1}, "client": "somebody else"})
    sent = {"input_ids": [5, 6, 7], "options": options}
    url = f"{shared.url}/v2/models/generate/generate_stream"
    response = httpx.post(url, json=sent, headers=headers("a", "two"), timeout=60)
    assert response.status_code == 400 and "client" in response.text, response.text
