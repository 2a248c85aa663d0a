"""Run: pytest tests/builder/test_verify_reference.py (the comparison with transformers needs torch and skips without)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.tiny_llama import TinyRunner, tiny_checkpoint, tiny_config, tiny_weights
from triune_builder.errors import BuildError
from triune_builder.verify import reference
from triune_runtime.runner import Work

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def all_logits(config: dict[str, Any], weights: Any, texts: list[list[int]]) -> list[np.ndarray]:
    found: list[list[np.ndarray]] = [[] for _ in texts]
    for scored in reference.score(config, weights, texts):
        found[scored.text].append(scored.logits)
    return [np.concatenate(rows) for rows in found]


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    kv_heads=st.sampled_from([1, 2, 4]),
    tied=st.booleans(),
    seed=st.integers(0, 99),
)
def test_reference_equals_a_token_by_token_model(lengths: list[int], kv_heads: int, tied: bool, seed: int) -> None:
    checkpoint = tiny_checkpoint(seed=seed, num_key_value_heads=kv_heads, tie_word_embeddings=tied)
    texts = [np.random.default_rng(seed + i).integers(0, 256, n).tolist() for i, n in enumerate(lengths)]
    runner = TinyRunner(checkpoint.config, checkpoint.weights)
    for slot, (text, logits) in enumerate(zip(texts, all_logits(checkpoint.config, checkpoint.weights, texts), strict=True)):
        stepped = np.concatenate([runner.run([Work(slot, i, (t,))]) for i, t in enumerate(text)])
        np.testing.assert_allclose(logits, stepped, rtol=0, atol=1e-5 * np.abs(stepped).max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_dim": 16},
        {"tie_word_embeddings": False, "num_key_value_heads": 1},
        {"rope_scaling": LLAMA3, "max_position_embeddings": 512},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ],
    ids=["plain", "head_dim", "untied", "llama3", "linear"],
)
def test_reference_equals_transformers(changes: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = tiny_config(**changes)
    weights = tiny_weights(config)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).double().eval()
    state = {name: torch.tensor(t.array, dtype=torch.float64) for name, t in weights.items()}
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state, strict=True)
    texts = [np.random.default_rng(n).integers(0, 256, n).tolist() for n in (150, 1, 40)]
    for text, logits in zip(texts, all_logits(config, weights, texts), strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([text])).logits[0].numpy()
        # Sums of float32 are 2e-6 to 1.2e-5 off the exact ones, by the order in which a processor's products add.
        np.testing.assert_allclose(logits, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


def test_positions_choose_rows_of_the_same_logits() -> None:
    checkpoint = tiny_checkpoint()
    texts = [[1, 2, 3, 4, 5], [6, 7, 8]]
    every = all_logits(checkpoint.config, checkpoint.weights, texts)
    for scored in reference.score(checkpoint.config, checkpoint.weights, texts, [[0, 4], [1]]):
        np.testing.assert_allclose(scored.logits, every[scored.text][scored.positions], rtol=1e-5, atol=1e-5)


def test_each_layer_is_read_once_for_all_texts() -> None:
    checkpoint = tiny_checkpoint()
    all_logits(checkpoint.config, checkpoint.weights, [[1, 2, 3]] * 5)
    reads = {name: len(t.reads) for name, t in checkpoint.weights.items()}
    assert reads.pop("model.embed_tokens.weight") == 2  # the rows of the tokens, and the head
    assert set(reads.values()) == {1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "mamba"}, "no reference for model_type 'mamba'; known: .*llama"),
        ({"hidden_act": "relu"}, "no activation 'relu'"),
        ({"rope_scaling": {"rope_type": "su"}}, "no RoPE scaling 'su'"),
        ({"num_hidden_layers": 3}, "no weight model.layers.2"),
    ],
)
def test_what_the_reference_does_not_know_stops_it(changes: dict[str, Any], says: str) -> None:
    config = tiny_config(**changes)
    with pytest.raises(BuildError, match=says):
        all_logits(config, tiny_weights(tiny_config()), [[1, 2]])
