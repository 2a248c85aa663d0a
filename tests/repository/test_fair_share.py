"""Whose share a request takes goes from its parameters to the scheduler. Run: pytest tests/repository/test_fair_share.py"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from fakes.pb_utils import InferenceRequest, load_model, text
from fakes.repository import fake_repository
from triune_runtime.manifest import Limits


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    limits = Limits(max_length=512, max_sequences=1, prefill_chunk=16)
    return fake_repository(tmp_path_factory.mktemp("fake") / "repository", limits)


def order(repository: Path, clients: str) -> str:
    """The clients in the order in which the answers to their requests ended."""
    generate = load_model(repository, "generate")
    requests = []
    for client in clients:
        options = text(json.dumps({"params": {"max_tokens": 300, "ignore_eos": True}}))
        arrays = {"input_ids": np.array([5, 6, 7], np.int32), "options": options}
        requests.append(InferenceRequest(arrays, given={"x-triune-client": client}))
    generate.execute(requests)
    ended: list[int] = []
    deadline = time.monotonic() + 30
    while len(ended) < len(clients):
        assert time.monotonic() < deadline, f"only {ended} of {clients} ended"
        ended += [at for at, one in enumerate(requests) if one.sender.final and at not in ended]
        time.sleep(0.001)
    generate.finalize()
    return "".join(clients[at] for at in ended)


def test_clients_share_only_where_that_is_asked_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order(repository, "aaab") == "aaab"
    monkeypatch.setenv("TRIUNE_FAIR_SHARE", "on")
    assert order(repository, "aaab") == "abaa"


def test_whose_a_request_is_counts_as_triton_s_parameter_alone(repository: Path) -> None:
    """Options, which anyone may send to `generate` itself, have no such field."""
    options = {"params": {"max_tokens": 1}, "client": "somebody else"}
    generate = load_model(repository, "generate")
    request = InferenceRequest({"input_ids": np.array([5], np.int32), "options": text(json.dumps(options))})
    generate.execute([request])
    assert "client" in str(request.sender.sent[0].error)
    generate.finalize()


def test_a_parameter_that_names_nobody_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_FAIR_SHARE", "on")
    generate = load_model(repository, "generate")
    options = text(json.dumps({"params": {"max_tokens": 1}}))
    request = InferenceRequest({"input_ids": np.array([5], np.int32), "options": options}, given={"x-triune-client": 5})
    generate.execute([request])
    assert "x-triune-client" in str(request.sender.sent[0].error)
    generate.finalize()
