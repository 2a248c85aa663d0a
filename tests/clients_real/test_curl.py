"""curl, on every alias: this one needs no environment, so `make test` runs it. Run: pytest tests/clients_real/test_curl.py"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from support.real_server import RealServer

pytestmark = pytest.mark.triton
FRANCE = "The capital of France is"


def curl(server: RealServer, path: str, body: dict[str, Any]) -> str:
    command = ["curl", "-sN", "--max-time", "60", f"{server.url}/v2/models/{path}", "-d", json.dumps(body)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("model", ["triune", "ensemble", "tensorrt_llm_bls"])
def test_an_alias_generates_whole_and_streamed(server: RealServer, model: str) -> None:
    body = {"text_input": FRANCE, "max_tokens": 6, "bad_words": "", "stop_words": ""}
    whole = json.loads(curl(server, f"{model}/generate", body))["text_output"]
    lines = [line for line in curl(server, f"{model}/generate_stream", body | {"stream": True}).splitlines() if line]
    assert whole.startswith(" Paris")
    assert "".join(json.loads(line.removeprefix("data: "))["text_output"] for line in lines) == whole


def test_the_other_contracts_answer_under_their_names(server: RealServer) -> None:
    vllm = json.loads(curl(server, "vllm_model/generate", {"text_input": FRANCE, "parameters": {"max_tokens": 6}}))
    assert vllm["text_output"].startswith(FRANCE + " Paris")
    llm_api = json.loads(curl(server, "tensorrt_llm/generate", {"text_input": FRANCE, "sampling_param_max_tokens": 6}))
    assert llm_api["text_output"].startswith(" Paris")
    inputs = [
        {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [FRANCE]},
        {"name": "max_tokens", "shape": [1], "datatype": "INT32", "data": [6]},
    ]
    inferred = json.loads(curl(server, "triune_infer/infer", {"inputs": inputs}))
    assert inferred["outputs"][0]["data"][0] == llm_api["text_output"]


def test_several_answers_to_a_prompt_come_in_one_reply(server: RealServer) -> None:
    body = {"text_input": FRANCE, "max_tokens": 8, "n": 3, "temperature": 1.0, "seed": 5}
    reply = json.loads(curl(server, "triune/generate", body))
    alone = json.loads(curl(server, "triune/generate", body | {"n": 1}))
    assert len(reply["text_output"]) == 3
    assert reply["text_output"][0] == alone["text_output"]
