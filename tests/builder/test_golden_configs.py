"""Engines and the NumPy reference against what transformers computed of tiny checkpoints with the odd keys of config.json.

Run: pytest tests/builder/test_golden_configs.py (a fixture holds transformers' logits: neither it nor torch is needed; that
they are still transformers' own is checked where it is installed, with -m slow)
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.engines import make_engine
from fakes.golden_recipe import recipe_positions, recipe_tokens, recipe_weights
from fakes.tiny_llama import FakeCheckpoint, FakeTensor, byte_tokenizer
from support.golden_cases import CASES
from triune_builder.graph.promises import check_weights
from triune_builder.verify import reference
from triune_runtime.runner import Work

FOLDER = Path(__file__).parent / "golden"
GOLDENS = np.load(FOLDER / "goldens.npz")
ENTRIES: list[dict[str, Any]] = json.loads(GOLDENS["cases"].tobytes())
NAMES = [entry["name"] for entry in ENTRIES]
TOLERANCE = 1e-4  # of the largest logit; torch has angles in float32, which shows behind some thousand positions

Array = NDArray[np.float32]


def checkpoint_of(entry: dict[str, Any]) -> FakeCheckpoint:
    weights = recipe_weights(entry["shapes"], entry["copies"])
    tensors = {name: FakeTensor(values) for name, values in weights.items()}
    return FakeCheckpoint(config=entry["config"], weights=tensors, tokenizer_json=byte_tokenizer())


def error(got: Array, wanted: Array) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def golden(number: int) -> tuple[dict[str, Any], list[int], list[int], Array]:
    """The entry, its text, the positions that are kept, and transformers' logits of them."""
    entry = ENTRIES[number]
    length = entry["length"]
    return entry, recipe_tokens(length, entry["config"]["vocab_size"]), recipe_positions(length), GOLDENS[f"logits.{number}"]


def test_the_fixture_has_the_cases_that_are_declared() -> None:
    assert [(e["name"], e["config"], e["length"]) for e in ENTRIES] == [(c.name, c.config, c.length) for c in CASES]
    assert len({name.split()[0] for name in NAMES}) == 5 and len(set(NAMES)) == len(NAMES) >= 40


@pytest.mark.parametrize("number", range(len(ENTRIES)), ids=NAMES)
def test_the_reference_computes_what_transformers_does(number: int) -> None:
    entry, text, positions, wanted = golden(number)
    checkpoint = checkpoint_of(entry)
    (scored,) = reference.score(checkpoint.config, checkpoint.weights, [text], [positions])
    assert error(scored.logits, wanted) < TOLERANCE


@pytest.mark.parametrize("number", range(len(ENTRIES)), ids=NAMES)
def test_the_engine_computes_what_transformers_does(number: int, tmp_path: Path) -> None:
    """The text as a prompt in chunks that end where logits are kept, its last tokens one by one."""
    entry, text, positions, wanted = golden(number)
    checkpoint = checkpoint_of(entry)
    check_weights(checkpoint.config, checkpoint.weights)
    runner = make_engine(checkpoint, "fp32", tmp_path, slots=1, max_length=len(text)).runner
    got, start = [], 0
    for position in positions:
        got.append(runner.run([Work(0, start, tuple(text[start : position + 1]))])[0].copy())
        start = position + 1
    assert error(np.stack(got), wanted) < TOLERANCE


@pytest.mark.slow
def test_the_fixture_is_what_transformers_computes_now() -> None:
    """Needs transformers; two minutes. To write the fixture anew: PYTHONPATH=tests python tests/builder/golden/write.py"""
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("golden_write", FOLDER / "write.py")
    assert spec is not None and spec.loader is not None
    write = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write)
    for number, (case, entry) in enumerate(zip(CASES, ENTRIES, strict=True)):
        assert write.published(case) == (entry["shapes"], entry["copies"]), case.name
        assert error(write.logits(case, entry["shapes"], entry["copies"]), GOLDENS[f"logits.{number}"]) < 1e-5, case.name
