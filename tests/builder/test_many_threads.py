"""An engine on a processor with more threads than the model has heads. Run: pytest tests/builder/test_many_threads.py"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import tiny_build
from fakes.engines import BLOCK_SIZES, make_engine
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import tiny_checkpoint
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_runtime.manifest import CacheTensor, EngineManifest, Limits
from triune_runtime.runner import Work
from triune_runtime.targets.cpu.plan import HEADS, computes_in_tiles
from triune_runtime.targets.cpu.runner import OrtRunner

LENGTH, MATES, THREADS = 2400, 3, 8  # tokens: several tiles of heads so wide; sequences beside the first
TOKENS = np.random.default_rng(0).integers(3, 96, LENGTH + 1).tolist()


def alone_and_together(runner: OrtRunner, chunk: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of a sequence's last token, run alone and among others."""
    for slot in range(1 + MATES):
        for start in range(0, LENGTH, chunk):
            runner.run([Work(slot, start, tuple(TOKENS[start : min(start + chunk, LENGTH)]))])
    last = tuple(TOKENS[LENGTH:])
    alone = runner.run([Work(0, LENGTH, last)])[0].copy()
    return alone, runner.run([Work(slot, LENGTH, last) for slot in range(1 + MATES)])[0].copy()


def test_a_long_sequence_has_its_bits_alone_and_among_others(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**BLOCK_SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=128)
    engine = make_engine(checkpoint, "fp32", tmp_path, max_length=LENGTH + 2)
    heads = checkpoint.config["num_attention_heads"]
    assert heads < THREADS
    told = dataclasses.replace(engine.manifest, plan={HEADS: heads})
    alone, together = alone_and_together(OrtRunner(told, tmp_path, threads=THREADS), told.limits.prefill_chunk)
    assert np.array_equal(alone, together)


def test_a_build_tells_its_engine_how_many_heads_there_are(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "tiny", tiny_checkpoint(**BLOCK_SIZES, num_attention_heads=4, num_key_value_heads=2), "F32"
    )
    built = build(BuildPlan(model=str(folder), precision="fp32"), tiny_build.settings(tmp_path))
    assert EngineManifest.load(next(built.repository.rglob("engine.json")).parent).plan == {HEADS: 4}


def test_what_the_environment_says_of_tiles_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(tiny_checkpoint(**BLOCK_SIZES), "fp32", tmp_path)
    told = dataclasses.replace(engine.manifest, plan={HEADS: 2})
    for said in (None, "0"):
        monkeypatch.delenv("ORT_GQA_DISABLE_FLASH_ATTENTION", raising=False)
        if said is not None:
            monkeypatch.setenv("ORT_GQA_DISABLE_FLASH_ATTENTION", said)
        OrtRunner(told, tmp_path, threads=THREADS)
        assert os.environ.get("ORT_GQA_DISABLE_FLASH_ATTENTION") == said


@pytest.mark.parametrize(
    ("plan", "shared", "threads", "length", "tiles"),
    [
        ({}, 3, 64, 2048, True),  # of an older build
        ({HEADS: 9}, 3, 9, 2048, True),
        ({HEADS: 9}, 3, 10, 2048, False),
        ({HEADS: 9}, 1, 2, 2048, False),  # latent attention: all heads read the same keys
        ({HEADS: 32}, 8, 64, 131_072, True),  # scores of 4.3 GB
        ({HEADS: 32}, 1, 2, 131_072, True),
        ({HEADS: 32}, 8, 64, 8192, False),
    ],
)
def test_attention_works_in_tiles_where_heads_suffice_and_keys_are_their_own_or_memory_does_not(
    plan: dict[str, int], shared: int, threads: int, length: int, tiles: bool
) -> None:
    cache = (CacheTensor(name="0.key", heads=shared, dim=64), CacheTensor(name="0.value", heads=shared, dim=64))
    manifest = EngineManifest(
        model="any", architecture="llama", target="cpu", precision="fp32", engine="model.onnx", vocab_size=96, cache=cache,
        stop_token_ids=(0,), limits=Limits(max_length=length), plan=plan,
    )  # fmt: skip
    assert computes_in_tiles(manifest, threads) is tiles
