"""GuideLLM: its own load on the OpenAI-compatible API, every request counted. Run: make test-clients"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from support.real_server import RealServer

pytestmark = pytest.mark.triton
CLIENT = "guidellm"


@pytest.mark.parametrize("path", ["", "/v1/completions", "/v1/responses"])
def test_a_short_run_counts_every_request_and_every_token(
    client_bin: Path, tokenizer: Path, server: RealServer, tmp_path: Path, path: str
) -> None:
    """Without a path it asks for chats."""
    backend = f"kind=openai_http,target=http://127.0.0.1:{server.options.openai_port}"
    command = [
        client_bin / "guidellm", "run", "--backend", f"{backend},request_format={path}" if path else backend,
        "--profile", "kind=sweep,sweep_size=3", "--constraint", "kind=max_requests,count=4",
        "--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16",
        "--tokenizer", f"kind=huggingface_auto,model={tokenizer}", "--output",
        f"kind=json,path={tmp_path / 'report.json'}", "--disable-console-interactive",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    runs = json.loads((tmp_path / "report.json").read_text("utf-8"))["benchmarks"]
    assert len(runs) == 3
    for run in runs:
        found = run["metrics"]
        assert found["request_totals"] == {"successful": 4, "errored": 0, "incomplete": 0, "total": 4}
        counted = {name: found[f"{name}_count"]["successful"]["mean"] for name in ("prompt_token", "output_token")}
        assert counted["prompt_token"] >= 32 and counted["output_token"] == 16  # a chat's prompt has the template's too
        assert found["time_to_first_token_ms"]["successful"]["mean"] > 0
