"""The bench of the sampler runs, alone and beside another checkout. Run: pytest tests/bench/test_sampler.py"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from bench.sampler import CASES, ROOT, made_up


@pytest.mark.parametrize("before", [[], ["--before", str(ROOT)]])
def test_each_case_is_measured_at_each_number_of_rows(before: list[str]) -> None:
    command = [sys.executable, "-m", "bench.sampler", "--rows", "1", "3", "--vocabulary", "500", "--rounds", "1", *before]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    costs = json.loads(done.stdout.splitlines()[-1])["costs"]
    assert [(cost["rows"], cost["case"]) for cost in costs] == [(rows, case) for rows in (1, 3) for case in CASES]
    assert all(cost["now_ms"] > 0 and (cost["before_ms"] is not None) == bool(before) for cost in costs)


def test_logits_have_some_high_tokens_over_a_bulk() -> None:
    logits = made_up(4, 20_000)
    assert np.array_equal(logits, made_up(4, 20_000))
    assert np.allclose(logits.max(axis=1), 20)
    assert (np.abs(np.median(logits, axis=1)) < 0.2).all()
