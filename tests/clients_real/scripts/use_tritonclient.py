"""NVIDIA's client library: HTTP, gRPC and streams."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from common import ADDRESSES, FRANCE, main
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

HTTP = ADDRESSES["HTTP"].removeprefix("http://")


def inputs(module: Any, **arrays: Any) -> list[Any]:
    made = []
    for name, value in arrays.items():
        array = np.array(value, object if np.array(value).dtype.kind == "U" else None)
        array = array.astype({"int64": np.int32, "float64": np.float32}.get(array.dtype.name, array.dtype))
        made.append(module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        made[-1].set_data_from_numpy(array)
    return made


def whole() -> dict[str, Any]:
    asked = {"text_input": [[FRANCE]], "max_tokens": [[6]]}
    with over_http.InferenceServerClient(HTTP) as http, over_grpc.InferenceServerClient(ADDRESSES["GRPC"]) as grpc:
        texts = [
            http.infer("ensemble_infer", inputs(over_http, **asked)).as_numpy("text_output")[0].decode(),
            grpc.infer("ensemble_infer", inputs(over_grpc, **asked)).as_numpy("text_output")[0].decode(),
        ]
        index = [model["name"] for model in http.get_model_repository_index()]
        ready = [http.is_server_ready(), grpc.is_model_ready("ensemble"), http.is_model_ready("vllm_model")]
        batch = grpc.infer(
            "ensemble_infer", inputs(over_grpc, text_input=[[FRANCE], ["2 + 2 ="]], max_tokens=[[6], [3]])
        ).as_numpy("text_output")
    return {"texts": texts, "models": index, "ready": ready, "batch": [text.decode() for text in batch]}


def secured() -> dict[str, Any]:
    """Over TLS, by a certificate that is trusted, and by those of the public."""
    asked = {"text_input": [["hello to the world"]], "max_tokens": [[6]]}
    https, grpcs, trusted = HTTP.removeprefix("https://"), ADDRESSES["GRPC"].removeprefix("grpcs://"), ADDRESSES["CA"]
    with (
        over_http.InferenceServerClient(https, ssl=True, ssl_options={"ca_certs": trusted}) as http,
        over_grpc.InferenceServerClient(grpcs, ssl=True, root_certificates=trusted) as grpc,
    ):
        texts = [
            client.infer("ensemble_infer", inputs(module, **asked)).as_numpy("text_output")[0].decode()
            for client, module in ((http, over_http), (grpc, over_grpc))
        ]
        ready = [http.is_server_ready(), grpc.is_server_ready()]
    untrusted = 0
    for module, place in ((over_http, https), (over_grpc, grpcs)):
        with module.InferenceServerClient(place, ssl=True) as client:
            try:
                client.get_server_metadata()
            except Exception:
                untrusted += 1
    return {"texts": texts, "ready": ready, "untrusted": untrusted}


def stream() -> dict[str, Any]:
    found: dict[str, Any] = {}
    asked = {"text_input": [[FRANCE]], "max_tokens": [[6]], "stream": [[True]], "beam_width": [[1]], "temperature": [[0.0]]}
    shapes = {"ensemble": asked, "tensorrt_llm_bls": asked, "vllm_model": {"text_input": [FRANCE], "stream": [True]}}
    for model, arrays in shapes.items():
        parameters = {"max_tokens": 6} if model == "vllm_model" else None
        got: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with over_grpc.InferenceServerClient(ADDRESSES["GRPC"]) as client:
            client.start_stream(callback=lambda result, error, got=got: got.put(error or result))
            client.async_stream_infer(model, inputs(over_grpc, **arrays), parameters=parameters)
            client.stop_stream()
        results = [got.get() for _ in range(got.qsize())]
        found[model] = [result.as_numpy("text_output")[0].decode() for result in results]
    return found


def error() -> dict[str, Any]:
    with over_grpc.InferenceServerClient(ADDRESSES["GRPC"]) as client:
        try:
            client.infer("ensemble_infer", inputs(over_grpc, text_input=[[FRANCE]], beam_width=[[4]]))
        except InferenceServerException as caught:
            return {"status": caught.status(), "message": caught.message()}
    raise AssertionError("beam search was not refused")


main(whole, stream, error, secured)
