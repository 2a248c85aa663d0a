"""What dashboards read is on the server's own /metrics. Run: pytest tests/e2e/test_metrics.py"""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.real_server import RealServer
from triune_runtime.metrics import FAMILIES

pytestmark = pytest.mark.triton
# Names that the dashboards of vLLM and TensorRT-LLM use.
KNOWN = """
    vllm:num_requests_running vllm:num_requests_waiting vllm:kv_cache_usage_perc vllm:prompt_tokens_total
    vllm:generation_tokens_total vllm:request_success_total vllm:time_to_first_token_seconds_bucket
    vllm:time_per_output_token_seconds_bucket vllm:e2e_request_latency_seconds_bucket vllm:request_queue_time_seconds_bucket
    nv_trt_llm_request_metrics nv_trt_llm_kv_cache_block_metrics nv_inference_request_success
""".split()


def wait_for(server: RealServer, metric: str, value: float) -> None:
    deadline = time.monotonic() + 10
    while server.metric(metric) < value:
        assert time.monotonic() < deadline, f"{metric} is {server.metric(metric)}, not {value}"
        time.sleep(0.1)


def test_the_names_of_other_servers_dashboards_are_there(server: RealServer) -> None:
    before = server.metric("vllm:generation_tokens_total")
    server.generate(text_input="The capital of France is", max_tokens=3, ignore_eos=True)
    wait_for(server, "vllm:generation_tokens_total", before + 3)
    text = httpx.get(server.options.metrics_url).text
    assert not [name for name in KNOWN if not re.search(f"^{name}[ {{]", text, re.MULTILINE)]
    assert not [name for name in FAMILIES if f"# TYPE {name} " not in text]


def test_counts_grow_by_what_was_served(server: RealServer) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_count")
    server.wait_idle()
    time.sleep(1)  # counts arrive in batches
    before = [server.metric(name) for name in names]
    replies = [server.generate(text_input="One two three", max_tokens=5, ignore_eos=True).json() for _ in range(3)]
    wait_for(server, names[1], before[1] + 15)
    after = [server.metric(name) for name in names]
    grown = [int(b - a) for a, b in zip(before, after, strict=True)]
    assert grown == [sum(r["num_input_tokens"] for r in replies), 15, 3]


def test_every_series_names_its_model_as_dashboards_ask_for_it(server: RealServer) -> None:
    text = httpx.get(server.options.metrics_url).text
    series = [s for f in text_string_to_metric_families(text) for s in f.samples if s.name.startswith("vllm:")]
    built_as = json.loads((server.options.repository / "generate/1/engine.json").read_text("utf-8"))["model"]
    assert {s.labels.get("model_name") for s in series} == {built_as}
