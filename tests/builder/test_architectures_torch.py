"""Engines of the dense architectures, and their NumPy reference, against transformers on random small models.

Run: pytest -s tests/builder/test_architectures_torch.py (needs torch and transformers, and skips without)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.engines import make_engine
from fakes.tiny_dense import dense_checkpoint, random_changes
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.verify import reference
from triune_runtime.runner import Runner, Work

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CASES = [(kind, seed) for kind in ("llama", "mistral", "qwen2", "qwen3") for seed in range(7)]
CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
DECODED = 32


class Case(NamedTuple):
    checkpoint: FakeCheckpoint
    model: Any
    runner: Runner


def torch_model(checkpoint: FakeCheckpoint) -> Any:
    """transformers' model, with attention that applies the mask it is given."""
    config = dict(checkpoint.config)
    name = CLASSES[config["model_type"]]
    if config["rope_scaling"] is not None:  # the newer spelling; ours reads both
        config["rope_parameters"] = config.pop("rope_scaling") | {"rope_theta": config["rope_theta"]}
    made = getattr(transformers, f"{name}Config")(**config, attn_implementation="eager")
    model = getattr(transformers, f"{name}ForCausalLM")(made).eval()
    state = {name: torch.tensor(t.array) for name, t in checkpoint.weights.items()}
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state, strict=True)
    return model


def torch_logits(model: Any, tokens: list[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([tokens])).logits[0].numpy())


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind, seed = request.param
    changes = random_changes(kind, seed)
    print(f"\n{kind}, seed {seed}: {changes}")
    checkpoint = dense_checkpoint(kind, seed=seed, **changes)
    folder: Path = tmp_path_factory.mktemp(kind)
    return Case(checkpoint, torch_model(checkpoint), make_engine(checkpoint, "fp32", folder).runner)


def error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_engine_logits_equal_transformers(case: Case) -> None:
    """At prefill, chunked prefill and 32 decode steps in a ragged batch, several windows long."""
    random = np.random.default_rng(1)
    texts = [random.integers(0, 256, n).tolist() for n in (20 + DECODED, 7 + DECODED, 61 + DECODED)]
    expected = [torch_logits(case.model, text) for text in texts]
    worst = 0.0
    for cuts in ([1, 4, 13, 20], [20], [9, 20]):
        for start, end in zip([0, *cuts], cuts, strict=False):
            logits = case.runner.run([Work(0, start, tuple(texts[0][start:end]))])[0]
            worst = max(worst, error(logits, expected[0][end - 1]))
    case.runner.run([Work(1, 0, tuple(texts[1][:7]))])
    case.runner.run([Work(2, 0, tuple(texts[2][:61]))])
    starts = [len(text) - DECODED for text in texts]
    for step in range(DECODED):
        work = [Work(slot, start + step, (texts[slot][start + step],)) for slot, start in enumerate(starts)]
        for slot, row in enumerate(case.runner.run(work)):
            worst = max(worst, error(row, expected[slot][starts[slot] + step]))
    print(f"largest relative error of the logits: {worst:.1e}")
    assert worst < 1e-4


def test_engine_chooses_the_greedy_tokens_of_transformers(case: Case) -> None:
    tokens = np.random.default_rng(2).integers(0, 256, 12).tolist()
    logits = case.runner.run([Work(3, 0, tuple(tokens))])[0]
    made: list[int] = []
    for _ in range(DECODED):
        made.append(int(logits.argmax()))
        logits = case.runner.run([Work(3, len(tokens) + len(made) - 1, (made[-1],))])[0]
    greedy = torch_logits(case.model, tokens + made).argmax(-1)[len(tokens) - 1 : -1]
    assert made == greedy.tolist()


def test_numpy_reference_equals_transformers(case: Case) -> None:
    texts = [np.random.default_rng(n).integers(0, 256, n).tolist() for n in (90, 1, 20)]
    for scored in reference.score(case.checkpoint.config, case.checkpoint.weights, texts):
        assert error(scored.logits, torch_logits(case.model, texts[scored.text])[scored.positions]) < 1e-4
