"""How much to think, said in a word, a switch or a budget. Run: pytest tests/gateway/test_effort.py"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.ensemble import CHAT, Ensemble, Gateway, answer

TABLE = {
    "none": {"enable_thinking": False},
    "minimal": {"enable_thinking": True, "thinking_budget": 256},
    "low": {"enable_thinking": True, "thinking_budget": 1024},
    "medium": {"enable_thinking": True, "thinking_budget": 4096},
    "high": {"enable_thinking": True},
    "xhigh": {"enable_thinking": True},
    "max": {"enable_thinking": True},
}


def told(request: dict[str, Any]) -> dict[str, Any]:
    return {name: request[name] for name in ("enable_thinking", "thinking_budget") if name in request}


@pytest.mark.parametrize("word", TABLE)
def test_a_word_is_a_switch_and_a_budget_in_every_protocol(gateway: Gateway, word: str) -> None:
    gateway.chat(reasoning_effort=word)
    gateway.post("responses", {"model": "triune", "input": "Hi", "reasoning": {"effort": word}})
    assert [told(request) for request in gateway.ensemble.requests] == [TABLE[word]] * 2


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"reasoning_effort": "high", "thinking_budget": 9}, {"enable_thinking": True, "thinking_budget": 9}),
        ({"reasoning_effort": "none", "thinking_budget": 0}, {"enable_thinking": False, "thinking_budget": 0}),
        ({"reasoning_effort": "low", "enable_thinking": True}, TABLE["low"]),
        ({"reasoning_effort": "none", "chat_template_kwargs": {"thinking": False}}, TABLE["none"]),
        ({"reasoning_effort": None}, {}),
        ({"thinking_budget": 9}, {"thinking_budget": 9}),
    ],
)
def test_what_agrees_may_be_said_together(gateway: Gateway, body: dict[str, Any], wanted: dict[str, Any]) -> None:
    gateway.chat(**body)
    assert told(gateway.ensemble.requests[-1]) == wanted


def thoughtless(request: dict[str, Any]) -> Any:
    """A model that does not think."""
    if request.get("enable_thinking"):
        return 400, "INVALID_ARGUMENT [unsupported enable_thinking]: enable_thinking is true, but this model does not think"
    if "thinking_budget" in request:
        return 400, "INVALID_ARGUMENT [unsupported thinking_budget]: thinking_budget is given, but this model does not think"
    return answer("Hel", "lo")


@pytest.mark.parametrize("word", TABLE)
@pytest.mark.parametrize("stream", [False, True])
def test_a_word_has_no_effect_on_a_model_that_does_not_think(
    ensemble: Ensemble, gateway: Gateway, word: str, stream: bool
) -> None:
    ensemble.reply = thoughtless
    body = CHAT | {"reasoning_effort": word, "seed": 3, "stream": stream}
    response = gateway.post("chat/completions", body)
    assert response.status_code == 200 and "lo" in response.text
    assert json.loads(ensemble.requests[-1]["messages"]) == CHAT["messages"] and ensemble.requests[-1]["seed"] == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"enable_thinking": True}, "enable_thinking"),
        ({"thinking_budget": 9}, "thinking_budget"),
        ({"enable_thinking": True, "reasoning_effort": "low"}, "enable_thinking"),
        ({"thinking_budget": 9, "reasoning_effort": "high"}, "thinking_budget"),
    ],
)
def test_a_switch_or_a_budget_that_a_model_cannot_follow_is_refused(
    ensemble: Ensemble, gateway: Gateway, body: dict[str, Any], param: str
) -> None:
    ensemble.reply = thoughtless
    assert gateway.error("chat/completions", CHAT | body, 400)["param"] == param


@pytest.mark.parametrize("said", ["too_long prompt", "conflict enable_thinking", "unsupported temperature"])
def test_other_refusals_are_not_tried_again(ensemble: Ensemble, gateway: Gateway, said: str) -> None:
    ensemble.reply = lambda request: (400, f"INVALID_ARGUMENT [{said}]: no")
    gateway.error("chat/completions", CHAT | {"reasoning_effort": "low"}, 400)
    assert len(ensemble.requests) == 1
