"""LangChain's package for TensorRT-LLM, whose unsigned counts no current server takes. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "langchain-nvidia-trt"


def test_it_finds_the_model_ready_and_in_the_index(run: Run) -> None:
    assert "ensemble" in run("models")["models"]


def test_its_unsigned_counts_are_refused_by_name_and_type(run: Run) -> None:
    found = run("complete")
    unsigned = {name for name, datatype in found["types"].items() if datatype == "UINT32"}
    assert unsigned == {"max_tokens", "top_k", "beam_width"}
    assert "data-type is 'UINT32', but model 'ensemble' expects 'INT32'" in found["answer"]
