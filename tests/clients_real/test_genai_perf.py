"""NVIDIA's GenAI-Perf, with Perf Analyzer. Run: make test-clients"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from support.real_server import ROOT, RealServer

pytestmark = pytest.mark.triton
CLIENT = "genai-perf"
KSERVE = ("--endpoint-type", "kserve")


def libraries(folder: Path) -> Path:
    """The two libraries that Perf Analyzer needs, from the server's own, under the names it asks for."""
    bundled = ROOT / ".venv/tritonserver/nvidia_pytriton.libs"
    folder.mkdir()
    for pattern, name in (("libb64-*.so.0d", "libb64.so.0d"), ("libcudart-*.so.12*", "libcudart.so.12")):
        (folder / name).symlink_to(next(bundled.glob(pattern)))
    return folder


@pytest.mark.parametrize(
    ("model", "how"),
    [
        ("triune", (*KSERVE, "--backend", "tensorrtllm")),
        ("vllm_model", (*KSERVE, "--backend", "vllm")),
        ("triune", ("--endpoint-type", "chat")),
    ],
)
def test_a_short_run_counts_every_request_and_every_token(
    client_bin: Path, tokenizer: Path, server: RealServer, tmp_path: Path, model: str, how: tuple[str, ...]
) -> None:
    url = server.options.grpc_url if "kserve" in how else f"http://127.0.0.1:{server.options.openai_port}"
    path = f"{ROOT / '.venvs/perf-analyzer/bin'}:{client_bin}:{os.environ['PATH']}"
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries(tmp_path / "lib")), "PATH": path, "HF_HUB_OFFLINE": "1"}
    command = [
        client_bin / "genai-perf", "profile", "-m", model, *how, "--streaming", "-u", url, "--tokenizer", tokenizer,
        "--synthetic-input-tokens-mean", "32", "--output-tokens-mean", "16", "--request-count", "8", "--concurrency", "2",
        "--num-dataset-entries", "8", "--artifact-dir", tmp_path / "artifacts",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, cwd=tmp_path)
    (report,) = (tmp_path / "artifacts").rglob("profile_export_genai_perf.json")
    found = json.loads(report.read_text("utf-8"))
    print(done.stdout[-4000:])
    assert found["request_count"]["avg"] == 8
    # 16 are made of each answer; it counts those of the text, which the tokenizer may write with fewer
    assert 15 < found["output_sequence_length"]["avg"] <= 16
    assert found["input_sequence_length"]["avg"] == 32
    assert found["time_to_first_token"]["avg"] > 0
