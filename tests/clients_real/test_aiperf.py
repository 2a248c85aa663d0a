"""NVIDIA's AIPerf, on the OpenAI-compatible API and on Triton's own generate_stream. Run: make test-clients"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.real_server import RealServer

pytestmark = pytest.mark.triton
CLIENT = "aiperf"
TEMPLATE = '{"text_input": {{ text|tojson }}, "max_tokens": {{ max_tokens }}, "stream": true}'


@pytest.mark.parametrize("kind", ["chat", "template"])
def test_a_short_run_counts_every_request_and_no_error(
    client_bin: Path, tokenizer: Path, server: RealServer, tmp_path: Path, kind: str
) -> None:
    template = tmp_path / "template.json"
    template.write_text(TEMPLATE, "utf-8")
    where = {
        "chat": ["-u", f"http://127.0.0.1:{server.options.openai_port}"],
        "template": [
            "-u", server.url, "--endpoint", "/v2/models/triune/generate_stream",
            "--extra-inputs", f"payload_template:{template}", "--extra-inputs", "response_field:text_output",
        ],
    }[kind]  # fmt: skip
    command = [
        client_bin / "aiperf", "profile", "-m", "triune", "--endpoint-type", kind, *where, "--streaming", "--ui", "none",
        "--no-server-metrics", "--no-gpu-telemetry", "--tokenizer", tokenizer, "--synthetic-input-tokens-mean", "32",
        "--output-tokens-mean", "16", "--request-count", "8", "--concurrency", "2", "--artifact-dir", tmp_path / "artifacts",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "artifacts/profile_export_aiperf.json").read_text("utf-8"))
    assert found["request_count"]["avg"] == 8
    assert found.get("error_request_count", {"avg": 0})["avg"] == 0
    assert found["time_to_first_token"]["avg"] > 0
    assert found["output_sequence_length"]["avg"] > 8
