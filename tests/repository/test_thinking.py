"""Thinking through every model.py, over a fake of Triton's module. Run: pytest tests/repository/test_thinking.py"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import InferenceRequest, InferenceResponse, load_model, text
from fakes.repository import TEMPLATE
from fakes.thinking import thinking_engine

MESSAGES = json.dumps([{"role": "user", "content": "hello"}])


class Models:
    """The three steps, one after the other, as the ensemble runs them."""

    def __init__(self, repository: Path) -> None:
        self.tokenize, self.generate, self.detokenize = (
            load_model(repository, name) for name in ("tokenize", "generate", "detokenize")
        )

    def __call__(self, **inputs: Any) -> list[dict[str, Any]]:
        """The ensemble's outputs, a dictionary a response."""
        (first,) = self.tokenize.execute([InferenceRequest(inputs)])
        request = InferenceRequest(first.arrays())
        self.generate.execute([request])
        deadline = time.monotonic() + 20
        while not request.sender.final:
            assert time.monotonic() < deadline, "no final response"
            time.sleep(0.002)
        return [self._rendered(response) for response in request.sender.sent]

    def _rendered(self, response: InferenceResponse) -> dict[str, Any]:
        arrays = response.arrays()
        (rendered,) = self.detokenize.execute([InferenceRequest(arrays)])
        return {name: a.reshape(-1)[0] for name, a in (dict(arrays) | rendered.arrays()).items() if len(a)}

    def close(self) -> None:
        self.generate.finalize()
        self.detokenize.finalize()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    repository = tmp_path_factory.mktemp("thinking") / "repository"
    shutil.copytree(TEMPLATE, repository, ignore=shutil.ignore_patterns("__pycache__"))
    thinking_engine(repository / "generate" / "1")
    made = Models(repository)
    yield made
    made.close()


def inputs(**more: Any) -> dict[str, Any]:
    known = {"max_tokens": np.int32, "thinking_budget": np.int32, "seed": np.uint64, "temperature": np.float32}
    return {n: text(v) if isinstance(v, str) else np.array([v], known.get(n, np.bool_)) for n, v in more.items()}


def joined(responses: list[dict[str, Any]], name: str) -> bytes:
    return b"".join(r[name] for r in responses)


def test_a_chat_has_its_thinking_in_an_output_of_its_own(models: Models) -> None:
    asked = inputs(messages=MESSAGES, max_tokens=40, thinking_budget=9, ignore_eos=True, seed=4)
    (whole,) = models(**asked)
    stream = models(**asked, **inputs(stream=True))
    for name in ("text_output", "reasoning_output"):
        assert joined(stream, name) == whole[name] != b""
        assert b"think>" not in whole[name]
    for name in ("num_output_tokens", "num_reasoning_tokens", "num_input_tokens"):
        assert sum(int(r[name]) for r in stream) == whole[name]
    assert 0 < whole["num_reasoning_tokens"] <= 9
    assert whole["num_output_tokens"] == 40


def test_the_same_answer_in_one_text_where_that_is_asked(models: Models) -> None:
    asked = inputs(messages=MESSAGES, max_tokens=40, thinking_budget=9, ignore_eos=True, seed=4)
    (apart,) = models(**asked)
    (one,) = models(**asked, **inputs(separate_reasoning=False))
    assert one["text_output"] == apart["reasoning_output"] + b"\n</think>\n\n" + apart["text_output"]
    assert not {"reasoning_output", "num_reasoning_tokens"} & one.keys()


def test_a_raw_prompt_gets_the_whole_text_and_the_outputs_it_always_had(models: Models) -> None:
    asked = inputs(text_input="<U>hello<A><think>\n", max_tokens=40, thinking_budget=9, ignore_eos=True, seed=4)
    (one,) = models(**asked)
    (chat,) = models(**inputs(messages=MESSAGES, max_tokens=40, thinking_budget=9, ignore_eos=True, seed=4))
    assert one["text_output"] == chat["reasoning_output"] + b"\n</think>\n\n" + chat["text_output"]
    assert not {"reasoning_output", "num_reasoning_tokens"} & one.keys()
    (apart,) = models(**asked, **inputs(separate_reasoning=True))
    assert (apart["reasoning_output"], apart["text_output"]) == (chat["reasoning_output"], chat["text_output"])


def test_thinking_off_gives_an_answer_alone(models: Models) -> None:
    (whole,) = models(**inputs(messages=MESSAGES, max_tokens=20, enable_thinking=False, ignore_eos=True))
    assert (whole["reasoning_output"], whole["num_reasoning_tokens"]) == (b"", 0)
    assert whole["text_output"]


def test_thinking_that_is_never_closed_is_no_answer(models: Models) -> None:
    (whole,) = models(**inputs(messages=MESSAGES, max_tokens=20, ignore_eos=True, bad_words="</think>"))
    assert (whole["text_output"], whole["finish_reason"]) == (b"", b"length")
    assert whole["reasoning_output"]


def test_a_model_samples_as_its_publisher_recommends_until_told_otherwise(models: Models) -> None:
    asked = {"messages": MESSAGES, "max_tokens": 12, "ignore_eos": True}
    texts = {models(**inputs(seed=seed, **asked))[0]["reasoning_output"] for seed in range(4)}
    assert len(texts) > 1
    greedy = {models(**inputs(seed=seed, temperature=0.0, **asked))[0]["reasoning_output"] for seed in range(4)}
    assert len(greedy) == 1
