"""Several sequences in one request, as each contract gives them. Run: pytest tests/repository/test_sequences.py"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import InferenceRequest, load_model, text
from fakes.repository import fake_repository
from triune_runtime.generation.groups import derived_seed
from triune_runtime.manifest import Limits

PARAMS = {"max_tokens": 12, "temperature": 1.0, "seed": 3, "ignore_eos": True}
PROMPT = [5, 6, 7]
Response = dict[str, Any]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_repository(tmp_path_factory.mktemp("fake") / "repository", Limits(max_length=256))


@pytest.fixture(scope="module")
def pipeline(repository: Path) -> Iterator[Any]:
    """Generate and detokenize as one: options -> responses as a client sees them."""
    generate, detokenize = load_model(repository, "generate"), load_model(repository, "detokenize")

    def run(*options: dict[str, Any], prompt: list[int] = PROMPT) -> list[Response]:
        inputs = {"input_ids": np.array(prompt, np.int32), "options": text(*(json.dumps(o) for o in options))}
        request = InferenceRequest(inputs)
        generate.execute([request])
        deadline = time.monotonic() + 20
        while not request.sender.final:
            assert time.monotonic() < deadline, "no final response"
            time.sleep(0.002)
        if request.sender.sent[-1].error is not None:
            return [{"error": str(request.sender.sent[-1].error)}]
        responses = [one.arrays() for one in request.sender.sent]
        rendered = detokenize.execute([InferenceRequest(one) for one in responses])
        return [one | texts.arrays() for one, texts in zip(responses, rendered, strict=True)]

    yield run
    generate.finalize()
    detokenize.finalize()


def alone(pipeline: Any, index: int, **options: Any) -> str:
    """The text of answer `index`, from a request for it alone."""
    params = PARAMS | {"seed": derived_seed(PARAMS["seed"], index)}  # type: ignore[arg-type]
    (whole,) = pipeline({"params": params} | options)
    return whole["text_output"][0].decode()


def test_whole_answers_come_in_one_response_with_an_element_each(pipeline: Any) -> None:
    (response,) = pipeline({"params": PARAMS | {"logprobs": 0}, "n": 3, "best_of": 3})
    assert [t.decode() for t in response["text_output"]] == [alone(pipeline, index) for index in range(3)]
    assert response["finish_reason"].tolist() == [b"length"] * 3
    assert (response["num_input_tokens"].tolist(), response["num_output_tokens"].tolist()) == ([3], [12] * 3)
    assert response["cum_log_probs"].tolist() == pytest.approx(response["output_log_probs"].sum(axis=1).tolist(), rel=1e-5)
    assert response["output_log_probs"].shape == (3, 12)
    assert [len(json.loads(entry)) for entry in response["logprobs"]] == [12] * 3
    assert response["sequence_index"].tolist() == [[0], [1], [2]]


def test_a_shorter_answer_s_log_probabilities_end_in_zeros(pipeline: Any) -> None:
    params = {"max_tokens": 60, "temperature": 1.0, "seed": 1, "logprobs": 0}
    (response,) = pipeline({"params": params, "n": 8, "best_of": 8})
    lengths = response["num_output_tokens"].tolist()
    assert len(set(lengths)) > 1
    for row, length in zip(response["output_log_probs"], lengths, strict=True):
        assert (row[:length] < 0).all() and not row[length:].any()


def test_streamed_chunks_name_their_sequence_and_add_up(pipeline: Any) -> None:
    chunks = pipeline({"params": PARAMS, "n": 3, "best_of": 3, "stream": True})
    texts, counts = ["", "", ""], [0, 0, 0]
    for chunk in chunks:
        ((index,),) = chunk["sequence_index"].tolist()
        texts[index] += chunk["text_output"][0].decode()
        counts[index] += int(chunk["num_output_tokens"][0])
    assert texts == [alone(pipeline, index) for index in range(3)]
    assert counts == [12] * 3
    assert sum(int(chunk["num_input_tokens"][0]) for chunk in chunks) == 3  # the prompt was computed once


def test_clients_of_tensorrt_llm_get_a_response_for_each_sequence_of_each_row(pipeline: Any) -> None:
    rows = [{"params": PARAMS, "n": 2, "best_of": 2, "batched": True, "prompt_tokens": n} for n in (3, 2)]
    responses = pipeline(*rows, prompt=[5, 6, 7, 8, 9])
    found = {(int(r["batch_index"][0][0]), int(r["sequence_index"][0][0])): r for r in responses}
    assert sorted(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for (row, index), response in found.items():
        params = PARAMS | {"seed": derived_seed(3, index)}
        (expected,) = pipeline({"params": params}, prompt=[[5, 6, 7], [8, 9]][row])
        assert response["text_output"].tolist() == expected["text_output"].tolist()
        assert response["num_input_tokens"].tolist() == [0 if index else (3, 2)[row]]


def test_vllm_s_clients_get_an_element_for_each_sequence_in_every_chunk(pipeline: Any) -> None:
    options = {"params": PARAMS | {"logprobs": 1}, "n": 3, "best_of": 3, "stream": True, "vllm": True}
    chunks = pipeline(options)
    texts, reasons, logprobs = [""] * 3, [[] for _ in range(3)], [[] for _ in range(3)]  # type: ignore[var-annotated]
    for chunk in chunks:
        for index, piece in enumerate(chunk["text_output"]):
            texts[index] += piece.decode()
            reasons[index].append(chunk["finish_reason"][index])
            logprobs[index] += json.loads(chunk["logprobs"][index])
    assert texts == [alone(pipeline, index) for index in range(3)]
    for found in reasons:  # how many chunks there are is a matter of time
        assert found == [b"None"] * found.count(b"None") + [b"length"] * found.count(b"length")
    assert chunks[-1]["finish_reason"].tolist() == [b"length"] * 3
    for index, entries in enumerate(logprobs):
        assert len(entries) == 12
        total = sum(next(iter(entry.values()))["logprob"] for entry in entries)  # the chosen token comes first
        assert chunks[-1]["cum_log_probs"][index] == pytest.approx(total, rel=1e-5)
    best = {rank["rank"] for entry in logprobs[0] for rank in entry.values()}
    assert best <= {1, None}


def test_the_best_by_log_probability_come_back_best_first(pipeline: Any) -> None:
    (every,) = pipeline({"params": PARAMS | {"logprobs": 0}, "n": 6, "best_of": 6})
    order = np.argsort(-every["cum_log_probs"], kind="stable")[:2]
    (best,) = pipeline({"params": PARAMS | {"logprobs": 0}, "n": 2, "best_of": 6})
    assert best["text_output"].tolist() == every["text_output"][order].tolist()
    assert best["cum_log_probs"].tolist() == every["cum_log_probs"][order].tolist()
    batched = pipeline({"params": PARAMS | {"logprobs": 0}, "n": 2, "best_of": 6, "batched": True})
    assert [r["text_output"][0] for r in batched] == best["text_output"].tolist()
    assert [int(r["sequence_index"][0][0]) for r in batched] == [0, 1]
    assert sum(int(r["num_input_tokens"][0]) for r in batched) == 3


def test_an_echo_stands_before_each_answer(pipeline: Any) -> None:
    (response,) = pipeline({"params": PARAMS, "n": 2, "best_of": 2, "echo": True})
    assert response["text_output"].tolist() == [alone(pipeline, i, echo=True).encode() for i in range(2)]


def test_times_and_blocks_are_told_in_tensorrt_llm_s_shapes(pipeline: Any) -> None:
    for chunk in pipeline({"params": PARAMS, "timed": True, "stream": True}):
        times = [chunk[f"{name}_time_ns"] for name in ("arrival", "first_scheduled", "first_token", "last_token")]
        assert [t.shape for t in times] == [(1, 1)] * 4
        assert 0 < times[0] <= times[1] <= times[2] <= times[3]
        assert chunk["kv_cache_alloc_total_blocks"].tolist() == [[1]]
        assert chunk["acceptance_rate"].shape == (1, 1)
    assert "arrival_time_ns" not in pipeline({"params": PARAMS})[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([{"n": 2}], "best_of is 1; n, which is 2"),
        ([{"best_of": 2, "stream": True}], "best_of is 2; n, which is 1"),
        ([{"n": 100, "best_of": 100}], "100 sequences are asked for"),
        ([{"prompt_tokens": 2}, {"prompt_tokens": 2}], "input_ids holds 3 tokens, the options name 4"),
        ([{"prompt_tokens": 3}, {"prompt_tokens": 0}], "the prompt has no tokens"),
        ([{"prompt_tokens": 2}, {"prompt_tokens": 1, "params": {"max_tokens": 10**6}}], "this engine holds 256"),
        ([], "options are empty"),
    ],
)
def test_what_cannot_be_served_is_one_error_for_the_whole_request(
    pipeline: Any, options: list[dict[str, Any]], message: str
) -> None:
    (response,) = pipeline(*options)
    assert message in response["error"]
    assert pipeline({"params": PARAMS})[0]["finish_reason"].tolist() == [b"length"]
