"""Random tensors to every model, over HTTP as JSON, over HTTP as bytes, and over gRPC: an answer or an error, and nothing lost.

Run: pytest tests/fuzz/test_tensors.py; with more cases: make fuzz
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from support.fuzz_answers import check_ends, check_error, check_names, check_refusal, of_grpc, of_json
from support.fuzzing import (
    CASES_OF_EACH,
    MODELS,
    ONE_ANSWER,
    PATIENCE_S,
    STEPS,
    STREAMING,
    Tally,
    Tensor,
    inputs_as_json,
    tensors,
)
from support.real_server import RealServer

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("model", [*STREAMING, *ONE_ANSWER])
def test_json_to_generate(target: RealServer, tally: Tally, model: str) -> None:
    with httpx.Client(base_url=target.url, timeout=PATIENCE_S) as client:

        @CASES_OF_EACH
        @given(inputs_as_json(model), st.booleans())
        def fuzz(body: dict[str, Any], stream: bool) -> None:
            path = f"/v2/models/{model}/generate{'_stream' if stream else ''}"
            reply = client.post(path, content=_to_json(body), headers={"content-type": "application/json"})
            tally.count(f"HTTP JSON to {model}", reply.status_code)
            events = [json.loads(one.removeprefix("data:")) for one in reply.text.split("\n\n") if one.strip()]
            errors = [event["error"] for event in events if "error" in event]
            assert errors or reply.status_code == 200
            for error in errors:
                check_error(max(reply.status_code, 400), error)
                check_names(model, error)
            if not errors and model != "generate":
                check_ends(model, [of_json(event) for event in events], body)

        fuzz()


def _to_json(body: object) -> bytes:
    """JSON in ASCII, as lenient as Python's: it carries infinities and halves of surrogate pairs."""
    return json.dumps(body).encode()


@pytest.mark.parametrize("models", [STREAMING, *((one,) for one in (*ONE_ANSWER, *STEPS))], ids=lambda models: models[0])
def test_bytes_to_infer(target: RealServer, tally: Tally, models: tuple[str, ...]) -> None:
    with httpx.Client(base_url=target.url, timeout=PATIENCE_S) as client:

        @CASES_OF_EACH
        @given(st.sampled_from(models).flatmap(lambda model: st.tuples(st.just(model), tensors(model))), st.integers(0, 15))
        def fuzz(case: tuple[str, list[Tensor]], cut: int) -> None:
            model, sent = case
            described = [
                {
                    "name": one.name, "datatype": one.datatype, "shape": one.shape,
                    "parameters": {"binary_data_size": len(one.raw)},
                }
                for one in sent
            ]  # fmt: skip
            head = json.dumps({"inputs": described, "parameters": {"binary_data_output": bool(cut % 2)}}).encode()
            body = head + b"".join(one.raw for one in sent)
            length = len(head) - (cut == 15)  # one in sixteen lies about where its JSON ends
            headers = {"Inference-Header-Content-Length": str(length), "content-type": "application/octet-stream"}
            reply = client.post(f"/v2/models/{model}/infer", content=body, headers=headers)
            tally.count(f"HTTP bytes to {models[0]}{' and such' * (len(models) > 1)}", reply.status_code)
            if reply.status_code == 501:  # streaming models answer generate only, as Triton says
                assert model in STREAMING
            elif reply.status_code != 200:
                check_error(reply.status_code, reply.json()["error"])
                check_names(model, reply.json()["error"])

        fuzz()


@pytest.mark.parametrize("model", MODELS)
def test_tensors_over_grpc(target: RealServer, tally: Tally, model: str) -> None:
    with grpc.insecure_channel(target.options.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        @CASES_OF_EACH
        @given(tensors(model), st.booleans(), st.sampled_from(["", "a", "\x7f"]), st.integers(0, 9))
        def fuzz(sent: list[Tensor], empty_final: bool, request_id: str, leave: int) -> None:
            request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
            request.parameters["triton_enable_empty_final_response"].bool_param = empty_final
            for one in sent:
                request.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
                request.raw_input_contents.append(one.raw)
            try:
                stream = stub.ModelStreamInfer(iter((request,)), timeout=PATIENCE_S)
                responses = [next(stream)] if leave == 0 else list(stream)
                stream.cancel()
            except grpc.RpcError as error:
                tally.count(f"gRPC to {model}", error.code().name)
                check_refusal(error)
                return
            _check_responses(model, request, responses)
            failed = any(one.error_message for one in responses)
            tally.count(f"gRPC to {model}", "error" if failed else "answer")
            if not failed and leave != 0 and model not in (*STEPS, "generate"):
                answers = [of_grpc(one.infer_response) for one in responses]
                check_ends(model, [one for one in answers if one], request)  # but an empty last one that was asked for

        fuzz()


@pytest.mark.parametrize("model", [*ONE_ANSWER, *STEPS])
def test_tensors_for_one_answer_over_grpc(target: RealServer, tally: Tally, model: str) -> None:
    with grpc.insecure_channel(target.options.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        @CASES_OF_EACH
        @given(tensors(model), st.booleans())
        def fuzz(sent: list[Tensor], leave: bool) -> None:
            request = service_pb2.ModelInferRequest(model_name=model)
            for one in sent:
                request.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
                request.raw_input_contents.append(one.raw)
            call = stub.ModelInfer.future(request, timeout=PATIENCE_S)
            if leave and model in ONE_ANSWER and len(sent) % 4 == 0:  # some clients do not wait
                call.cancel()
                tally.count(f"gRPC for one answer of {model}", "left")
                return
            try:
                response = call.result()
            except grpc.RpcError as error:
                tally.count(f"gRPC for one answer of {model}", error.code().name)
                check_refusal(error)
                check_names(model, error.details() or "")
                return
            tally.count(f"gRPC for one answer of {model}", "answer")
            if model in ONE_ANSWER:
                check_ends(model, [of_grpc(response)], request)

        fuzz()


def _check_responses(model: str, request: Any, responses: Sequence[Any]) -> None:
    assert responses, f"a request without any answer: {request}"
    for response in responses:
        if response.error_message:
            check_error(400, response.error_message)
            check_names(model, response.error_message)


def test_messages_that_are_no_request_over_grpc(target: RealServer, tally: Tally) -> None:
    """Random protocol buffers: tensors in the wrong places, parameters of all kinds, bytes without inputs."""
    with grpc.insecure_channel(target.options.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        parameter = st.one_of(
            st.booleans().map(lambda value: {"bool_param": value}),
            st.integers(-(2**63), 2**63 - 1).map(lambda value: {"int64_param": value}),
            st.text(max_size=9).map(lambda value: {"string_param": value}),
        )
        names = st.sampled_from(
            ["priority", "timeout", "sequence_id", "sequence_start", "max_tokens", "stream", "triton_x", "x"]
        )

        @CASES_OF_EACH
        @given(
            st.sampled_from(
                ["triune"] * 3 + ["triune_infer", "ensemble", "tensorrt_llm", "vllm_model", "generate", "", "nope", "../triune"]
            ),
            st.dictionaries(names, parameter, max_size=3),
            st.just([]) | st.just([]) | st.lists(st.binary(max_size=8), max_size=3),
            tensors("triune"),
            st.just([]) | st.lists(st.sampled_from(["text_output", "finish_reason", "nope", ""]), max_size=3),
        )
        def fuzz(model: str, parameters: dict[str, Any], extra: list[bytes], sent: list[Tensor], outputs: list[str]) -> None:
            request = service_pb2.ModelInferRequest(model_name=model)
            # A stream of a request that names outputs, none of which come, ends without a word in Triton 24.10 unless asked so.
            request.parameters["triton_enable_empty_final_response"].bool_param = True
            for name, value in parameters.items():
                (kind,) = value
                setattr(request.parameters[name], kind, value[kind])
            for one in sent:
                request.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
                request.raw_input_contents.append(one.raw)
            request.raw_input_contents.extend(extra)
            for name in outputs:
                request.outputs.add(name=name)
            try:
                responses = list(stub.ModelStreamInfer(iter((request,)), timeout=PATIENCE_S))
            except grpc.RpcError as error:
                tally.count("gRPC, other messages", error.code().name)
                check_refusal(error)
                return
            _check_responses(model, request, responses)
            tally.count("gRPC, other messages", "error" if any(one.error_message for one in responses) else "answer")

        fuzz()
