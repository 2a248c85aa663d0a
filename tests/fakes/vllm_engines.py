"""Engines of target vllm without a model, and the double of vLLM that serves them in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from triune_runtime.manifest import CacheTensor, EngineManifest, Limits
from triune_runtime.targets.vllm.finding import VARIABLE

from .repository import fake_engine

DOUBLE = Path(__file__).parent / "vllm_double"
LIMITS = Limits(max_sequences=4, max_length=128, max_queue=8)


def use_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have engines served by the double."""
    monkeypatch.setenv(VARIABLE, sys.executable)
    runtime = Path(__file__).parents[2] / "runtime"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DOUBLE), str(runtime)]))


def vllm_engine(folder: Path, limits: Limits = LIMITS, **config: Any) -> EngineManifest:
    """Write an engine into `folder`.

    Args:
        config: more of its config.json, which the double reads.
    """
    made = fake_engine(folder, limits)
    cache = tuple(CacheTensor(name=f"0.{part}", heads=2, dim=8) for part in ("key", "value"))
    plan = {"checkpoint": "", "dtype": "float32", "kv_bytes": 1 << 20}
    manifest = dataclasses.replace(made, target="vllm", engine="config.json", cache=cache, plan=plan)
    manifest.save(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": manifest.vocab_size, **config}))
    return manifest
