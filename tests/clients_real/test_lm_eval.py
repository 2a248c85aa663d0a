"""lm-eval's local-completions on a small task: its scores are what transformers computes. Run: make test-clients"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.real_server import ROOT, RealServer, start, stop
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan

pytestmark = pytest.mark.triton
CLIENT = "lm-eval"
CHECKPOINT = ROOT / "models/r1-nano/checkpoint"
DOCUMENTS = [
    {"question": "What is 12 + 7? The answer is", "choices": ["19", "20", "nineteen"], "label": 0},
    {"question": "Which is larger, 7421 or 7412? It is", "choices": ["7421", "7412"], "label": 0},
    {"question": "7乘以8等于多少？答案是", "choices": ["56", "五十六", "54"], "label": 0},
    {"question": "Is 9 * 9 = 81 true, yes or no?", "choices": ["no", "yes"], "label": 1},
]


@pytest.fixture
def nano(client_bin: Path, tmp_path: Path) -> Iterator[RealServer]:
    """r1-nano in fp32: numbers that can be compared."""
    built = build(BuildPlan(model="r1-nano", precision="fp32"), Settings(build_dir=tmp_path / "build"))
    running = start(tmp_path, built.repository)
    yield running
    stop(running)


def task(folder: Path) -> Path:
    """A task of multiple choices, in the form of lm-eval's own."""
    folder.mkdir()
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in DOCUMENTS), "utf-8")
    told = {
        "task": "sums", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "question", "doc_to_choice": "choices", "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (folder / "sums.yaml").write_text(json.dumps(told), "utf-8")  # JSON is YAML
    return folder


def scores_of_transformers() -> list[list[tuple[float, bool]]]:
    """Of each document's choices: log probability after the question, and whether greedy decoding would write it."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    found = []
    for document in DOCUMENTS:
        question = str(document["question"])
        before = len(tokenizer.encode(question, add_special_tokens=False))
        scores = []
        for choice in document["choices"]:  # type: ignore[attr-defined]
            ids = torch.tensor([tokenizer.encode(f"{question} {choice}", add_special_tokens=False)])
            with torch.no_grad():
                logprobs = model(ids).logits[0, before - 1 : -1].double().log_softmax(-1)
            written = ids[0, before:]
            total = logprobs.gather(1, written[:, None]).sum().item()
            scores.append((total, bool((logprobs.argmax(-1) == written).all())))
        found.append(scores)
    return found


def test_loglikelihoods_are_those_of_transformers(client_bin: Path, nano: RealServer, tmp_path: Path) -> None:
    """In its default mode it sends token ids, and reads `echo` with `logprobs`."""
    address = f"http://127.0.0.1:{nano.options.openai_port}/v1/completions"
    command = [
        client_bin / "lm_eval", "run", "--model", "local-completions", "--tasks", "sums",
        "--model_args", f"model=triune,base_url={address},tokenizer={CHECKPOINT}",
        "--include_path", task(tmp_path / "tasks"), "--output_path", tmp_path / "report", "--log_samples",
    ]  # fmt: skip
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (report,) = (tmp_path / "report").rglob("samples_sums_*.jsonl")
    samples = {(one := json.loads(line))["doc_id"]: one["filtered_resps"] for line in report.read_text("utf-8").splitlines()}
    wanted = scores_of_transformers()
    assert sorted(samples) == list(range(len(wanted)))
    for number, scores in enumerate(wanted):
        found = [(float(score), str(greedy) == "True") for score, greedy in samples[number]]
        assert [score for score, _ in found] == pytest.approx([score for score, _ in scores], abs=1e-3)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in scores]
