"""KServe's own inference clients, over HTTP and gRPC, in the Open Inference Protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import httpx
import numpy as np
from common import ADDRESSES, FRANCE, main
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

HTTP, GRPC = ADDRESSES["HTTP"], ADDRESSES["GRPC"]


def request(text: str, *, binary: bool = True, **numbers: int) -> InferRequest:
    arrays = {"text_input": np.array([[text.encode()]], np.object_)}
    arrays |= {name: np.array([[value]], np.int32) for name, value in numbers.items()}
    inputs = []
    for name, array in arrays.items():
        inputs.append(InferInput(name, list(array.shape), "BYTES" if array.dtype == np.object_ else "INT32"))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    return InferRequest("ensemble_infer", inputs)


def texts(response: Any) -> list[str]:
    """The answer's texts, which come as bytes or as strings."""
    (found,) = (one for one in response.outputs if one.name == "text_output")
    return [one.decode() if isinstance(one, bytes) else one for one in found.as_numpy().ravel().tolist()]


def whole() -> dict[str, Any]:
    return asyncio.run(_whole())


async def _whole() -> dict[str, Any]:
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    found: dict[str, Any] = {}
    for name, binary in (("json", False), ("bytes", True)):
        found[name] = texts(await rest.infer(HTTP, request(FRANCE, binary=binary, max_tokens=6), model_name="ensemble_infer"))
    async with InferenceGRPCClient(GRPC) as over_grpc:
        found["grpc"] = texts(await over_grpc.infer(request(FRANCE, max_tokens=6)))
        found["ready"] = [
            await rest.is_model_ready(HTTP, "ensemble_infer"), await over_grpc.is_server_ready(),
            await over_grpc.is_server_live(), await over_grpc.is_model_ready("triune"),
        ]  # fmt: skip
    await rest.close()
    return found


def errors() -> dict[str, str]:
    return asyncio.run(_errors())


async def _errors() -> dict[str, str]:
    found = {}
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    try:
        await rest.infer(HTTP, request(FRANCE, beam_width=4), model_name="ensemble_infer")
    except httpx.HTTPStatusError as error:
        found["rest"] = (
            f"{error.response.status_code}: {error.response.text}"  # the error's own text leaves out what Triton says
        )
    await rest.close()
    async with InferenceGRPCClient(GRPC) as over_grpc:
        try:
            await over_grpc.infer(request(FRANCE, beam_width=4))
        except grpc.RpcError as error:
            found["grpc"] = f"{error.code().name}: {error.details()}"  # type: ignore[attr-defined]
    return found


main(whole, errors)
