"""What the bench beside transformers counts as equal, and what it measures. Run: pytest tests/bench/test_reference.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bench.gpu.reference import compared_answers, compared_texts
from numpy.typing import NDArray

from fakes.tiny_llama import TinyRunner, tiny_checkpoint
from triune_runtime.runner import Work

PROMPTS = [[5, 9, 3], [17, 2, 40, 8], [1], [77, 30]]
SLOTS = 3


class Model:
    """The reference, without torch: a model of tests that computes in float64."""

    def __init__(self) -> None:
        self._runner = runner()

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        return np.stack([self._runner.run([Work(0, n, (token,))])[0] for n, token in enumerate(tokens)])

    def answer(self, prompt: list[int], count: int) -> list[int]:
        text = list(prompt)
        for _ in range(count):
            text.append(int(self.logits(text)[-1].argmax()))
        return text[len(prompt) :]


def runner(**faults: float) -> TinyRunner:
    checkpoint = tiny_checkpoint()
    return TinyRunner(checkpoint.config, checkpoint.weights, faults)


def answers(engine: TinyRunner) -> dict[str, Any]:
    return compared_answers(engine, Model(), PROMPTS, 5, SLOTS)  # type: ignore[arg-type]


def texts(engine: TinyRunner) -> dict[str, Any]:
    return compared_texts(engine, Model(), [[4, 8, 1, 9], [3, 2], [60, 61, 62]], SLOTS)  # type: ignore[arg-type]


def test_an_engine_that_computes_the_model_gives_its_answers_and_its_perplexity() -> None:
    found = answers(runner())
    assert (found["answers"], found["equal"], found["differ"]) == (4, 4, [])
    assert found["logits' error"]["worst"] < 1e-5
    read = texts(runner())
    assert read["tokens"] == 3 + 1 + 2
    assert read["ratio"] == pytest.approx(1.0, abs=1e-5) and read["mean divergence"] == pytest.approx(0.0, abs=1e-6)


def test_an_engine_that_is_off_is_told_where_its_answers_leave_and_by_how_much() -> None:
    found = answers(runner(noise=3.0))
    assert found["equal"] < 4 and len(found["differ"]) == 4 - found["equal"]
    assert all(one["nats"] > 0 and 0 <= one["token"] < 5 for one in found["differ"])
    assert found["logits' error"]["median"] > 0.1
    assert texts(runner(noise=3.0))["mean divergence"] > 0.01
