"""Several models behind one gateway: chosen by name, coming and going. Run: pytest tests/gateway/test_routes.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.ensemble import CHAT, Ensemble, Gateway


def write(file: Path, **ensembles: str) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps({name: {"ensemble": ensemble, "repository": "r"} for name, ensemble in ensembles.items()}))
    beside.replace(file)


def listed(gateway: Gateway) -> list[str]:
    return [one["id"] for one in gateway.http.get("/v1/models").json()["data"]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.json"


def test_a_request_goes_to_the_model_that_it_names(start: Callable[..., Gateway], ensemble: Ensemble, file: Path) -> None:
    write(file, first="triune", other="other")
    gateway = start(models_file=file, aliases=("first",))
    for name, behind in (("triune", "triune"), ("other", "other"), ("first", "triune"), ("other", "other")):
        assert gateway.post("chat/completions", CHAT | {"model": name}).status_code == 200
        assert ensemble.asked[-1] == behind


def test_models_come_and_go_without_a_restart(start: Callable[..., Gateway], file: Path) -> None:
    gateway = start(models_file=file)
    assert listed(gateway) == ["triune"]  # no file yet
    write(file, one="one")
    assert listed(gateway) == ["triune", "one"]
    write(file, two="two")
    assert listed(gateway) == ["triune", "two"]
    refused = gateway.post("chat/completions", CHAT | {"model": "one"})
    assert refused.status_code == 404 and "two" in refused.json()["error"]["message"]
    assert gateway.http.get("/v1/models/two").status_code == 200


@pytest.mark.parametrize("broken", ["", "[]", "3", '{"a": 1}', '{"a": {}}', "\x00"])
def test_a_file_that_cannot_be_read_changes_nothing(start: Callable[..., Gateway], file: Path, broken: str) -> None:
    write(file, one="one")
    gateway = start(models_file=file)
    assert listed(gateway) == ["triune", "one"]
    file.write_text(broken)
    assert listed(gateway) == ["triune", "one"]
    write(file, two="two")
    assert listed(gateway) == ["triune", "two"]
