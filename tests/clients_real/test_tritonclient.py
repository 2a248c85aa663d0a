"""NVIDIA's tritonclient. Run: make test-clients"""

from __future__ import annotations

from pathlib import Path

import pytest

from clients_real.conftest import Run, call
from fakes.repository import fake_repository
from support.certificates import LOCAL, Authority
from support.real_server import start, stop

pytestmark = pytest.mark.triton
CLIENT = "tritonclient"


def test_http_and_grpc_get_whole_answers_and_rows_of_them(run: Run) -> None:
    found = run("whole")
    assert len(set(found["texts"])) == 1 and found["texts"][0].startswith(" Paris")
    assert found["batch"][0] == found["texts"][0] and len(found["batch"]) == 2
    assert found["ready"] == [True, True, True]
    assert {"ensemble", "tensorrt_llm_bls", "tensorrt_llm", "vllm_model"} <= set(found["models"])


def test_streams_of_every_alias_are_the_same_text(run: Run) -> None:
    streams = run("stream")
    assert len({"".join(pieces) for pieces in streams.values()}) == 1
    for pieces in streams.values():
        assert len(pieces) > 1 and "".join(pieces).startswith(" Paris")


def test_an_error_has_its_status_and_its_reason(run: Run) -> None:
    found = run("error")
    assert found["status"].endswith("INVALID_ARGUMENT")
    assert "beam_width is 4" in found["message"]


def test_http_and_grpc_over_tls(client_bin: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = start(tmp_path, fake_repository(tmp_path / "repository"), tls=authority.issue("secured", *LOCAL))
    addresses = {"HTTP": server.options.http_url, "GRPC": server.options.grpc_url, "CA": str(authority.file)}
    try:
        found = call(client_bin, CLIENT, "secured", addresses)
    finally:
        stop(server)
    assert found["ready"] == [True, True] and found["texts"][0] and len(set(found["texts"])) == 1
    assert found["untrusted"] == 2, "by whoever does not know the authority"
