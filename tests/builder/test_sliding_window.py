"""Layers that see only the latest positions, in buffers that stay small. Run: pytest tests/builder/test_sliding_window.py

What is right is said by the NumPy reference's mask over whole texts, and by torch in test_architectures_torch.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.engines import Engine, float_logits, make_engine
from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.errors import BuildError
from triune_builder.graph.arch import find_architecture
from triune_builder.graph.export import export
from triune_builder.verify import reference
from triune_runtime.manifest import Limits, replace_limits
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.runner import Work
from triune_runtime.starting import step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.vocabulary import TokenBytes

TOLERANCE = 5e-5  # of float32, whose sums kernels of different processors order differently
WINDOW, LENGTH = 20, 400
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
KINDS = ["full_attention", "sliding_attention", "sliding_attention"]
TEXTS = [np.random.default_rng(n).integers(0, 256, n).tolist() for n in (210, 230, 199, 170)]

Array = NDArray[np.float32]


def windowed(**changes: Any) -> FakeCheckpoint:
    on = {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": KINDS, "max_window_layers": 0}
    return dense_checkpoint("qwen2", **(SIZES | on | changes))


@pytest.fixture(scope="module")
def checkpoint() -> FakeCheckpoint:
    return windowed()


@pytest.fixture(scope="module")
def engine(checkpoint: FakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_engine(checkpoint, "fp32", tmp_path_factory.mktemp("windowed"), max_length=LENGTH)


@pytest.fixture(scope="module")
def expected(checkpoint: FakeCheckpoint) -> list[Array]:
    return logits_of(checkpoint, TEXTS)


def logits_of(checkpoint: FakeCheckpoint, texts: list[list[int]]) -> list[Array]:
    found: list[list[Array]] = [[] for _ in texts]
    for scored in reference.score(checkpoint.config, checkpoint.weights, texts):
        found[scored.text].append(scored.logits)
    return [np.concatenate(rows) for rows in found]


def error(got: Array, wanted: Array) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def test_float_graph_equals_the_masked_reference(checkpoint: FakeCheckpoint, expected: list[Array], tmp_path: Path) -> None:
    bundle = export(checkpoint, max_length=LENGTH)  # type: ignore[arg-type]  # a fake
    for chunks in ([TEXTS[0][:90]], [TEXTS[0][:33], TEXTS[0][33:89], TEXTS[0][89:90]]):
        assert error(float_logits(bundle, tmp_path, chunks), expected[0][89]) < TOLERANCE


@pytest.mark.parametrize("chunk", [1, 13, 64, 150])
def test_logits_are_right_over_many_windows_however_the_prompt_is_cut(
    engine: Engine, expected: list[Array], chunk: int
) -> None:
    text = TEXTS[0]
    for start in range(0, len(text), chunk):
        part = tuple(text[start : start + chunk])
        assert error(engine.runner.run([Work(2, start, part)])[0], expected[0][start + len(part) - 1]) < TOLERANCE, start


def test_ragged_batches_are_right_and_have_the_bits_of_each_sequence_alone(engine: Engine, expected: list[Array]) -> None:
    starts, steps = [110, 47, 3, 70], 96
    alone = []
    for text, start in zip(TEXTS, starts, strict=True):
        engine.runner.run([Work(0, 0, tuple(text[:start]))])
        alone.append([engine.runner.run([Work(0, start + i, (text[start + i],))])[0] for i in range(steps)])
    for slot, (text, start) in enumerate(zip(TEXTS, starts, strict=True)):
        engine.runner.run([Work(slot, 0, tuple(text[:start]))])
    for step in range(steps):
        work = [Work(slot, starts[slot] + step, (TEXTS[slot][starts[slot] + step],)) for slot in range(4)]
        for slot, row in enumerate(engine.runner.run(work)):
            assert np.array_equal(row, alone[slot][step]), (slot, step)
            assert error(row, expected[slot][starts[slot] + step]) < TOLERANCE


@pytest.mark.parametrize("accepted", [0, 1, 4])
def test_rejected_drafts_leave_no_trace_wherever_the_buffer_drops_its_oldest(
    engine: Engine, expected: list[Array], accepted: int
) -> None:
    """Each run has 6 drafts, of which the first `accepted` are the text's own and the others wrong."""
    text, at = TEXTS[1], 31
    engine.runner.run([Work(1, 0, tuple(text[:at]))])
    while at + 7 < len(text):
        wrong = tuple((t + 1) % 256 for t in text[at + 1 + accepted : at + 7])
        rows = engine.runner.run([Work(1, at, (*text[at : at + 1 + accepted], *wrong), drafts=6)])
        assert error(rows[: accepted + 1], expected[1][at : at + accepted + 1]) < TOLERANCE, at
        at += accepted + 1
        if at % 3 == 0:  # the scheduler moves sequences between steps
            engine.runner.copy_slot(1, 3, at)
            engine.runner.copy_slot(3, 1, at)


def test_a_moved_sequence_goes_on_as_the_original(engine: Engine) -> None:
    for length in (15, 36, 37, 90, 131):
        engine.runner.run([Work(3, 0, tuple(TEXTS[0][:length]))])
        engine.runner.run([Work(0, 0, tuple(TEXTS[2][:150]))])
        engine.runner.copy_slot(3, 0, length)
        rows = [engine.runner.run([Work(slot, at, (TEXTS[0][at],))])[0] for slot in (3, 0) for at in range(length, length + 40)]
        assert np.array_equal(rows[:40], rows[40:]), length


def test_memory_is_flat_beyond_the_window_in_the_runtimes_own_report(tmp_path: Path) -> None:
    made = make_engine(windowed(layer_types=None), "fp32", tmp_path, slots=2, max_length=LENGTH)
    server = step_loop(made.manifest, made.runner, TokenBytes([bytes([i]) for i in range(256)]))
    server.submit(
        Request(key=1, prompt=tuple(TEXTS[0][:5]), params=SamplingParams(max_tokens=300, temperature=0.0, ignore_eos=True))
    )
    used = []
    while server.has_work:
        server.step()
        used.append(server.snapshot().kv_bytes)
    capacity = made.manifest.cache[0].positions(LENGTH)
    flat = capacity * made.manifest.kv_bytes_per_token
    assert capacity == WINDOW + 16
    assert max(used) == flat and used[capacity:-1] == [flat] * len(used[capacity:-1]) and len(used) == 300
    assert server.snapshot().kv_bytes_max == 2 * flat


def test_answers_served_together_are_each_the_models_own(checkpoint: FakeCheckpoint, engine: Engine) -> None:
    """Requests come and go, slots are moved; every token is the reference's choice after the tokens before it."""
    manifest = replace_limits(engine.manifest, max_sequences=3, prefill_chunk=16)
    server = step_loop(manifest, engine.runner, TokenBytes([bytes([i % 128]) for i in range(256)]))
    prompts = {key: tuple(TEXTS[key % 4][:length]) for key, length in enumerate((5, 70, 33, 17, 50, 8, 41))}
    answers: dict[int, list[int]] = {key: [] for key in prompts}
    for key, prompt in prompts.items():
        params = SamplingParams(max_tokens=40 + 15 * (key % 3), ignore_eos=True)
        server.submit(Request(key=key, prompt=prompt, params=params))
    while server.has_work:
        for event in server.step():
            assert isinstance(event.item, Chunk)
            answers[event.key] += event.item.cut.token_ids
    assert [len(answers[key]) for key in prompts] == [40 + 15 * (key % 3) for key in prompts]
    whole = [[*prompt, *answers[key]] for key, prompt in prompts.items()]
    for prompt, answer, logits in zip(prompts.values(), answers.values(), logits_of(checkpoint, whole), strict=True):
        assert answer == logits[len(prompt) - 1 : -1].argmax(-1).tolist()


def test_the_runner_keeps_what_the_manifest_says_whatever_the_length(
    checkpoint: FakeCheckpoint, engine: Engine, tmp_path: Path
) -> None:
    longer = make_engine(checkpoint, "fp32", tmp_path, slots=4, max_length=10 * LENGTH)
    for made, length in ((engine, LENGTH), (longer, 10 * LENGTH)):
        held = sum(buffer.nbytes for buffer in made.runner._cache.values())  # type: ignore[attr-defined]  # its memory itself
        assert held == 4 * made.manifest.kv_bytes(length)
    full = sum(c.bytes_per_position for c in engine.manifest.cache if c.window is None)
    assert longer.manifest.kv_bytes(10 * LENGTH) - engine.manifest.kv_bytes(LENGTH) == 9 * LENGTH * full


def test_an_engine_runs_with_fewer_positions_than_its_window(
    checkpoint: FakeCheckpoint, expected: list[Array], tmp_path: Path
) -> None:
    made = make_engine(checkpoint, "fp32", tmp_path, max_length=64)
    runner = make_runner(replace_limits(made.manifest, max_length=12), tmp_path)
    runner.run([Work(0, 0, tuple(TEXTS[0][:9]))])
    assert error(runner.run([Work(0, 9, (TEXTS[0][9],))])[0], expected[0][9]) < TOLERANCE


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "qwen3"])
def test_every_dense_architecture_but_llama_has_windows(kind: str, tmp_path: Path) -> None:
    switch = {"use_sliding_window": True, "max_window_layers": 0} if kind.startswith("qwen") else {}
    plain = dense_checkpoint(kind, **SIZES, head_dim=16)
    checkpoint = dataclasses.replace(plain, config=plain.config | {"sliding_window": 7} | switch)
    assert find_architecture(kind).read(checkpoint.config).windows == (7, 7, 7)
    runner = make_engine(checkpoint, "fp32", tmp_path).runner
    text = TEXTS[0][:60]
    row = runner.run([Work(0, 0, tuple(text))])[0]
    assert error(row, logits_of(checkpoint, [text])[0][-1]) < TOLERANCE
    assert error(row, logits_of(plain, [text])[0][-1]) > 1e-3


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        ({"model_type": "llama", "sliding_window": 5, "layer_types": KINDS}, (None,) * 3),  # which has none
        ({"model_type": "mistral"}, (4096,) * 3),
        ({"model_type": "mistral", "sliding_window": 5}, (5, 5, 5)),
        ({"model_type": "mistral", "sliding_window": None}, (None,) * 3),
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}, (None, 4096, 4096)),
        ({"model_type": "qwen2", "sliding_window": 5, "use_sliding_window": False, "max_window_layers": 0}, (None,) * 3),
        ({"model_type": "qwen2", "sliding_window": 5, "use_sliding_window": True, "max_window_layers": 2}, (None, None, 5)),
        ({"model_type": "qwen3", "sliding_window": 5, "use_sliding_window": True}, (None,) * 3),  # 28 full layers first
        ({"model_type": "qwen2", "sliding_window": 5, "use_sliding_window": True, "layer_types": KINDS}, (None, 5, 5)),
    ],
)
def test_config_keys_say_which_layers_have_a_window(config: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    silent = {k: v for k, v in dense_checkpoint("llama", **SIZES).config.items() if not k.endswith("_bias")}
    config = silent | {"head_dim": 16} | config
    assert find_architecture(config["model_type"]).read(config).windows == windows


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sliding_window": "5"}, "sliding_window is '5'"),
        ({"sliding_window": True}, "sliding_window is True"),
        ({"sliding_window": 0}, "sliding_window is 0"),
        ({"sliding_window": None}, "no window is in force"),
        ({"layer_types": KINDS[:2]}, "names 2 layers"),
        ({"layer_types": [*KINDS[:2], "chunked_attention"]}, "chunked_attention"),
        ({"use_sliding_window": None}, "use_sliding_window is null; expected true or false"),
    ],
)
def test_windows_that_are_not_understood_stop_the_build(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        export(windowed(**changes), max_length=64)  # type: ignore[arg-type]  # a fake


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layer_types": KINDS}, "layer_types is .*, and sliding_window, 5, makes all 3 layers sliding_attention"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types is .*, and sliding_window, 5"),
        ({"use_sliding_window": False}, "use_sliding_window is False, sliding_window 5"),
        ({"use_sliding_window": True, "sliding_window": None}, "use_sliding_window is True, sliding_window null"),
    ],
)
def test_keys_that_contradict_mistrals_window_are_refused_by_both_names(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        export(dense_checkpoint("mistral", **(SIZES | {"sliding_window": 5} | changes)), max_length=64)  # type: ignore[arg-type]


def test_limits_of_a_manifest_survive_a_round_trip(engine: Engine, tmp_path: Path) -> None:
    engine.manifest.save(tmp_path)
    loaded = type(engine.manifest).load(tmp_path)
    assert [c.window for c in loaded.cache] == [None, None, WINDOW, WINDOW, WINDOW, WINDOW]
    assert loaded.limits == Limits(max_sequences=4, max_length=LENGTH)
