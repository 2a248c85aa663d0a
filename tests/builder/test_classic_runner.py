"""Classic graphs behind the runner that drives their engines: fixed sizes, filled up; ONNX Runtime computes them.

Run: pytest tests/builder/test_classic_runner.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import tiny_deepseek
from fakes.classic_engines import Sizes, classic, on_host
from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_llama import tiny_checkpoint
from support.model_steps import LIMITS, STEPS, TOKENS, assert_computes, by_reference
from triune_runtime.errors import ManifestError
from triune_runtime.runner import Want, Work

TOLERANCE = 4e-2  # of the largest logit, as of the other form
SIZES = {"hidden_size": 64, "intermediate_size": 96}
CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_checkpoint(**SIZES),
    "mistral with a window": lambda: tiny_checkpoint(model_type="mistral", **SIZES, sliding_window=6),
    "qwen2": lambda: dense_checkpoint("qwen2", **SIZES),
    "qwen3": lambda: dense_checkpoint("qwen3", **SIZES, head_dim=16),
    # of this seed no token's experts are so near a tie that float16 chooses others
    "deepseek_v3": lambda: tiny_deepseek.tiny_checkpoint(seed=1),
}
EVERY = [  # prompts whole, in pieces of several sizes, and token by token; batches of few sizes
    Sizes(prefill=(16,), decode=(3,)),
    Sizes(prefill=(4, 8), decode=(1, 4)),
    Sizes(prefill=(1,), decode=(1, 2, 3)),
]


@pytest.mark.parametrize("sizes", EVERY, ids=str)
@pytest.mark.parametrize("name", ["llama", "deepseek_v3"])
def test_runs_of_any_fixed_sizes_compute_the_model(tmp_path: Path, name: str, sizes: Sizes) -> None:
    """Prefill in chunks, ragged decode (recorded at its second run), drafts, a copied slot; float16 against the reference."""
    checkpoint = CHECKPOINTS[name]()
    engine = classic(checkpoint, tmp_path, max_length=LIMITS.max_length)
    assert_computes(on_host(engine, LIMITS, sizes).runner, by_reference(checkpoint), TOLERANCE)


@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if name not in ("llama", "deepseek_v3")])
def test_every_architecture_computes_through_the_runner(tmp_path: Path, name: str) -> None:
    checkpoint = CHECKPOINTS[name]()
    engine = classic(checkpoint, tmp_path, max_length=LIMITS.max_length)
    assert_computes(on_host(engine, LIMITS, EVERY[1]).runner, by_reference(checkpoint), TOLERANCE)


@pytest.mark.parametrize("sizes", EVERY, ids=str)
def test_best_tokens_are_those_of_the_logits_whatever_is_wanted(tmp_path: Path, sizes: Sizes) -> None:
    engine = classic(CHECKPOINTS["llama"](), tmp_path, max_length=LIMITS.max_length)
    one, other = (on_host(engine, LIMITS, sizes).runner for _ in range(2))
    for work in STEPS:
        full, bare = one.run_rows(work), other.run_rows([item._replace(wants=Want.TOKEN) for item in work])
        assert full.best is not None and bare.best is not None
        assert np.array_equal(full.best.tokens, full.logits.argmax(1)) and np.array_equal(full.best.logits, full.logits.max(1))
        assert np.array_equal(bare.best.tokens, full.best.tokens), work


def test_a_prompt_in_pieces_and_a_batch_that_is_filled_up_leave_all_other_slots_as_they_are(tmp_path: Path) -> None:
    engine = classic(CHECKPOINTS["llama"](), tmp_path, max_length=LIMITS.max_length)
    host = on_host(engine, LIMITS, Sizes(prefill=(8,), decode=(4,)))
    for slot in range(3):
        host.runner.run([Work(slot, 0, TOKENS[slot : slot + 10])])
    host.runner.run([Work(0, 10, TOKENS[:1])])  # a batch of one, filled up to four
    before = host.cached(slice(0, 3), LIMITS.max_length)
    host.runner.run([Work(0, 11, TOKENS[1:2])])
    after = host.cached(slice(0, 3), LIMITS.max_length)
    for old, new in zip(before, after, strict=True):
        changed = np.argwhere((old != new).any(axis=(1, 3)))
        assert changed.tolist() == [[0, 11]]


def test_a_batch_takes_the_smallest_engine_and_one_recording_for_each(tmp_path: Path) -> None:
    engine = classic(CHECKPOINTS["llama"](), tmp_path, max_length=LIMITS.max_length)
    host = on_host(engine, LIMITS, Sizes(prefill=(8,), decode=(1, 3)))
    for start in range(4):
        for count in (1, 2, 3):
            host.runner.run([Work(slot, start, TOKENS[:1]) for slot in range(count)])
    assert [p.profile.batch[0] for p in host.engine.programs] == [1, 1, 3]
    assert [p.recorded for p in host.engine.programs] == [False, True, True]


def test_an_engine_whose_slots_have_no_spare_position_is_refused(tmp_path: Path) -> None:
    engine = classic(CHECKPOINTS["llama"](), tmp_path, max_length=LIMITS.max_length)
    with pytest.raises(ManifestError, match="positions of a slot"):
        on_host(engine, LIMITS, EVERY[0], capacity=LIMITS.max_length)
    with pytest.raises(ManifestError, match="sequences of a decode"):
        on_host(engine, LIMITS, Sizes(prefill=(8,), decode=(1, 2)))
