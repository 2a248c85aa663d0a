"""A real server with TLS on all ports: what asks it trusts it, or gets nowhere. Run: pytest tests/e2e/test_tls.py"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import tritonclient.grpc as triton_grpc

from fakes.repository import fake_repository
from support.certificates import LOCAL, PUBLIC, Authority
from support.real_server import RealServer, free_port, start, stop
from triune_client import AsyncClient, Client, ConnectError
from triune_client.grpc import AsyncGrpcClient, GrpcClient
from triune_server.gateway import is_gateway_ready
from triune_server.options import ServerOptions

pytestmark = pytest.mark.triton
PROMPT = "hello to the world"
BODY = {"text_input": PROMPT, "max_tokens": 8}
KEY = "sk-only-for-this-test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    folder = tmp_path_factory.mktemp("secured")
    running = start(folder, fake_repository(folder / "repository"), tls=authority.issue("secured", *LOCAL))
    yield running
    stop(running)


@pytest.fixture(scope="module")
def known_elsewhere(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """One whose certificate has no name of this machine, and which asks for keys."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "keys").write_text(f"{KEY}\n")
    (folder / "keys").chmod(0o600)
    pair = authority.issue("elsewhere", *PUBLIC)
    running = start(folder, fake_repository(folder / "repository"), f"--api-key-file={folder / 'keys'}", tls=pair)
    yield running
    stop(running)


def curl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-sS", "--max-time", "60", *map(str, arguments)], capture_output=True, text=True)


def command(server: RealServer, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """The command `triune` with the server's run folder."""
    program = "import sys; from triune_server.entry import main; main()"
    here = [] if words[0] == "load" else [f"--run-folder={server.log.parent}"]
    return subprocess.run(
        [sys.executable, "-c", program, *words, *here], input=typed, capture_output=True, text=True, timeout=120
    )  # fmt: skip


def test_curl_trusts_every_port_by_the_authority_and_by_no_other(secured: RealServer, authority: Authority) -> None:
    trusting = ("--cacert", authority.file)
    url = f"{secured.url}/v2/models/triune"
    whole = json.loads(curl(*trusting, f"{url}/generate", "-d", json.dumps(BODY)).stdout)["text_output"]
    streamed = curl(*trusting, "-N", f"{url}/generate_stream", "-d", json.dumps(BODY | {"stream": True})).stdout.splitlines()
    pieces = [json.loads(line.removeprefix("data: "))["text_output"] for line in streamed if line]
    assert whole and "".join(pieces) == whole
    assert "vllm:num_requests_running" in curl(*trusting, secured.options.metrics_url).stdout
    assert "triune_tls_not_after_seconds" in curl(*trusting, f"{secured.options.openai_url}/metrics").stdout
    assert "<html" in curl(*trusting, f"{secured.options.openai_url}/").stdout.lower()
    for one in (secured.url, secured.options.metrics_url, secured.options.openai_url):
        assert curl(one).returncode == 60, "it is no public one"
        assert curl(one.replace("https", "http")).returncode in (52, 56), "it has no answer"
    offered = curl("-v", "--http2", *trusting, f"{secured.url}/v2/health/ready")
    assert "accepted http/1.1" in offered.stderr and "HTTP/1.1 200" in offered.stderr


def test_openai_s_sdk_over_https(secured: RealServer, authority: Authority) -> None:
    with (
        httpx.Client(verify=ssl.create_default_context(cafile=authority.file)) as http,
        openai.OpenAI(base_url=f"{secured.options.openai_url}/v1", api_key="none", http_client=http, timeout=60) as client,
    ):
        asked = {"model": "triune", "prompt": PROMPT, "max_tokens": 8}
        whole = client.completions.create(**asked).choices[0].text
        assert whole and "".join(event.choices[0].text for event in client.completions.create(**asked, stream=True)) == whole


def test_tritonclient_over_grpc(secured: RealServer, authority: Authority) -> None:
    place = secured.options.grpc_url.removeprefix("grpcs://")
    with triton_grpc.InferenceServerClient(place, ssl=True, root_certificates=str(authority.file)) as client:
        assert client.is_server_ready() and client.get_model_metadata("triune").name == "triune"


def test_our_clients_get_one_text_by_all_ways(secured: RealServer, authority: Authority) -> None:
    async def alone() -> list[str]:
        async with AsyncClient(secured.url, ca_file=authority.file) as client:
            text = (await client.generate(PROMPT, max_tokens=8)).text
        async with AsyncGrpcClient(secured.options.grpc_url, ca_file=authority.file) as client:
            return [text, (await client.generate(PROMPT, max_tokens=8)).text]

    own = secured.options.tls_cert
    found = asyncio.run(alone())
    with Client(secured.url, ca_file=str(authority.file)) as http, GrpcClient(secured.options.grpc_url, ca_file=own) as grpc:
        assert http.ready() and grpc.ready()
        found += [client.generate(PROMPT, max_tokens=8).text for client in (http, grpc)]
    assert found[0] and len(set(found)) == 1


def test_who_does_not_trust_it_is_told_so(secured: RealServer) -> None:
    for client in (Client(secured.url, max_retries=0), GrpcClient(secured.options.grpc_url, max_retries=0)):
        with client, pytest.raises(ConnectError, match=r"the certificate of .* is not trusted: .*ca_file"):
            client.models()


@pytest.mark.parametrize("which", ["secured", "known_elsewhere"])
def test_commands_at_this_machine_work_whatever_the_certificate_is_for(which: str, request: pytest.FixtureRequest) -> None:
    server: RealServer = request.getfixturevalue(which)
    status = command(server, "status")
    assert status.stdout.startswith("ready: ") and f"{server.options.openai_url}/v1" in status.stdout
    assert "0 running, 0 waiting" in status.stdout, "its metrics answer"
    assert command(server, "health", "--deep").stdout == "healthy: generates\n"
    assert command(server, "health", f"--gateway={server.options.openai_url}").stdout == "healthy: ready\n"
    for words in (["chat"], ["chat", "--grpc"]):
        told = command(server, *words, "--max-tokens=8", typed="hello\n")
        assert told.returncode == 0 and told.stdout.strip(), told
    for protocol in ("chat", "kserve-grpc", "generate"):
        load = command(
            server, "load", f"--running={server.log.parent}", f"--protocol={protocol}", "--streams=1", "--requests=2",
            "--output-tokens=4", "--quiet", "--no-checks", *([f"--header=authorization:Bearer {KEY}"] * (which != "secured")),
        )  # fmt: skip
        assert load.returncode == 0, (protocol, load.stdout, load.stderr)


def test_the_printed_lines_work_when_pasted(secured: RealServer) -> None:
    lines = [line.strip() for line in command(secured, "status").stdout.splitlines()]
    (line,) = [line for line in lines if line.startswith("curl ")]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["finish_reason"], done.stderr
    (line,) = [line for line in lines if "triune_client chat" in line]
    done = subprocess.run(["bash", "-c", f"echo hello | {line}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_a_key_is_asked_for_over_tls(known_elsewhere: RealServer, authority: Authority) -> None:
    name = PUBLIC[0].removeprefix("DNS:")
    trusted = {"ca_file": authority.file, "server_name": name}
    with GrpcClient(known_elsewhere.options.grpc_url, **trusted) as client, pytest.raises(Exception, match="API key"):
        client.generate(PROMPT, max_tokens=4)
    headers = {"authorization": f"Bearer {KEY}"}
    with GrpcClient(known_elsewhere.options.grpc_url, headers=headers, **trusted) as client:
        assert client.generate(PROMPT, max_tokens=4).usage.output_tokens
    other = Client(known_elsewhere.url, headers=headers, ca_file=authority.file, server_name="other.example", max_retries=0)
    with other, pytest.raises(ConnectError, match=r"other\.example"):
        other.models()


def test_a_gateway_alone_trusts_the_server_behind_it(secured: RealServer, authority: Authority, tmp_path: Path) -> None:
    port, behind = free_port(), secured.options.grpc_url
    gateway = [sys.executable, "-m", "triune_gateway", f"--port={port}", f"--grpc-url={behind}"]
    done = subprocess.run([*gateway, f"--grpc-ca-file={tmp_path / 'none'}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: ca_file is ")
    process = subprocess.Popen([*gateway, f"--grpc-ca-file={authority.file}"])
    try:
        end = time.monotonic() + 60
        while not is_gateway_ready(ServerOptions(repository=Path("none"), openai_port=port)):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(20)
