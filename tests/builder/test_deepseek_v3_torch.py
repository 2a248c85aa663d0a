"""DeepSeek-V3 engines and their NumPy reference against transformers, on random small models.

Run: pytest -s tests/builder/test_deepseek_v3_torch.py (needs torch and transformers, and skips without)
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.engines import make_engine
from fakes.tiny_deepseek import R1_CONFIG, tiny_checkpoint
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.verify import reference
from triune_runtime.runner import Runner, Work

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

torch_deepseek = importlib.import_module("fakes.torch_deepseek")  # imports torch

SEEDS = range(10)
DECODED = 32


def random_changes(seed: int) -> dict[str, Any]:
    """A config drawn from all that the architecture varies; the first seeds make sure of each choice."""
    random = np.random.default_rng(seed)
    groups = int(random.choice([1, 2, 4]))
    yarn = R1_CONFIG["rope_scaling"] | {
        "original_max_position_embeddings": int(random.choice([16, 32])), "factor": float(random.choice([4, 40])),
        "mscale": float(random.choice([0.707, 1.0])),
    }  # fmt: skip
    lora, rope = ((24, 8), (16, 16), (28, 4))[random.integers(3)]
    return {
        "q_lora_rank": (None, 32)[(seed + 1) % 2] if seed < 4 else (None, 24)[random.integers(2)],
        "attention_bias": bool(seed // 2 % 2),
        "tie_word_embeddings": bool(random.integers(2)),
        "rope_scaling": yarn if seed % 3 else None,
        "num_attention_heads": int(random.choice([1, 3, 4, 5])),
        "kv_lora_rank": lora, "qk_rope_head_dim": rope, "qk_nope_head_dim": int(random.choice([8, 12, 16])),
        "v_head_dim": int(random.choice([8, 12, 20])),
        "n_routed_experts": 8, "n_group": groups, "topk_group": int(random.integers(1, groups + 1)),
        "num_experts_per_tok": int(random.integers(1, 3)), "n_shared_experts": seed % 3,
        "first_k_dense_replace": seed // 2 % 3, "norm_topk_prob": bool(seed // 3 % 2 == 0),
        "routed_scaling_factor": float(random.choice([1.0, 2.5])), "rope_interleave": seed != 7,
    }  # fmt: skip


def torch_logits(model: Any, tokens: list[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([tokens])).logits[0].numpy())


@pytest.fixture(scope="module", params=SEEDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeCheckpoint, Any, Runner]:
    changes = random_changes(request.param)
    print(f"\nseed {request.param}: {changes}")
    checkpoint = tiny_checkpoint(seed=request.param, **changes)
    folder: Path = tmp_path_factory.mktemp("deepseek")
    return checkpoint, torch_deepseek.load(checkpoint), make_engine(checkpoint, "fp32", folder).runner


def error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_engine_logits_equal_transformers(case: tuple[FakeCheckpoint, Any, Runner]) -> None:
    """At prefill, chunked prefill and 32 decode steps, alone and in a ragged batch."""
    _, model, runner = case
    random = np.random.default_rng(1)
    texts = [random.integers(0, 256, n).tolist() for n in (20 + DECODED, 7 + DECODED, 33 + DECODED)]
    expected = [torch_logits(model, text) for text in texts]
    worst = 0.0
    for cuts in ([20], [9, 20], [1, 4, 13, 20]):
        for start, end in zip([0, *cuts], cuts, strict=False):
            logits = runner.run([Work(0, start, tuple(texts[0][start:end]))])[0]
            worst = max(worst, error(logits, expected[0][end - 1]))
    runner.run([Work(1, 0, tuple(texts[1][:7]))])
    runner.run([Work(2, 0, tuple(texts[2][:33]))])
    starts = [len(text) - DECODED for text in texts]
    for step in range(DECODED):
        work = [Work(slot, start + step, (texts[slot][start + step],)) for slot, start in enumerate(starts)]
        for slot, row in enumerate(runner.run(work)):
            worst = max(worst, error(row, expected[slot][starts[slot] + step]))
    drafted = runner.run([Work(0, 30, tuple(texts[0][30:35]), drafts=4)])
    worst = max(worst, *(error(row, expected[0][30 + i]) for i, row in enumerate(drafted)))
    print(f"largest relative error of the logits: {worst:.1e}")
    assert worst < 1e-4


def test_engine_chooses_the_greedy_tokens_of_transformers(case: tuple[FakeCheckpoint, Any, Runner]) -> None:
    _, model, runner = case
    tokens = np.random.default_rng(2).integers(0, 256, 12).tolist()
    logits = runner.run([Work(3, 0, tuple(tokens))])[0]
    made = []
    for _ in range(DECODED):
        made.append(int(logits.argmax()))
        logits = runner.run([Work(3, len(tokens) + len(made) - 1, (made[-1],))])[0]
    greedy = torch_logits(model, tokens + made).argmax(-1)[len(tokens) - 1 : -1]
    assert made == greedy.tolist()


def test_numpy_reference_equals_transformers(case: tuple[FakeCheckpoint, Any, Runner]) -> None:
    checkpoint, model, _ = case
    texts = [np.random.default_rng(n).integers(0, 256, n).tolist() for n in (70, 1, 20)]
    for scored in reference.score(checkpoint.config, checkpoint.weights, texts):
        assert error(scored.logits, torch_logits(model, texts[scored.text])[scored.positions]) < 1e-4
