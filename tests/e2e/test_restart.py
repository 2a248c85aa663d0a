"""A server whose generate process is killed serves again by itself. Run: pytest tests/e2e/test_restart.py"""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from support.real_server import RealServer, wait_ready

pytestmark = pytest.mark.triton


def test_killing_generate_under_load_gives_errors_and_then_service_again(own_server: RealServer) -> None:
    outcomes: list[str] = []
    lock = threading.Lock()
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            body = {"text_input": "Once upon a time", "max_tokens": 80, "ignore_eos": True, "stream": True}
            try:
                url = f"{own_server.url}/v2/models/triune/generate_stream"
                with httpx.stream("POST", url, json=body, timeout=httpx.Timeout(30, connect=2)) as response:
                    text = response.read().decode()
                outcome = "ok" if '"finish_reason":"length"' in text else "error"
            except httpx.TimeoutException as error:
                outcome = "refused" if isinstance(error, httpx.ConnectTimeout) else "hang"
            except httpx.HTTPError:
                outcome = "error"
            with lock:
                outcomes.append(outcome)
            time.sleep(0.05)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    (stub,) = own_server.stubs("generate")
    killed = time.monotonic()
    stub.kill()
    time.sleep(2)
    wait_ready(own_server, timeout_s=30)
    while own_server_fails(own_server):
        assert time.monotonic() - killed < 30, "no answer 30 s after the kill"
        time.sleep(0.2)
    seconds = time.monotonic() - killed
    print(f"serving again {seconds:.1f} s after the kill")
    done.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a client hangs"
    assert "hang" not in outcomes, outcomes
    assert "error" in outcomes, outcomes
    assert seconds < 30


def own_server_fails(server: RealServer) -> bool:
    try:
        return server.generate(text_input="The capital of France is", max_tokens=2).status_code != 200
    except httpx.HTTPError:
        return True


def test_clients_of_the_openai_api_are_told_to_ask_again(own_server: RealServer) -> None:
    """Whole answers get 503 with Retry-After, streams that have begun an error event; nobody waits for a timeout."""
    got: dict[bool, httpx.Response] = {}

    def ask(stream: bool) -> None:
        body = {"model": "triune", "prompt": "Once", "max_tokens": 1500, "ignore_eos": True, "stream": stream}
        got[stream] = httpx.post(f"{own_server.options.openai_url}/v1/completions", json=body, timeout=60)

    threads = [threading.Thread(target=ask, args=(stream,)) for stream in (False, True)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 30
    while own_server.metric("vllm:num_requests_running") < 2:
        assert time.monotonic() < end, "they are not served"
        time.sleep(0.1)
    (stub,) = own_server.stubs("generate")
    stub.kill()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a client hangs"
    whole, streamed = got[False], got[True]
    assert (whole.status_code, whole.headers.get("retry-after")) == (503, "1"), whole.text
    assert whole.json()["error"]["code"] in ("interrupted", "not_ready")
    assert streamed.status_code == 200 and '"code":"interrupted"' in streamed.text.split("\n\n")[-3], streamed.text[-500:]
    wait_ready(own_server, timeout_s=30)
