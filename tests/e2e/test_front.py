"""The front before a real Triton: attacks that end Triton do not reach it, and answers are Triton's own.

Run: pytest tests/e2e/test_front.py
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from support.real_server import RealServer

pytestmark = pytest.mark.triton
GENERATE = "/v2/models/triune/generate"
BODY = {"text_input": "The capital of France is", "max_tokens": 8}


def triton(server: RealServer) -> psutil.Process:
    family = psutil.Process(server.process.pid).children(recursive=True)
    (found,) = (process for process in family if process.name() == "tritonserver")
    return found


@contextmanager
def direct(server: RealServer) -> Iterator[httpx.Client]:
    """A client past the front."""
    (address,) = (one for one in triton(server).cmdline() if one.startswith("--http-address=unix:"))
    with httpx.Client(transport=httpx.HTTPTransport(uds=address.partition("unix:")[2]), base_url="http://triton") as client:
        yield client


def raw(server: RealServer, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.options.http_port), timeout=60) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


HEAD = f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
NESTED = b'{"text_input":' + b"[" * 100_000 + b"]" * 100_000 + b"}"  # a stack overflow, directly
ATTACKS = {
    "nested JSON": HEAD + b"Content-Length: %d\r\n\r\n" % len(NESTED) + NESTED,
    "nested JSON from a web page": HEAD + b"Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(NESTED) + NESTED,
    "chunks of one byte": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1_000_000 + b"0\r\n\r\n",
    "both lengths": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2/logging HTTP/1.1\r\n\r\n",
    "shared memory": HEAD.replace(GENERATE.encode(), b"/v2/systemsharedmemory/region/x/register")
    + b"Content-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_triton_serves_on(server: RealServer, name: str) -> None:
    before = triton(server)
    try:
        answer = raw(server, ATTACKS[name])
        assert re.match(rb"HTTP/1\.1 4\d\d ", answer), answer[:200]
    except (ConnectionResetError, BrokenPipeError):
        pass  # told while it still sent
    assert triton(server) == before
    assert server.generate(**BODY).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/triune", "/v2/models/triune/ready", "/v2/models/triune/config",
     "/v2/models/none", "/v2/models/none/config", "/v2/models/triune/versions/1/ready", "/v2/models/triune/versions/9"],
)  # fmt: skip
def test_what_is_read_is_byte_equal_to_triton_s(server: RealServer, path: str) -> None:
    with direct(server) as client:
        expected = client.get(path)
    found = httpx.get(server.url + path)
    assert (found.status_code, found.content) == (expected.status_code, expected.content)
    assert dict(found.headers) == dict(expected.headers) | {"x-request-id": found.headers["x-request-id"]}


@pytest.mark.parametrize("kind", ["generate", "generate_stream"])
@pytest.mark.parametrize("more", [{}, {"max_tokens": "many"}, {"temperature": -1.0}, {"unknown_thing": 1}, {"messages": "{"}])
def test_generated_answers_are_byte_equal_to_triton_s(server: RealServer, kind: str, more: dict[str, object]) -> None:
    def comparable(answer: httpx.Response) -> tuple[int, bytes, str]:
        text = re.sub(rb'"request_key":\d+', b"", answer.content)
        events = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
        if not events or "error" in events[0]:
            return answer.status_code, text, ""
        # How many tokens an event brings is a matter of time.
        return answer.status_code, b"", "".join(event["text_output"] for event in events)

    body = {**BODY, "stream": kind == "generate_stream", **more}
    path = f"/v2/models/triune/{kind}"
    with direct(server) as client:
        expected = client.post(path, json=body, timeout=60)
    assert comparable(httpx.post(server.url + path, json=body, timeout=60)) == comparable(expected)


@pytest.mark.parametrize("packed", [False, True])
def test_binary_tensors_go_both_ways(server: RealServer, packed: bool) -> None:
    """As tritonclient sends them: JSON, then bytes, and a header that says how much of it is JSON."""
    text = b"The capital of France is"
    data = struct.pack("<I", len(text)) + text
    described = {"name": "text_input", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    asked = {"inputs": [described], "outputs": [{"name": "input_ids", "parameters": {"binary_data": True}}]}
    header = json.dumps(asked).encode()
    headers = {"Inference-Header-Content-Length": str(len(header)), "Accept-Encoding": "gzip" if packed else "identity"}
    body = gzip.compress(header + data) if packed else header + data
    path = "/v2/models/tokenize/infer"
    with direct(server) as client:
        expected = client.post(path, content=header + data, headers=headers)
    more = {"Content-Encoding": "gzip"} if packed else {}
    found = httpx.post(server.url + path, content=body, headers=headers | more)
    assert (found.status_code, found.content) == (expected.status_code, expected.content), found.text[:200]
    assert found.status_code == 200
    length = int(found.headers["inference-header-content-length"])
    assert len(found.content[length:]) == 4 * 5, "five tokens of four bytes"


@pytest.mark.parametrize("path", ["/v2/repository/models/triune/load", "/v2/repository/models/triune/unload", "/v2/logging"])
def test_control_over_http_is_closed(server: RealServer, path: str) -> None:
    answer = httpx.post(server.url + path, json={})
    assert answer.status_code == 403 and "closed" in answer.json()["error"]
    assert {"name": "triune", "version": "1", "state": "READY"} in httpx.post(f"{server.url}/v2/repository/index").json()


def test_control_over_grpc_is_closed(server: RealServer) -> None:
    with triton_grpc.InferenceServerClient(server.options.grpc_url) as client:
        assert client.is_server_live()
        for control in (
            lambda: client.register_system_shared_memory("x", "/x", 8),
            lambda: client.update_log_settings({"log_verbose_level": 1}),
            lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
            lambda: client.load_model("triune"),
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                control()


def test_nothing_of_triton_s_http_listens_on_a_port(server: RealServer) -> None:
    listening = {c.laddr.port for c in triton(server).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert listening == {server.options.grpc_port}


def test_metrics_pass_through_and_their_port_serves_nothing_else(server: RealServer) -> None:
    assert "nv_inference_request_success" in httpx.get(server.options.metrics_url).text
    root = server.options.metrics_url.removesuffix("/metrics")
    assert {httpx.get(root + path).status_code for path in ("/", "/v2", "/v2/health/live")} == {404}


def test_an_overloaded_or_wrong_request_keeps_triton_s_text(server: RealServer) -> None:
    answer = server.generate(**BODY, min_tokens=-1)
    assert answer.status_code == 400
    assert "INVALID_ARGUMENT" in json.loads(answer.text)["error"]
