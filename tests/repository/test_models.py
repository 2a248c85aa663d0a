"""Every model.py over a fake of Triton's module and the fake engine. Run: pytest tests/repository/test_models.py"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import InferenceRequest, InferenceResponse, TritonError, load_model, text
from fakes.repository import fake_repository, train_tokenizer
from triune_runtime.manifest import Limits

MODELS = Path(__file__).parents[2] / "model_repository"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_repository(tmp_path_factory.mktemp("fake") / "repository", Limits(max_length=256))


@pytest.fixture
def generate(repository: Path) -> Iterator[Any]:
    model = load_model(repository, "generate")
    yield model
    model.finalize()


def tokenize(
    repository: Path, name: str = "tokenize", parameters: dict[str, Any] | None = None, **inputs: Any
) -> InferenceResponse:
    (response,) = load_model(repository, name).execute([InferenceRequest(inputs, given=parameters or {})])
    assert isinstance(response, InferenceResponse)
    return response


def options_of(response: InferenceResponse) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(response.arrays()["options"][0])
    return parsed


def generated(model: Any, prompt: list[int], options: dict[str, Any], **fields: Any) -> list[InferenceResponse]:
    request = InferenceRequest({"input_ids": np.array(prompt, np.int32), "options": text(json.dumps(options))}, **fields)
    model.execute([request])
    deadline = time.monotonic() + 20
    while not request.sender.final:
        assert time.monotonic() < deadline, "no final response"
        time.sleep(0.002)
    return request.sender.sent


def test_no_model_file_is_long() -> None:
    for path in MODELS.glob("*/1/model.py"):
        assert len(path.read_text("utf-8").splitlines()) < 100, path


def test_tokenize_gives_the_tokenizer_s_ids(repository: Path) -> None:
    ids = tokenize(repository, text_input=text("hello 世界")).arrays()["input_ids"]
    assert ids.dtype == np.int32
    assert ids.tolist() == train_tokenizer().encode("hello 世界").ids


def test_messages_go_through_the_chat_template(repository: Path) -> None:
    ids = tokenize(repository, messages=text('[{"role": "user", "content": "hello"}]')).arrays()["input_ids"]
    assert train_tokenizer().decode(ids.tolist()) == "<|user|>hello<|assistant|>"


def test_both_shapes_mean_the_same(repository: Path) -> None:
    flat: dict[str, Any] = {
        "text_input": text("hello"),
        "max_tokens": np.array([7], np.int32),
        "seed": np.array([3], np.uint64),
    }
    deep = {name: array.reshape(1, 1) for name, array in flat.items()}
    one, two = tokenize(repository, **flat), tokenize(repository, "tokenize_2d", **deep)
    assert one.arrays()["input_ids"].tolist() == two.arrays()["input_ids"].tolist()
    assert options_of(one) == {"params": {"max_tokens": 7, "seed": 3}}
    assert options_of(two) == options_of(one) | {"batched": True}


@pytest.mark.parametrize(
    ("inputs", "parameters", "message"),
    [
        ({}, {}, "needs text_input or messages"),
        ({"text_input": np.array([b"\xff"], np.object_)}, {}, "not valid UTF-8"),
        ({"text_input": text("x" * 20_000)}, {}, "has 20,000 bytes; the 256 tokens"),
        ({"text_input": np.array([[b"a", b"b"]], np.object_)}, {}, "text_input holds 2 strings"),
        ({"messages": text("[" * 50_000)}, {}, "nested too deeply"),
        ({"text_input": text("a"), "sampling_parameters": text('{"a":' * 100_000)}, {}, "nested too deeply"),
        ({"text_input": text("a"), "temperature": np.array([np.nan], np.float32)}, {}, "temperature is nan"),
        ({"text_input": text("a")}, {"timeout": -1}, "timeout is -1"),
        ({"text_input": text("a")}, {"timeout": "soon"}, "timeout is 'soon'"),
        ({"text_input": text("a")}, {"nope": 1}, "no such parameter"),
    ],
)
def test_tokenize_refuses_with_a_reason(
    repository: Path, inputs: dict[str, Any], parameters: dict[str, Any], message: str
) -> None:
    error = tokenize(repository, parameters=parameters, **inputs).error
    assert error is not None
    assert message in str(error)
    assert str(error).startswith("INVALID_ARGUMENT [")
    assert error.code == TritonError.INVALID_ARG


def test_the_nearer_of_two_deadlines_counts(repository: Path) -> None:
    def deadline(timeout_us: int, **inputs: Any) -> float | None:
        found: float | None = options_of(
            tokenize(repository, parameters={"timeout": timeout_us}, text_input=text("a"), **inputs)
        ).get("timeout_s")
        return found

    assert deadline(0) is None
    assert deadline(2_000_000) == 2
    assert deadline(2_000_000, timeout_s=np.array([1], np.float32)) == 1
    assert deadline(2_000_000, timeout_s=np.array([3], np.float32)) == 2


def test_a_whole_answer_is_one_final_response_with_every_tensor(generate: Any) -> None:
    (response,) = generated(
        generate, [5, 6, 7], {"params": {"max_tokens": 6, "ignore_eos": True, "logprobs": 1}, "batched": True}
    )
    arrays = response.arrays()
    assert arrays["finish_reason"].tolist() == [b"length"]
    assert (arrays["num_input_tokens"].tolist(), arrays["num_output_tokens"].tolist()) == ([3], [6])
    assert arrays["batch_index"].shape == arrays["sequence_index"].shape == (1, 1)  # old clients read [0][0]
    assert len(json.loads(arrays["logprobs"][0])) == 6
    assert arrays["cum_log_probs"][0] == pytest.approx(arrays["output_log_probs"].sum(), rel=1e-5)


def test_a_stream_rendered_by_detokenize_is_the_whole_answer(repository: Path, generate: Any) -> None:
    params = {"max_tokens": 60, "ignore_eos": True, "temperature": 1.0, "seed": 5}
    detokenize = load_model(repository, "detokenize")

    def rendered(responses: list[InferenceResponse]) -> str:
        names = ("token_ids", "byte_range", "request_key")
        requests = [InferenceRequest({name: r.arrays()[name] for name in names}) for r in responses]
        return b"".join(r.arrays()["text_output"][0] for r in detokenize.execute(requests)).decode()

    chunks = generated(generate, [5, 6, 7], {"params": params, "stream": True})
    assert [c.arrays()["chunk_index"][0] for c in chunks] == list(range(len(chunks)))
    assert sum(int(c.arrays()["num_output_tokens"][0]) for c in chunks) == 60
    assert rendered(chunks) == rendered(generated(generate, [5, 6, 7], {"params": params}))
    detokenize.finalize()


def test_an_echo_is_the_prompt_and_then_the_answer(repository: Path, generate: Any) -> None:
    ids = train_tokenizer().encode("hello 世界").ids
    detokenize = load_model(repository, "detokenize")
    (echoed,) = generated(generate, ids, {"params": {"max_tokens": 5}, "echo": True})
    (plain,) = generated(generate, ids, {"params": {"max_tokens": 5}})
    first, second = detokenize.execute([InferenceRequest(r.arrays()) for r in (echoed, plain)])
    assert first.arrays()["text_output"][0] == "hello 世界".encode() + second.arrays()["text_output"][0]
    detokenize.finalize()


def test_a_cancelled_detokenize_ends_the_stream(repository: Path, generate: Any) -> None:
    detokenize = load_model(repository, "detokenize")
    options = {"params": {"max_tokens": 200, "ignore_eos": True}, "stream": True}
    request = InferenceRequest({"input_ids": np.array([5], np.int32), "options": text(json.dumps(options))})
    send = request.sender.send

    def send_and_leave(response: InferenceResponse, flags: int = 0) -> None:
        send(response, flags)
        detokenize.execute([InferenceRequest(response.arrays(), cancelled=True)])
        time.sleep(0.05)  # the sender waits, as it does for Triton, while the message arrives

    request.sender.send = send_and_leave  # type: ignore[method-assign]  # a client that leaves after the first chunk
    generate.execute([request])
    deadline = time.monotonic() + 20
    while not request.sender.final and time.monotonic() < deadline:
        time.sleep(0.002)
    assert request.sender.sent[-1].arrays()["finish_reason"].tolist() == [b"cancelled"]
    detokenize.finalize()


def test_detokenize_acknowledges_every_chunk_and_tells_of_clients_that_left(
    repository: Path, generate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    detokenize = load_model(repository, "detokenize")
    sent: list[tuple[int, bool]] = []
    monkeypatch.setattr(
        "triune_runtime.serving.acknowledgements.AcknowledgementSender.send",
        lambda sender, key, *, cancelled: sent.append((key, cancelled)),
    )
    chunks = generated(generate, [5, 6, 7], {"params": {"max_tokens": 20, "ignore_eos": True}, "stream": True})
    key = int(chunks[0].arrays()["request_key"][0])
    for chunk in chunks:
        detokenize.execute([InferenceRequest(chunk.arrays())])
    detokenize.execute([InferenceRequest(chunks[-1].arrays(), cancelled=True)])
    assert sent == [(key, False)] * len(chunks) + [(key, True)]
    detokenize.finalize()


def test_a_closed_service_refuses_as_unavailable(repository: Path) -> None:
    model = load_model(repository, "generate")
    model.finalize()
    (response,) = generated(model, [5], {"params": {"max_tokens": 2}})
    assert response.error is not None
    assert str(response.error).startswith("UNAVAILABLE [stopping]: ")
    assert response.error.code == TritonError.UNAVAILABLE


def test_a_direct_client_that_left_ends_its_request(generate: Any) -> None:
    request = InferenceRequest(
        {"input_ids": np.array([5], np.int32), "options": text('{"params":{"max_tokens":200},"stream":true}')}
    )
    request.sender.cancelled = True
    send = request.sender.send

    def send_slowly(response: InferenceResponse, flags: int = 0) -> None:
        time.sleep(0.15)
        send(response, flags)

    request.sender.send = send_slowly  # type: ignore[method-assign]
    generate.execute([request])
    deadline = time.monotonic() + 20
    while not request.sender.final and time.monotonic() < deadline:
        time.sleep(0.002)
    assert request.sender.sent[-1].arrays()["finish_reason"][0] in (b"cancelled", b"stop", b"length")
    assert len(request.sender.sent) < 20


def test_cancel_without_an_id_is_refused_and_with_one_answers(generate: Any) -> None:
    (refused,) = generated(generate, [0], {"cancel": True})
    assert refused.error is not None and "no id" in str(refused.error)
    assert "cancel" not in str(refused.error)  # clients of TensorRT-LLM have sent stop
    (done,) = generated(generate, [0], {"cancel": True}, id="mine")
    assert done.arrays()["finish_reason"].tolist() == [b"cancelled"]


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "the prompt has no tokens"),
        ([-1], {}, "token id -1"),
        ([10**6], {}, "token id 1000000"),
        ([1], [], "cannot be read: an object is expected"),
        ([1], {"nope": 1}, "cannot be read"),
        ([1], {"params": {"nope": 1}}, "cannot be read"),
        ([1], {"params": {"max_tokens": "x"}}, "max_tokens is 'x'"),
        ([1], {"params": {"max_tokens": True}}, "max_tokens is True"),
        ([1], {"params": {"max_tokens": 10**6}}, "this engine holds 256"),
        ([1], {"params": {"temperature": -1}}, "temperature is -1"),
        ([1], {"params": {"seed": -1}}, "seed is -1"),
        ([1], {"params": {"seed": 1.5}}, "seed is 1.5"),
        ([1], {"params": {"top_k": None}}, "top_k is None"),
        ([1], {"params": {"stop": "x"}}, "stop is 'x'"),
        ([1], {"params": {"stop": [1]}}, "stop is 1"),
        ([1], {"params": {"logit_bias": [[1]]}}, "a pair"),
        ([1], {"params": {"logit_bias": [["a", 1.0]]}}, "logit_bias is 'a'"),
        ([1], {"params": {"bad_words": [["a"]]}}, "bad_words is 'a'"),
        ([1], {"params": {"bad_words": [[10**6]]}}, "bad_words has token id 1000000"),
        ([1], {"params": {"stop_token_ids": [10**6]}}, "stop_token_ids has token id 1000000"),
        ([1], {"params": {"min_tokens": 6, "max_tokens": 5}}, "at most max_tokens, which is 5"),
        ([1], {"params": {"stop": ["x"] * 65}}, "stop has 65 entries"),
        ([1], {"params": {"stop": ["x" * 257]}}, "at most 256 bytes"),
        ([1], {"params": {"bad_words": [[1]] * 1025}}, "bad_words has 1,025 entries"),
        ([1], {"params": {"bad_words": [[1] * 257]}}, "bad_words has 257 entries"),
        ([1], {"params": {"thinking_budget": 5}}, "this model does not think"),
        ([1], {"params": {"thinking_budget": -5}}, "thinking_budget is -5"),
        ([1], {"separate_reasoning": 1}, "separate_reasoning is 1"),
        ([1], {"thinking_open": None}, "thinking_open is None"),
        ([1], {"timeout_s": "x"}, "timeout_s is 'x'"),
        ([1], {"stream": 1}, "stream is 1"),
        ([1], {"request_id": 5}, "request_id is 5"),
    ],
)
def test_generate_refuses_bad_direct_requests_and_serves_on(
    generate: Any, prompt: list[int], options: Any, message: str
) -> None:
    (response,) = generated(generate, prompt, options)
    assert response.error is not None
    assert message in str(response.error)
    assert str(response.error).startswith("INVALID_ARGUMENT [")
    assert response.error.code == TritonError.INVALID_ARG
    (after,) = generated(generate, [1], {"params": {"max_tokens": 2, "ignore_eos": True}})
    assert after.arrays()["num_output_tokens"].tolist() == [2]


def test_detokenize_refuses_what_generate_never_gives(repository: Path) -> None:
    detokenize = load_model(repository, "detokenize")
    for bad, byte_range in ((-1, [0, 1]), (10**6, [0, 1]), (1, [0]), (1, [0, 1, 2])):
        arrays = {"token_ids": np.array([bad]), "byte_range": np.array(byte_range), "request_key": np.array([1])}
        (response,) = detokenize.execute([InferenceRequest(arrays)])
        assert response.error is not None and "are expected" in str(response.error)
    detokenize.finalize()
