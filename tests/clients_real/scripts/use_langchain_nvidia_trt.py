"""LangChain's package for TensorRT-LLM on Triton, of which there is one release: 0.0.1rc0."""

from __future__ import annotations

from typing import Any

from common import ADDRESSES, FRANCE, main
from langchain_nvidia_trt.llms import TritonTensorRTLLM

MODEL = TritonTensorRTLLM(server_url=ADDRESSES["GRPC"].removeprefix("grpc://"), model_name="ensemble", tokens=8)


def models() -> dict[str, Any]:
    """What it needs of the model repository: an index, and models that are ready."""
    MODEL._load_model("ensemble")
    return {"models": MODEL.get_model_list()}


def complete() -> dict[str, Any]:
    """Its tensors go out with unsigned counts; what comes back is given as it is."""
    inputs = MODEL._generate_inputs([[FRANCE]], tokens=8)
    results = MODEL._invoke_triton("ensemble", inputs, MODEL._generate_outputs(), [])
    answer = str(results.get(timeout=20))
    MODEL.client.stop_stream()
    return {"answer": answer, "types": {tensor.name(): tensor.datatype() for tensor in inputs}}


main(models, complete)
