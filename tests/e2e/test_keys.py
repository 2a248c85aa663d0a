"""With API keys every port asks for one, health does not, and no other process knows them.

Run: pytest tests/e2e/test_keys.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import openai
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from support.real_server import REPOSITORY, RealServer, start, stop
from triune_client.grpc import GrpcClient

pytestmark = pytest.mark.triton
KEY = "sk-only-for-this-test"
BEARER = {"authorization": f"Bearer {KEY}"}
BODY = {"text_input": "The capital of France is", "max_tokens": 4}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    folder = tmp_path_factory.mktemp("keyed")
    keys = folder / "keys"
    keys.write_text(f"{KEY} # team\n")
    keys.chmod(0o600)
    os.environ["TRIUNE_API_KEYS"] = KEY  # also in the environment, where children could find it
    try:
        server = start(folder, REPOSITORY, f"--api-key-file={keys}", "--openai-host=0.0.0.0")
        yield server
        stop(server)
    finally:
        del os.environ["TRIUNE_API_KEYS"]


def test_http_asks_for_a_key_and_health_does_not(keyed: RealServer) -> None:
    url = f"{keyed.url}/v2/models/triune/generate"
    assert httpx.post(url, json=BODY).status_code == 401
    assert httpx.post(url, json=BODY, headers={"authorization": "Bearer no"}).status_code == 401
    assert "Paris" in httpx.post(url, json=BODY, headers=BEARER, timeout=60).json()["text_output"]
    assert httpx.get(f"{keyed.url}/v2/health/ready").status_code == 200
    assert httpx.get(keyed.options.metrics_url).status_code == 200


def test_the_one_port_that_a_network_may_reach_is_the_only_one(keyed: RealServer) -> None:
    family = [psutil.Process(keyed.process.pid), *psutil.Process(keyed.process.pid).children(recursive=True)]
    sockets = [one.laddr for process in family for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    hosts = {place.port: place.ip.removeprefix("::ffff:") for place in sockets}  # gRPC writes IPv4 within IPv6
    assert {name: hosts.get(port) for name, port in keyed.options.ports.items()} == {
        "HTTP_PORT": "127.0.0.1", "GRPC_PORT": "127.0.0.1", "METRICS_PORT": "127.0.0.1", "OPENAI_PORT": "0.0.0.0",
    }  # fmt: skip
    assert len(sockets) == 4, "nothing else listens"


def test_grpc_asks_for_a_key_and_health_does_not(keyed: RealServer) -> None:
    with triton_grpc.InferenceServerClient(keyed.options.grpc_url) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("triune")
        for headers in (None, {"authorization": "Bearer no"}):
            with pytest.raises(InferenceServerException, match="API key"):
                client.get_model_metadata("triune", headers=headers)
        assert client.get_model_metadata("triune", headers=BEARER).name == "triune"
        with pytest.raises(InferenceServerException, match="closed"):
            client.register_system_shared_memory("x", "/x", 8, headers=BEARER)
        with pytest.raises(InferenceServerException, match="unknown model: 'none'"):
            client.get_model_metadata("none", headers=BEARER)


def test_a_stream_over_grpc_equals_one_over_http(keyed: RealServer) -> None:
    expected = httpx.post(f"{keyed.url}/v2/models/triune/generate", json=BODY, headers=BEARER, timeout=60).json()["text_output"]
    with GrpcClient(keyed.options.grpc_url, headers=BEARER) as client:
        assert "".join(piece.text for piece in client.stream(BODY["text_input"], max_tokens=4)) == expected
    with GrpcClient(keyed.options.grpc_url) as client, pytest.raises(Exception, match="API key"):
        client.generate(BODY["text_input"], max_tokens=4)


def test_who_leaves_a_stream_over_grpc_frees_its_slot(keyed: RealServer) -> None:
    with GrpcClient(keyed.options.grpc_url, headers=BEARER) as client:
        stream = client.stream("Once upon a time", max_tokens=1500, ignore_eos=True)
        next(iter(stream))
    keyed.wait_idle()


def test_the_gateway_still_reaches_the_server(keyed: RealServer) -> None:
    with openai.OpenAI(base_url=f"{keyed.options.openai_url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        assert client.completions.create(model="triune", prompt=str(BODY["text_input"]), max_tokens=4).choices[0].text


def test_the_deep_check_knows_the_key(keyed: RealServer) -> None:
    command = [sys.executable, "-m", "triune_server.health", "--deep", f"--run-folder={keyed.log.parent}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "healthy: generates\n")


def test_our_client_sends_the_key_of_its_environment(keyed: RealServer) -> None:
    command = [sys.executable, "-m", "triune_client", "models", f"--url={keyed.url}"]
    found = {}
    for key in ("", KEY):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "TRIUNE_API_KEY": key})
        found[key] = (done.returncode, "API key" in done.stderr, "triune" in done.stdout)
    assert found == {"": (1, True, False), KEY: (0, False, True)}


def test_neither_triton_nor_its_stubs_know_the_keys(keyed: RealServer) -> None:
    family = psutil.Process(keyed.process.pid).children(recursive=True)
    inner = [process for process in family if process.name().startswith("triton")]
    assert len(inner) > 3
    for process in inner:
        assert KEY not in str(process.environ()), process
        assert KEY not in " ".join(process.cmdline())


def test_what_the_server_makes_is_its_user_s_alone(keyed: RealServer) -> None:
    (triton,) = (p for p in psutil.Process(keyed.process.pid).children() if p.name() == "tritonserver")
    (prefix,) = (one.rpartition("=")[2] for one in triton.cmdline() if "shm-region-prefix-name" in one)
    regions = list(Path("/dev/shm").glob(f"{prefix}*"))
    assert regions
    made = [*regions, keyed.log.parent / "server.log", keyed.log.parent / "triune.json"]
    (socket,) = (one.partition("unix:")[2] for one in triton.cmdline() if one.startswith("--http-address"))
    made.append(Path(socket).parent)
    assert {str(path): oct(path.stat().st_mode & 0o077) for path in made} == {str(path): "0o0" for path in made}


def test_a_call_that_is_unknown_is_refused(keyed: RealServer) -> None:
    with grpc.insecure_channel(keyed.options.grpc_url) as channel:
        call = channel.unary_unary("/some.Service/Method")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=tuple(BEARER.items()))
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
