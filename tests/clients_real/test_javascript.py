"""openai, anthropic and the AI SDK for JavaScript. Run: make test-clients, which needs node and npm for them"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.real_server import ROOT, RealServer

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not os.environ.get("TRIUNE_TEST_CLIENTS"), reason="needs the clients: run `make test-clients`"),
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node"),
]
SCRIPT = Path(__file__).parent / "js" / "use.mjs"
MODULES = ROOT / ".venvs" / "client-javascript"


def run(server: RealServer, function: str) -> Any:
    command = ["node", str(SCRIPT), function, f"http://127.0.0.1:{server.options.openai_port}/v1", str(MODULES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def test_openai_has_responses_whole_streamed_and_gone_on_from(server: RealServer) -> None:
    found = run(server, "openai")
    assert "Paris" in found["text"] and found["streamed"] == found["text"] and found["more"]


def test_anthropic_has_a_message_whole_and_streamed(server: RealServer) -> None:
    found = run(server, "anthropic")
    assert "Paris" in found["text"] and found["streamed"] == found["text"]


def test_the_ai_sdk_has_texts_objects_and_calls_of_tools_over_both_protocols(server: RealServer) -> None:
    for name, found in run(server, "ai").items():
        assert "Paris" in found["text"] and found["streamed"] == found["text"], name
        assert found["object"]["city"] in ("Paris", "Rome")
        whole, streamed = found["tools"]
        assert whole == streamed and whole[0][0] == "tool-calls"
        cities = [call["city"] for call in whole[0][1]]
        assert cities and set(cities) <= {"Paris", "Rome"}
