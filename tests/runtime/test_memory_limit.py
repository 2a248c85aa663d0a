"""A process refuses what comes before it has too much memory. Run: pytest tests/runtime/test_memory_limit.py"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from fakes.pb_utils import InferenceRequest, load_model, text
from fakes.repository import fake_repository
from triune_runtime.errors import Overloaded
from triune_runtime.manifest import Limits
from triune_runtime.serving.memory import MemoryLimit, resident

MB = 1_000_000


def test_over_the_limit_is_refused_and_below_it_again_served() -> None:
    sizes, now = [50 * MB], [0.0]
    limit = MemoryLimit(100 * MB, lambda: sizes[0], lambda: now[0])
    limit.check(idle=False)
    sizes[0], now[0] = 100 * MB, 1.0
    with pytest.raises(Overloaded, match="has 100 MB of memory, the limit is 100 MB"):
        limit.check(idle=False)
    limit.check(idle=True)
    sizes[0], now[0] = 99 * MB, 2.0
    limit.check(idle=False)


def test_without_a_limit_nothing_is_measured() -> None:
    def fail() -> int:
        raise AssertionError("it is measured")

    MemoryLimit(0, fail).check(idle=False)


def test_the_process_is_as_large_as_what_it_holds() -> None:
    before = resident()
    held = np.ones(4_000_000)
    assert 30 * MB < resident() - before < 60 * MB
    assert held.sum() > 0


def test_who_is_served_goes_on_while_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_MAX_MEMORY", "1")  # every process has more
    generate = load_model(fake_repository(tmp_path / "repository", Limits(max_length=512, max_sequences=2)), "generate")

    def request() -> InferenceRequest:
        options = {"params": {"max_tokens": 400, "ignore_eos": True}}
        return InferenceRequest({"input_ids": np.array([5, 6, 7], np.int32), "options": text(json.dumps(options))})

    first, second = request(), request()
    generate.execute([first, second])
    assert second.sender.final and "[overloaded]" in str(second.sender.sent[0].error)
    deadline = time.monotonic() + 20
    while not first.sender.final:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert first.sender.sent[-1].error is None
    generate.finalize()
