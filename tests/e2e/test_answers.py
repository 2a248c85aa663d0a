"""A right answer over every way in. Run: pytest tests/e2e/test_answers.py (needs `make engine`)"""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from support.real_server import RealServer
from triune_client import Client
from triune_client.grpc import GrpcClient

pytestmark = pytest.mark.triton
QUESTION = "What is the capital of France?"
MESSAGES = json.dumps([{"role": "user", "content": QUESTION}])


def events(response: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line[5:]) for line in response.iter_lines() if line.startswith("data:")]


def test_generate_answers(server: RealServer) -> None:
    reply = server.generate(messages=MESSAGES, max_tokens=64).json()
    assert "Paris" in reply["text_output"]
    assert reply["finish_reason"] == "stop"
    assert reply["num_input_tokens"] > 10
    assert 0 < reply["num_output_tokens"] < 64


def test_generate_stream_answers_piece_by_piece(server: RealServer) -> None:
    body = {"messages": MESSAGES, "max_tokens": 64, "stream": True}
    with httpx.stream("POST", f"{server.url}/v2/models/triune/generate_stream", json=body, timeout=60) as response:
        got = events(response)
    assert "Paris" in "".join(str(e["text_output"]) for e in got)
    assert [e["chunk_index"] for e in got] == list(range(len(got)))
    assert len(got) > 3
    assert [e["finish_reason"] for e in got] == [""] * (len(got) - 1) + ["stop"]


def test_counts_of_a_stream_add_up_to_those_of_the_whole(server: RealServer) -> None:
    whole = server.generate(messages=MESSAGES, max_tokens=20).json()
    body = {"messages": MESSAGES, "max_tokens": 20, "stream": True}
    with httpx.stream("POST", f"{server.url}/v2/models/triune/generate_stream", json=body, timeout=60) as response:
        got = events(response)
    for count in ("num_input_tokens", "num_output_tokens"):
        assert sum(int(str(e[count])) for e in got) == whole[count]
    assert "".join(str(e["text_output"]) for e in got) == whole["text_output"]


def test_raw_text_is_continued(server: RealServer) -> None:
    reply = server.generate(text_input="The capital of France is", max_tokens=3).json()
    assert reply["text_output"].startswith(" Paris")
    echoed = server.generate(text_input="The capital of France is", max_tokens=3, exclude_input_in_output=False).json()
    assert echoed["text_output"] == "The capital of France is" + reply["text_output"]


def test_old_ensemble_takes_a_batch_dimension_over_grpc(server: RealServer) -> None:
    def tensor(name: str, value: object, kind: str) -> triton_grpc.InferInput:
        dtype = {"BYTES": np.object_, "INT32": np.int32, "BOOL": np.bool_, "FP32": np.float32}[kind]
        array = np.array([[value]], dtype)
        made = triton_grpc.InferInput(name, [1, 1], kind)
        made.set_data_from_numpy(array)
        return made

    inputs = [
        tensor("text_input", b"The capital of France is", "BYTES"), tensor("max_tokens", 6, "INT32"),
        tensor("bad_words", b"", "BYTES"), tensor("stop_words", b"", "BYTES"), tensor("stream", True, "BOOL"),
        tensor("beam_width", 1, "INT32"), tensor("top_k", 1, "INT32"), tensor("top_p", 0.0, "FP32"),
        tensor("temperature", 1.0, "FP32"), tensor("length_penalty", 1.0, "FP32"),
    ]  # fmt: skip
    results: list[tuple[object, object]] = []
    with triton_grpc.InferenceServerClient(server.options.grpc_url) as client:
        client.start_stream(callback=lambda result, error: results.append((result, error)))
        client.async_stream_infer("ensemble", inputs)
        client.stop_stream()
    assert not [error for _, error in results if error]
    first = results[0][0]
    assert isinstance(first, triton_grpc.InferResult)
    assert first.as_numpy("text_output").shape == (1,)  # old clients decode its elements
    assert first.as_numpy("batch_index").shape == (1, 1)
    text = "".join(r.as_numpy("text_output")[0].decode() for r, _ in results if isinstance(r, triton_grpc.InferResult))
    assert text.startswith(" Paris")


def test_http_and_grpc_clients_give_the_same_text(server: RealServer) -> None:
    with Client(server.url) as over_http, GrpcClient(server.options.grpc_url) as over_grpc:
        one = over_http.chat(QUESTION, max_tokens=40, cache_salt="over HTTP")
        two = over_grpc.chat(QUESTION, max_tokens=40, cache_salt="over gRPC")
        assert "Paris" in one.text
        assert (one.text, one.finish_reason, one.usage) == (two.text, two.finish_reason, two.usage)
        pieces = [chunk.text for chunk in over_http.stream_chat(QUESTION, max_tokens=40)]
        assert "".join(pieces) == one.text


def test_terminal_chat_answers(server: RealServer) -> None:
    command = [sys.executable, "-m", "triune_client", "chat", "--url", server.url, "--max-tokens", "40"]
    done = subprocess.run(command, input=QUESTION + "\n", capture_output=True, text=True, timeout=120)
    assert "Paris" in done.stdout, done.stderr
    assert done.returncode == 0


def test_log_probabilities_are_those_of_the_chosen_tokens(server: RealServer) -> None:
    reply = server.generate(text_input="The capital of France is", max_tokens=4, top_logprobs=3).json()
    entries = json.loads(reply["logprobs"])
    assert len(entries) == 4
    for entry in entries:
        assert entry["top"][0] == [entry["token_id"], entry["logprob"]]  # greedy: the chosen one is the best
        assert entry["logprob"] <= 0
    assert reply["cum_log_probs"] == pytest.approx(sum(e["logprob"] for e in entries), rel=1e-5)


def test_a_seed_gives_the_same_text_again_and_another_seed_another(server: RealServer) -> None:
    def sampled(seed: int) -> str:
        body = {"temperature": 1.2, "top_k": 50, "top_p": 0.95, "seed": seed, "max_tokens": 24}
        return str(server.generate(text_input="Once upon a time", **body).json()["text_output"])

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(5)}) > 1


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(server: RealServer) -> None:
    body = {"text_input": "Count: one, two, three,", "max_tokens": 40, "temperature": 0}
    whole = server.generate(**body).json()["text_output"]
    stop = whole[15:19]
    reply = server.generate(**body, stop=[stop]).json()
    assert reply["finish_reason"] == "stop"
    assert reply["stop_reason"] == stop
    assert reply["text_output"] == whole[: whole.index(stop)]
