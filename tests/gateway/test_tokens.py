"""/tokenize, /detokenize and /v1/models. Run: pytest tests/gateway/test_tokens.py"""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from fakes.ensemble import CHAT, Ensemble, Gateway, error_of


def told(gateway: Gateway, path: str, **body: Any) -> dict[str, Any]:
    response = gateway.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_prompt_is_tokenized_as_the_model_would_get_it(gateway: Gateway) -> None:
    found = told(gateway, "/tokenize", model="triune", prompt="ab")
    assert found == {"count": 3, "max_model_len": 128, "tokens": [0, 97, 98], "token_strs": None}
    assert told(gateway, "/tokenize", prompt="a", return_token_strs=True)["token_strs"] == ["<0>", "<97>"]


def test_what_is_put_before_a_prompt_is_a_choice(gateway: Gateway) -> None:
    told(gateway, "/tokenize", prompt="ab", add_special_tokens=False)
    told(gateway, "/tokenize", prompt="ab")
    assert [sent.get("add_special_tokens") for sent in gateway.ensemble.tokenized] == [False, None]


def test_messages_are_tokenized_through_the_template(gateway: Gateway) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    told(
        gateway, "/tokenize", messages=CHAT["messages"], add_generation_prompt=False, tools=[tool],
        chat_template_kwargs={"enable_thinking": False, "mood": "calm"}, documents=[{"text": "x"}],
    )  # fmt: skip
    (sent,) = gateway.ensemble.tokenized
    assert json.loads(sent["messages"]) == CHAT["messages"] and json.loads(sent["tools"]) == [tool]
    assert sent["add_generation_prompt"] is False and sent["enable_thinking"] is False
    assert json.loads(sent["chat_template_kwargs"]) == {"mood": "calm", "documents": [{"text": "x"}]}


def test_tokens_are_text_again(gateway: Gateway) -> None:
    assert told(gateway, "/detokenize", model="triune", tokens=[0, 97, 98]) == {"prompt": "<s>ab"}
    assert told(gateway, "/detokenize", tokens=[]) == {"prompt": ""}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": CHAT["messages"]}, "prompt"),
        ("/tokenize", {"prompt": ""}, "prompt"),
        ("/tokenize", {"prompt": [1]}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ("/tokenize", {"prompt": "a", "chat_template": "x"}, "chat_template"),
        ("/tokenize", {"prompt": "a", "x": 1}, "x"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": True, "continue_final_message": True, "messages": None}, None),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_what_is_wrong_is_named(gateway: Gateway, path: str, body: dict[str, Any], param: str | None) -> None:
    response = gateway.http.post(path, json=body)
    if param is not None:
        assert response.status_code == 400 and error_of(response)["param"] == param


def test_another_model_is_not_there(gateway: Gateway) -> None:
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
        assert gateway.http.post(path, json=body | {"model": "x"}).status_code == 404


def test_what_the_server_refuses_is_named_as_the_client_sent_it(gateway: Gateway) -> None:
    said = {"error": "INVALID_ARGUMENT [invalid_value prompt_token_ids[0]]: prompt_token_ids[0] is 999"}
    gateway.ensemble.tokens = lambda request: httpx.Response(400, json=said)
    assert error_of(gateway.http.post("/detokenize", json={"tokens": [999]}))["param"] == "tokens[0]"


def test_only_holders_of_a_key_may_tokenize(start: Any) -> None:
    gateway = start(api_keys=("k",))
    assert gateway.http.post("/tokenize", json={"prompt": "a"}).status_code == 401
    assert gateway.http.post("/detokenize", json={"tokens": [1]}, headers={"authorization": "Bearer k"}).status_code == 200


def test_a_model_says_how_long_its_prompts_may_be_and_what_it_is_an_alias_of(start: Any) -> None:
    before = int(time.time())
    gateway = start(aliases=("smollm2",))
    models = gateway.http.get("/v1/models").json()["data"]
    for model, name in zip(models, ("triune", "smollm2"), strict=True):
        assert before <= model.pop("created") <= time.time()
        assert model == {
            "id": name, "object": "model", "owned_by": "triune", "root": "triune", "parent": None, "max_model_len": 128,
        }  # fmt: skip
    assert gateway.http.get("/v1/models/smollm2").json()["max_model_len"] == 128


def test_models_are_listed_while_the_server_behind_is_away(gateway: Gateway, ensemble: Ensemble) -> None:
    ensemble.tokens = lambda request: httpx.Response(503, json={"error": "UNAVAILABLE: no"})
    assert [one["max_model_len"] for one in gateway.http.get("/v1/models").json()["data"]] == [None]
