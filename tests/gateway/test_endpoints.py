"""The table of endpoints is what is served: a new one is a file and a row. Run: pytest tests/gateway/test_endpoints.py"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from pydantic import Field
from starlette.responses import Response
from starlette.testclient import TestClient

from fakes.ensemble import Ensemble, answer, error_of
from triune_gateway import endpoints as package
from triune_gateway.app import create_app
from triune_gateway.calls import Call, check, common_options, given, sent_fields
from triune_gateway.endpoints import ENDPOINTS
from triune_gateway.endpoints.completions import CompletionShape
from triune_gateway.endpoints.endpoint import Endpoint
from triune_gateway.schemas import Generation
from triune_gateway.serving import Served
from triune_gateway.settings import Settings


class ShoutRequest(Generation):
    """The body of a toy endpoint."""

    words: str = Field(min_length=1)


async def shout(body: ShoutRequest, serving: Served) -> Response:
    """Answers in capitals."""
    serving.check_model(body.model)
    check(body, prompts=1, most=1)
    call = Call(
        prompt=body.words.upper(), options=given(common_options(body)), fields=sent_fields(body, {"prompt": ("words",)})
    )
    shape = CompletionShape(body.model, body.stream_options, logprobs=None, echoed=[""])
    return serving.answer([call], shape, stream=bool(body.stream))


SHOUT = Endpoint(method="POST", path="/v1/completions/shout/{volume}", answer=shout)
BODY = {"model": "triune", "words": "hi"}


@pytest.fixture
def ensemble() -> Ensemble:
    return Ensemble()


@pytest.fixture
def http(ensemble: Ensemble) -> Iterator[TestClient]:
    app = create_app(Settings(api_keys=("k",)), ensemble.client, (*ENDPOINTS, SHOUT))
    with TestClient(app, base_url="http://localhost", headers={"authorization": "Bearer k"}) as client:
        yield client


def test_a_row_of_the_table_is_served_described_and_counted(http: TestClient, ensemble: Ensemble) -> None:
    ensemble.reply = lambda request: answer(request["text_input"])
    assert http.post("/v1/completions/shout/9", json=BODY).json()["choices"][0]["text"] == "HI"
    described = http.get("/openapi.json").json()["paths"]["/v1/completions/shout/{volume}"]["post"]
    assert {"401", "429", "503"} <= set(described["responses"])
    assert described["security"]
    counted = http.get("/metrics").text
    assert 'triune_openai_requests_total{endpoint="/v1/completions/shout",status="200"} 1.0' in counted
    assert 'endpoint="/v1/completions",' not in counted


def test_its_requests_are_refused_as_those_of_all_others(http: TestClient, ensemble: Ensemble) -> None:
    path = "/v1/completions/shout/9"
    assert http.post(path, json=BODY, headers={"authorization": ""}).status_code == 401
    assert error_of(http.post(path, json=BODY | {"wrods": 1}))["code"] == "unknown_parameter"
    assert error_of(http.post(path, json=BODY | {"model": "x"}))["code"] == "model_not_found"
    ensemble.reply = lambda request: (400, "INVALID_ARGUMENT [too_long prompt]: prompt has 9 tokens")
    refused = error_of(http.post(path, json=BODY))
    assert (refused["code"], refused["param"]) == ("context_length_exceeded", "words")


def test_what_is_not_under_v1_is_open_to_everyone(ensemble: Ensemble) -> None:
    async def hello() -> Response:
        return Response("hello")

    row = Endpoint(method="GET", path="/hello", answer=hello, response=Response)
    with TestClient(create_app(Settings(api_keys=("k",)), ensemble.client, (row,)), base_url="http://localhost") as client:
        assert client.get("/hello").text == "hello"
        assert client.get("/health").status_code == 404


def test_every_file_of_an_endpoint_has_its_row() -> None:
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"endpoint"}
    assert {row.answer.__module__.rpartition(".")[2] for row in ENDPOINTS} == files
    rows = [row for name in files for row in vars(importlib.import_module(f"{package.__name__}.{name}")).values()]
    assert sorted(row.path for row in rows if isinstance(row, Endpoint)) == sorted(row.path for row in ENDPOINTS)


@pytest.mark.parametrize("one", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_a_slash_more_makes_another_path_which_leads_nowhere(http: TestClient, one: Endpoint) -> None:
    """A redirect would name this server as it knows itself, which behind a proxy is wrong."""
    response = http.request(one.method, f"{one.path}/", follow_redirects=False)
    assert response.status_code == 404 and "location" not in response.headers
    assert response.json()["error"]["message"]
