"""What existing clients send and read, row by row, on the real server. Run: pytest tests/e2e/test_contracts.py"""

from __future__ import annotations

import json
import queue
import threading
import time
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from support.real_server import RealServer
from support.triton_calls import joined, rows, streamed, tensors, words

pytestmark = pytest.mark.triton
FRANCE, SPAIN = "The capital of France is", "The capital of Spain is"
PIPELINES = ("ensemble", "tensorrt_llm_bls")
TIMES = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")
COUNTS = (
    "kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks", "acceptance_rate",
    "total_accepted_draft_tokens", "total_draft_tokens",
)  # fmt: skip


def end_to_end(prompt: str = FRANCE, *, stream: bool = False, tokens: int = 6, **more: Any) -> dict[str, Any]:
    """The inputs that NVIDIA's end_to_end_grpc_client.py always sends, with its defaults."""
    sent = {"text_input": prompt, "max_tokens": tokens, "stream": stream, "beam_width": 1, "temperature": 1.0}
    return {name: rows(v) for name, v in {**sent, "top_k": 1, "exclude_input_in_output": False, **more}.items()}


@pytest.mark.parametrize("model", PIPELINES)
def test_nvidia_s_client_finds_its_text_streamed_and_whole(server: RealServer, model: str) -> None:
    pieces = streamed(server, model, end_to_end(stream=True), outputs=["text_output"], request_id="1")
    (whole,) = streamed(server, model, end_to_end(), outputs=["text_output"])
    assert len(pieces) > 1
    assert whole.as_numpy("text_output").shape == (1,)
    assert joined([whole]) == FRANCE + joined(pieces)  # without a stream the prompt comes back, unless that is excluded
    (bare,) = streamed(server, model, end_to_end(exclude_input_in_output=True))
    assert joined([bare]) == joined(pieces)


@pytest.mark.parametrize("stream", [False, True])
def test_nvidia_s_client_finds_several_sequences_of_several_prompts(server: RealServer, stream: bool) -> None:
    one = {"num_return_sequences": 2, "top_k": 50, "exclude_input_in_output": True}
    each = [end_to_end(prompt, stream=stream, **one) | {"seed": rows(7, np.uint64)} for prompt in (FRANCE, SPAIN)]
    batch = {name: np.concatenate([inputs[name] for inputs in each]) for name in each[0]}
    found: dict[tuple[int, int], str] = {}
    for result in streamed(server, "ensemble", batch, outputs=["text_output", "sequence_index", "batch_index"]):
        place = int(result.as_numpy("batch_index")[0][0]), int(result.as_numpy("sequence_index")[0][0])
        found[place] = found.get(place, "") + result.as_numpy("text_output")[0].decode()
    assert sorted(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for row, inputs in enumerate(each):
        alone = inputs | {"num_return_sequences": rows(1), "stream": rows(False)}
        assert found[row, 0] == joined(streamed(server, "ensemble", alone))


def test_nvidia_s_client_finds_log_probabilities_and_times_on_every_response(server: RealServer) -> None:
    outputs = ["text_output", "cum_log_probs", "output_log_probs", *TIMES, *COUNTS]
    inputs = end_to_end(stream=True, return_log_probs=True, return_perf_metrics=True)
    results = streamed(server, "ensemble", inputs, outputs=outputs)
    assert sum(r.as_numpy("output_log_probs").sum() for r in results) == pytest.approx(
        results[-1].as_numpy("cum_log_probs")[0], rel=1e-4
    )
    for result in results:
        times = [int(result.as_numpy(name)[0][0]) for name in TIMES]
        assert times == sorted(times) and times[0] > 0
        counts = [float(result.as_numpy(name)[0][0]) for name in COUNTS]
        assert counts[:3] == [1, 0, 1] and min(counts) >= 0


def test_words_with_a_bias_stop_words_bad_words_and_end_id_count(server: RealServer) -> None:
    plain = joined(streamed(server, "ensemble", end_to_end(exclude_input_in_output=True)))
    assert plain.startswith(" Paris")

    def text(**more: Any) -> str:
        return joined(streamed(server, "ensemble", end_to_end(exclude_input_in_output=True, **more)))

    assert text(embedding_bias_words=[" London"], embedding_bias_weights=[100.0]).startswith(" London")
    assert " Paris" not in text(bad_words=[" Paris"])
    assert text(stop_words=["zzz", "."]) == " Paris"
    reply = server.generate("triune", text_input=FRANCE, max_tokens=6, return_log_probs=True).json()
    second = json.loads(reply["logprobs"])[1]["token_id"]
    assert text(end_id=second, pad_id=second) == " Paris"
    greedy = {"top_k": 0, "temperature": 0.0}
    for nothing in ({"stop_words": [""]}, {"bad_words": [""]}, {"top_p": 0.0}, {"length_penalty": 1.0}, greedy):
        assert text(**nothing) == plain, nothing


def test_the_openai_trtllm_bridge_finds_outputs_in_every_response(server: RealServer) -> None:
    inputs = {
        "text_input": FRANCE, "max_tokens": 6, "bad_words": [""], "stop_words": ["</s>"], "beam_width": 1, "top_k": 1,
        "stream": True,
    }  # fmt: skip
    arrays = {name: rows(value) for name, value in inputs.items()} | {"random_seed": rows(5, np.uint64)}
    results = streamed(server, "ensemble", arrays)
    assert all(result.get_response().raw_output_contents for result in results)
    assert joined(results).startswith(" Paris")


def test_perf_analyzer_gets_its_final_flag_once(server: RealServer) -> None:
    results = streamed(server, "ensemble", end_to_end(stream=True), empty_final=True)
    flags = [r.get_response().parameters["triton_final_response"].bool_param for r in results]
    assert flags == [False] * (len(flags) - 1) + [True]


def test_triton_s_own_openai_frontend_can_sum_counts_and_read_one_text(server: RealServer) -> None:
    inputs = {
        "text_input": FRANCE, "stream": True, "max_tokens": 6, "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "stop_words": ["zzz"], "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.1, "temperature": 0.0,
    }  # fmt: skip
    arrays = {name: rows(value) for name, value in inputs.items()} | {"seed": rows(3, np.uint64)}
    results = streamed(server, "ensemble", arrays)
    assert all(r.as_numpy("text_output").size == 1 for r in results)
    assert sum(int(r.as_numpy("num_input_tokens")[0]) for r in results) == 5
    assert sum(int(r.as_numpy("num_output_tokens")[0]) for r in results) == 6


def test_vllm_s_parameters_may_be_strings_and_the_prompt_comes_back_by_default(server: RealServer) -> None:
    sent = {"max_tokens": "6", "temperature": "0", "n": "2", "logprobs": 1}
    inputs = {"text_input": words(FRANCE), "sampling_parameters": words(json.dumps(sent))}
    flags = {name: np.array([True]) for name in ("return_finish_reason", "return_cumulative_logprob", "return_logprobs")}
    (whole,) = streamed(server, "vllm_model", inputs | flags)
    assert [t.decode() for t in whole.as_numpy("text_output")] == [whole.as_numpy("text_output")[0].decode()] * 2
    assert whole.as_numpy("text_output")[0].decode().startswith(FRANCE + " Paris")
    assert whole.as_numpy("finish_reason").tolist() == [b"length", b"length"]
    entries = json.loads(whole.as_numpy("logprobs")[0])
    chosen = [next(iter(entry.values())) for entry in entries]
    assert chosen[0]["decoded_token"] == " Paris" and chosen[0]["rank"] == 1
    assert whole.as_numpy("cumulative_logprob")[0] == pytest.approx(sum(c["logprob"] for c in chosen), rel=1e-4)
    pieces = streamed(server, "vllm_model", inputs | {"stream": np.array([True])})
    texts = ["", ""]
    for piece in pieces:
        texts = [text + new.decode() for text, new in zip(texts, piece.as_numpy("text_output"), strict=True)]
    assert [FRANCE + text for text in texts] == [t.decode() for t in whole.as_numpy("text_output")]
    with pytest.raises(InferenceServerException, match="a stream carries the answer only"):
        streamed(server, "vllm_model", inputs | {"stream": np.array([True]), "exclude_input_in_output": np.array([False])})
    over_http = server.generate("vllm_model", text_input=FRANCE, parameters={"max_tokens": 6, "temperature": 0}).json()
    assert over_http["text_output"] == whole.as_numpy("text_output")[0].decode()


def test_the_llm_api_s_names_are_understood(server: RealServer) -> None:
    inputs = {
        "text_input": FRANCE, "streaming": True, "sampling_param_max_tokens": 6, "sampling_param_temperature": 0.0,
        "sampling_param_stop": ["zzz"], "sampling_param_return_perf_metrics": True, "return_finish_reason": True,
        "return_cumulative_logprob": True,
    }  # fmt: skip
    results = streamed(server, "tensorrt_llm", {name: rows(value) for name, value in inputs.items()})
    assert joined(results).startswith(" Paris")
    assert results[-1].as_numpy("finish_reason").tolist() == [b"length"]
    assert results[-1].as_numpy("cumulative_logprob")[0] < 0
    assert results[-1].as_numpy("last_token_time_ns")[0][0] > 0
    best = {"best_of": 3, "temperature": 1.0, "max_tokens": 4}
    named = {f"sampling_param_{name}": rows(value) for name, value in best.items()}
    (one,) = streamed(server, "tensorrt_llm", {"text_input": rows(FRANCE), **named})
    assert one.as_numpy("text_output").shape == (1,)


@pytest.mark.parametrize("stop_model", [*PIPELINES, "tensorrt_llm"])
def test_a_stop_signal_with_the_same_id_ends_the_request(server: RealServer, stop_model: str) -> None:
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()
    long = end_to_end(stream=True, tokens=1500) | {"ignore_eos": rows(True)}
    stop = {"input_ids": rows(0), "input_lengths": rows(0), "request_output_len": rows(0, np.uint32), "stop": rows(True)}
    cancelled = 0
    with triton_grpc.InferenceServerClient(server.options.grpc_url) as client:
        client.start_stream(callback=lambda result, error: found.put(error or result))
        client.async_stream_infer("ensemble", tensors(long), request_id="4711")
        found.get(timeout=20)
        client.async_stream_infer(stop_model, tensors(stop), request_id="4711", parameters={"Streaming": True})
        while cancelled < 2:  # of the request, and of the signal
            result = found.get(timeout=20)
            cancelled += result.as_numpy("finish_reason")[0] == b"cancelled"
        client.stop_stream(cancel_requests=True)
    server.wait_idle()


REFUSED: dict[str, Any] = {
    "beam_width": rows(4), "decoder_text_input": rows("x"), "prompt_embedding_table": np.zeros((1, 2, 2), np.float16),
    "prompt_table_extra_id": rows(1, np.uint64), "prompt_vocab_size": rows(8), "lora_task_id": rows(1, np.uint64),
    "lora_weights": np.zeros((1, 1, 2), np.float16), "lora_config": np.zeros((1, 1, 3), np.int32), "image": rows("aGk="),
    "embedding_request": rows("{}"), "return_context_logits": rows(True), "return_generation_logits": rows(True),
    "length_penalty": rows(2.0), "input_ids": rows(5),
    # not declared: Triton itself refuses them by name
    "use_draft_logits": rows(True), "image_input": np.zeros((1, 1), np.float16),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_refused_by_name(server: RealServer, name: str) -> None:
    with pytest.raises(InferenceServerException, match=name):
        streamed(server, "ensemble", end_to_end() | {name: REFUSED[name]})


def test_unsigned_counts_are_refused_by_name_and_type(server: RealServer) -> None:
    with pytest.raises(InferenceServerException, match=r"'max_tokens'.*expects 'INT32'"):  # langchain-nvidia-trt sends them
        streamed(server, "ensemble", end_to_end() | {"max_tokens": rows(5, np.uint32)})


def test_requests_for_one_response_are_served_over_http_and_grpc(server: RealServer) -> None:
    inputs = {"text_input": words(FRANCE), "max_tokens": np.array([6], np.int32)}
    expected = server.generate(text_input=FRANCE, max_tokens=6).json()["text_output"]
    grpc_client = triton_grpc.InferenceServerClient(server.options.grpc_url)
    assert grpc_client.infer("triune_infer", tensors(inputs)).as_numpy("text_output")[0].decode() == expected
    grpc_client.close()
    asked = [
        {"name": "text_input", "shape": [2, 1], "datatype": "BYTES", "data": [SPAIN, FRANCE]},
        {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [6]},
    ]
    reply = httpx.post(f"{server.url}/v2/models/ensemble_infer/infer", json={"inputs": asked}, timeout=30).json()
    first = reply["outputs"][0]  # the one that clients read
    assert first["name"] == "text_output"
    assert first["data"][0].startswith(" Madrid") and first["data"][1] == expected


def test_an_error_of_a_request_for_one_response_has_its_status(server: RealServer) -> None:
    asked = [
        {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [FRANCE]},
        {"name": "max_tokens", "shape": [1], "datatype": "INT32", "data": [10**6]},
    ]
    reply = httpx.post(f"{server.url}/v2/models/triune_infer/infer", json={"inputs": asked}, timeout=30)
    assert reply.status_code == 400
    assert "INVALID_ARGUMENT [too_long max_tokens]: prompt has 5 tokens" in reply.json()["error"]


def test_requests_for_one_response_are_served_together(server: RealServer) -> None:
    inputs = {"text_input": words(FRANCE), "max_tokens": np.array([48], np.int32), "ignore_eos": np.array([True])}
    done: list[str] = []

    def ask() -> None:
        with triton_grpc.InferenceServerClient(server.options.grpc_url) as client:
            done.append(client.infer("triune_infer", tensors(inputs)).as_numpy("text_output")[0].decode())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    most = 0.0
    while any(thread.is_alive() for thread in threads):
        most = max(most, server.metric("vllm:num_requests_running"))
        time.sleep(0.02)
    assert len(done) == 8 and len(set(done)) == 1
    assert most > 1
