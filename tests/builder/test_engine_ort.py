"""Lowered engines, run by the runner that serves them, equal the definition.

Run: pytest tests/builder/test_engine_ort.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.engines import BLOCK_SIZES, allowed_batch_error, find_rules, float_logits, made_up_maxima
from fakes.tiny_llama import FakeCheckpoint, TinyRunner, tiny_checkpoint
from triune_builder.graph.export import export
from triune_builder.quantize.apply import quantize
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.verify.measure import difference
from triune_runtime.errors import ManifestError
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Runner, Work
from triune_runtime.targets import make_runner

Array = NDArray[np.float32]


class Engine(NamedTuple):
    precision: str
    runner: Runner
    definition: Callable[[list[int]], Array]


# The lowered ops against the quantized graph's own definition. MatMulNBits rounds its activations to int8; the rest is exact.
TOLERANCE = {"fp32": 1e-5, "rows": 1e-4, "w8a8": 0.2, "int8": 0.2, "int4": 0.2}
TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 30))


def build(checkpoint: FakeCheckpoint, precision: str, folder: Path) -> tuple[Runner, Callable[[list[int]], Array]]:
    """The lowered engine's runner, and the same graph's logits before lowering, from whole histories."""
    (folder / "plain").mkdir()
    plain = export(checkpoint, max_length=64)  # type: ignore[arg-type]
    quantize(plain, find_rules(precision), made_up_maxima(checkpoint))
    bundle = export(checkpoint, max_length=64)  # type: ignore[arg-type]
    quantize(bundle, find_rules(precision), made_up_maxima(checkpoint))
    onnx_files.write(lower(bundle), folder)
    manifest = EngineManifest(
        model="tiny", architecture="llama", target="cpu", precision=precision, engine=onnx_files.MODEL, vocab_size=256,
        cache=bundle.cache, stop_token_ids=(0,), limits=Limits(max_sequences=4, max_length=64),
    )  # fmt: skip
    return make_runner(manifest, folder), lambda history: float_logits(plain, folder / "plain", [history])


@pytest.fixture(scope="module", params=list(TOLERANCE))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    runner, definition = build(tiny_checkpoint(**BLOCK_SIZES), request.param, tmp_path_factory.mktemp(request.param))
    return Engine(request.param, runner, definition)


def test_prefill_chunks_and_ragged_decode_equal_the_definition(engine: Engine) -> None:
    steps = [
        [Work(0, 0, TOKENS[:20])],
        [Work(1, 0, TOKENS[5:12])],
        [Work(0, 20, TOKENS[20:21]), Work(1, 7, TOKENS[12:13])],
        [Work(2, 0, TOKENS[:9]), Work(0, 21, TOKENS[21:22]), Work(1, 8, TOKENS[13:14])],
        [Work(2, 9, TOKENS[9:16])],
        [Work(1, 9, TOKENS[14:15]), Work(0, 22, TOKENS[22:23]), Work(2, 16, TOKENS[16:17])],
    ]
    history: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for work in steps:
        logits = engine.runner.run(work)
        for row, item in zip(logits, work, strict=True):
            history[item.slot] += item.tokens
            expected = engine.definition(history[item.slot])
            error = np.sqrt(np.mean((row - expected) ** 2) / np.mean(expected**2))
            assert error < TOLERANCE[engine.precision], item


def test_float_engine_equals_an_independent_model() -> None:
    checkpoint = tiny_checkpoint(**BLOCK_SIZES)
    with tempfile.TemporaryDirectory() as folder:
        runner, _ = build(checkpoint, "fp32", Path(folder))
        work = [Work(0, 0, TOKENS)]
        expected = TinyRunner(checkpoint.config, checkpoint.weights).run(work)
        assert np.abs(runner.run(work) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch(engine: Engine) -> None:
    runner = engine.runner
    for slot in range(4):
        runner.run([Work(slot, 0, TOKENS[slot : slot + 10])])
    alone = runner.run([Work(0, 10, (7,))])[0]
    for mates in range(2, 5):
        together = runner.run([Work(slot, 10, (7,)) for slot in range(mates)])[0]
        assert difference(alone, together) <= allowed_batch_error(engine.precision), mates


def test_drafted_tokens_run_together_have_the_logits_of_one_by_one(engine: Engine) -> None:
    runner = engine.runner
    starts = {0: 12, 1: 5, 2: 9}
    drafts = {slot: TOKENS[slot + 12 : slot + 15] for slot in starts}
    one_by_one = []
    for slot, start in starts.items():
        runner.run([Work(3, 0, TOKENS[slot : slot + start])])
        one_by_one += [runner.run([Work(3, start + i, (token,))])[0] for i, token in enumerate(drafts[slot])]
        runner.run([Work(slot, 0, TOKENS[slot : slot + start])])
    together = runner.run([Work(slot, start, drafts[slot], drafts=2) for slot, start in starts.items()])
    assert together.shape == (9, runner.vocab_size)
    assert np.abs(together - one_by_one).max() <= 1e-5 * np.abs(one_by_one).max()
    alone = runner.run([Work(2, starts[2], drafts[2], drafts=2)])
    assert np.array_equal(alone, together[6:])


def test_a_copied_slot_goes_on_as_the_original(engine: Engine) -> None:
    runner = engine.runner
    runner.run([Work(3, 0, TOKENS[:11])])
    runner.run([Work(0, 0, TOKENS[3:20])])
    original = runner.run([Work(3, 11, (9,))])[0]
    runner.copy_slot(3, 0, 11)
    assert np.array_equal(runner.run([Work(0, 11, (9,))])[0], original)


@pytest.mark.parametrize("changes", [{"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 96}, {"head_dim": 32}])
def test_other_shapes_lower_too(changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**(BLOCK_SIZES | changes))
    runner, _ = build(checkpoint, "fp32", tmp_path)
    work = [Work(0, 0, TOKENS[:12])]
    expected = TinyRunner(checkpoint.config, checkpoint.weights).run(work)
    assert np.abs(runner.run(work) - expected).max() < 1e-4 * np.abs(expected).max()


def test_an_engine_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**BLOCK_SIZES)
    bundle = export(checkpoint, max_length=64)  # type: ignore[arg-type]
    onnx_files.write(lower(bundle), tmp_path)
    manifest = EngineManifest(
        model="tiny", architecture="llama", target="cpu", precision="fp32", engine=onnx_files.MODEL, vocab_size=256,
        cache=bundle.cache[:-1], stop_token_ids=(0,),
    )  # fmt: skip
    with pytest.raises(ManifestError, match=r"past\.1\.value"):
        make_runner(manifest, tmp_path)
    (tmp_path / onnx_files.MODEL).write_bytes(b"not a graph")
    with pytest.raises(ManifestError, match="cannot load"):
        make_runner(manifest, tmp_path)
