"""LiteLLM's proxy in front of the server. Run: make test-clients"""

from __future__ import annotations

import json

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "litellm-proxy"


def test_answers_through_the_proxy_are_the_server_s_own(run: Run) -> None:
    found = run("proxied", timeout_s=300)
    chat, responses = found["chat"], found["responses"]
    assert found["models"] == ["triune"]
    assert "Paris" in chat["whole"] and chat["streamed"] == chat["whole"]
    assert chat["usage"][0] == chat["usage"][1] > 0
    assert responses["whole"] == responses["streamed"] == responses["final"] == chat["whole"] and responses["more"]
    assert found["tools"]["name"] == "weather" and json.loads(found["tools"]["arguments"])["city"] in ("Paris", "Rome")
    assert found["messages"] == chat["whole"]
    assert found["error"]["status"] == 400 and "temperature" in found["error"]["message"]
