"""Prompts that begin alike, through the model that generates. Run: pytest tests/repository/test_prefix_cache.py"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import InferenceRequest, load_model, text
from fakes.repository import fake_repository
from triune_runtime.manifest import Limits

PROMPT = [5 + n % 6 for n in range(50)]
Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    limits = Limits(max_length=256, max_sequences=8, prefill_chunk=16)
    return fake_repository(tmp_path_factory.mktemp("fake") / "repository", limits)


@pytest.fixture
def ask(repository: Path) -> Iterator[Ask]:
    generate = load_model(repository, "generate")

    def run(*options: dict[str, Any], prompt: list[int] = PROMPT) -> list[dict[str, Any]]:
        wanted = [{"params": {"max_tokens": 4, "ignore_eos": True}} | one for one in options or ({},)]
        inputs = {"input_ids": np.array(prompt * len(wanted), np.int32), "options": text(*(json.dumps(o) for o in wanted))}
        request = InferenceRequest(inputs)
        generate.execute([request])
        deadline = time.monotonic() + 20
        while not request.sender.final:
            assert time.monotonic() < deadline, "no final response"
            time.sleep(0.002)
        return [one.arrays() for one in request.sender.sent]

    yield run
    generate.finalize()


def cached(responses: list[dict[str, Any]]) -> list[int | None]:
    """What each response says of it."""
    return [int(one["num_cached_tokens"][0]) if "num_cached_tokens" in one else None for one in responses]


def test_a_salt_decides_who_finds_a_prefix(ask: Ask) -> None:
    found = [cached(ask({"cache_salt": salt} if salt else {})) for salt in ("", "", "a", "b", "a")]
    assert found == [[None], [48], [None], [None], [48]]


def test_it_is_told_once_of_a_stream_and_of_several_answers(ask: Ask) -> None:
    ask()
    stream = cached(ask({"stream": True}))
    assert stream == [48] + [None] * (len(stream) - 1)
    drawn = {"params": {"max_tokens": 4, "ignore_eos": True, "temperature": 1.0, "seed": 7}}
    assert cached(ask(drawn | {"n": 3, "best_of": 3})) == [48]
    several = cached(ask(drawn | {"n": 3, "best_of": 3, "stream": True}))
    assert several.count(48) == 1 and len(several) >= 3 and set(several) == {48, None}
    params = {"params": drawn["params"] | {"logprobs": 0}}
    for best in range(4):  # whichever answer is the best
        told = ask(params | {"n": 2, "best_of": 4, "batched": True, "params": params["params"] | {"seed": best}})
        assert (cached(told), [int(one["num_input_tokens"][0]) for one in told]) == ([48, None], [50, 0])


def test_rows_of_a_request_find_what_an_earlier_row_has_computed(ask: Ask) -> None:
    row = {"batched": True, "prompt_tokens": 50}
    told = ask(row, row, row)
    assert sorted(cached(told), key=lambda value: value or 0)[0] is None and cached(told).count(48) >= 1
    texts = {tuple(one["token_ids"].tolist()) for one in told}
    assert len(texts) == 1


def test_the_server_s_setting_switches_it_off(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("TRIUNE_PREFIX_CACHING", "off")
    ask: Ask = request.getfixturevalue("ask")
    assert [cached(ask()) for _ in range(2)] == [[None], [None]]
