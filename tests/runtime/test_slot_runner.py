"""The runner of engines with slots in a device's memory, on a device without a GPU, equals the ONNX Runtime runner to the bit.

Run: pytest tests/runtime/test_slot_runner.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.engines import make_engine
from fakes.host_engines import HostRunner, as_tensorrt
from fakes.tiny_llama import FakeCheckpoint, TinyRunner, tiny_checkpoint
from triune_runtime.errors import ManifestError
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Runner, Want, Work
from triune_runtime.targets.device.host import HostDevice, HostEngine
from triune_runtime.targets.device.plan import slot_plan
from triune_runtime.targets.device.slot_runner import SlotRunner

SLOTS, LENGTH = 4, 64
TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, LENGTH))


class Engines(NamedTuple):
    checkpoint: FakeCheckpoint
    manifest: EngineManifest
    folder: Path
    ort: Runner


def built(folder: Path, precision: str) -> Engines:
    checkpoint = tiny_checkpoint(hidden_size=64, intermediate_size=96)
    engine = make_engine(checkpoint, precision, folder, slots=SLOTS, max_length=LENGTH)
    limits = Limits(max_sequences=SLOTS, max_length=LENGTH, prefill_chunk=16)
    return Engines(checkpoint, dataclasses.replace(engine.manifest, limits=limits), folder, engine.runner)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """A tiny Llama whose kernels compute a row alike whatever its neighbours, so that equal means equal bits."""
    return built(tmp_path_factory.mktemp("engine"), "w8a8")


def host(engines: Engines, *, record: bool = True) -> HostRunner:
    return HostRunner.of(engines.manifest, engines.folder, record=record)


STEPS: list[list[Work]] = [
    [Work(0, 0, TOKENS[:16])],
    [Work(0, 16, TOKENS[16:20]), Work(1, 0, TOKENS[5:12])],
    [Work(0, 20, TOKENS[20:21]), Work(1, 7, TOKENS[12:13]), Work(2, 0, TOKENS[:9])],
    [Work(2, 9, TOKENS[9:16]), Work(0, 21, TOKENS[21:22]), Work(1, 8, TOKENS[13:14])],
    [Work(1, 9, TOKENS[14:15]), Work(0, 22, TOKENS[22:23]), Work(2, 16, TOKENS[16:17])],
    [Work(0, 23, TOKENS[23:27], drafts=3), Work(1, 10, TOKENS[15:16]), Work(2, 17, TOKENS[17:20], drafts=2)],
    [Work(0, 25, TOKENS[40:44], drafts=3), Work(1, 11, TOKENS[16:17]), Work(2, 18, TOKENS[18:19])],
    [Work(0, 26, TOKENS[41:42]), Work(1, 12, TOKENS[17:18]), Work(2, 19, TOKENS[19:20])],
]


@pytest.mark.parametrize("record", [True, False])
def test_prefill_chunks_ragged_decode_and_drafts_equal_the_onnx_runtime_runner(engines: Engines, record: bool) -> None:
    ours = host(engines, record=record)
    for work in STEPS:
        assert np.array_equal(ours.runner.run(work), engines.ort.run(work)), work


def test_numbers_are_those_of_an_independent_implementation(tmp_path: Path) -> None:
    made = built(tmp_path, "fp32")
    reference, ours = TinyRunner(made.checkpoint.config, made.checkpoint.weights), host(made)
    for work in STEPS[:5]:
        found, expected = ours.runner.run(work), reference.run(work)
        assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5, work


def test_best_tokens_and_the_logits_that_are_wanted_are_those_of_the_onnx_runtime_runner(engines: Engines) -> None:
    """Which are wanted varies from step to step, recorded or not."""
    ours, chance = host(engines), np.random.default_rng(4)
    for work in STEPS:
        asked = [item._replace(wants=Want.LOGITS if chance.integers(2) else Want.TOKEN) for item in work]
        expected, before = engines.ort.run(work), ours.device.downloaded
        made = ours.runner.run_rows(asked)
        assert made.best is not None
        assert np.array_equal(made.best.tokens, expected.argmax(1))
        assert np.array_equal(made.best.logits, expected.max(1))
        wanted = np.repeat([item.wants is Want.LOGITS for item in asked], [1 + item.drafts for item in asked])
        assert np.array_equal(made.logits[wanted], expected[wanted]), work
        batch = any(item.slot == 0 and len(item.tokens) == 1 for item in work)
        small = (256 + 4 * 8) * (len(ours.compute.calls) - batch) + (256 + 4 * SLOTS) * batch
        assert ours.device.downloaded - before == small + int(wanted.sum()) * 4 * 256
        ours.compute.calls.clear()


def test_an_engine_without_best_tokens_gives_all_logits(engines: Engines) -> None:
    ours = HostRunner.of(engines.manifest, engines.folder, best=False)
    for work in STEPS:
        made = ours.runner.run_rows([item._replace(wants=Want.TOKEN) for item in work])
        assert made.best is None and np.array_equal(made.logits, engines.ort.run(work))


@st.composite
def workloads(draw: st.DrawFn) -> list[list[Work] | tuple[int, int, int]]:
    """Runs and copies of slots as a scheduler makes them: tokens taken back, slots given up, moved and used again."""
    held = [0] * SLOTS
    steps: list[list[Work] | tuple[int, int, int]] = []
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 4)) == 0:
            source, target = draw(st.permutations(range(SLOTS)))[:2]
            if held[source]:
                steps.append((source, target, held[source]))
                held[target] = held[source]
                continue
        work = []
        for slot in draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS, unique=True)):
            start = draw(st.sampled_from([held[slot], held[slot], max(0, held[slot] - 2), 0]))
            count = min(draw(st.sampled_from([1, 1, 1, 2, 5, 16])), LENGTH - start)
            if count:
                drafts = draw(st.integers(0, min(count - 1, 3)))
                first = draw(st.integers(0, LENGTH - count))
                work.append(Work(slot, start, TOKENS[first : first + count], drafts))
                held[slot] = start + count
        if work:
            steps.append(work)
    return steps


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workload=workloads())
def test_any_workload_equals_the_onnx_runtime_runner(engines: Engines, workload: list[Any]) -> None:
    ours = host(engines)
    for step in workload:
        if isinstance(step, tuple):
            ours.runner.copy_slot(*step)
            engines.ort.copy_slot(*step)
        else:
            assert np.array_equal(ours.runner.run(step), engines.ort.run(step)), step


def test_a_copied_slot_goes_on_as_the_original(engines: Engines) -> None:
    ours = host(engines)
    ours.runner.run([Work(2, 0, TOKENS[:10])])
    ours.runner.copy_slot(2, 0, 10)
    copied = ours.runner.run([Work(0, 10, TOKENS[10:11])])
    assert np.array_equal(copied, ours.runner.run([Work(2, 10, TOKENS[10:11])]))


def test_a_copy_takes_no_more_than_the_length(engines: Engines) -> None:
    """Rows behind it are another sequence's: what is there already stays."""
    ours = host(engines)
    ours.runner.run([Work(0, 0, TOKENS[:12])])
    ours.runner.run([Work(1, 0, TOKENS[20:32])])
    before = ours.runner.run([Work(0, 12, TOKENS[12:13])])
    ours.runner.copy_slot(1, 2, 12)
    ours.runner.copy_slot(0, 2, 3)
    ours.runner.copy_slot(1, 0, 0)
    assert np.array_equal(ours.runner.run([Work(0, 12, TOKENS[12:13])]), before)


def decode(count: int, start: int = 0) -> list[Work]:
    return [Work(slot, start, TOKENS[slot : slot + 1]) for slot in range(count)]


def test_a_batch_size_is_recorded_at_its_second_run_with_bindings_of_its_own(engines: Engines) -> None:
    ours = host(engines)
    for start in range(3):
        ours.runner.run(decode(2, start))
        ours.runner.run(decode(3, start))
    decoding = [p for p in ours.engine.programs if p.profile.name == "decode"]
    assert [p.recorded for p in decoding] == [True, True]
    assert [p.profile.name for p in ours.engine.programs].count("prefill") == 1


def test_without_recording_all_batch_sizes_share_their_bindings(engines: Engines) -> None:
    ours = host(engines, record=False)
    for start in range(3):
        ours.runner.run(decode(2, start))
        ours.runner.run(decode(3, start))
    assert [p.profile.name for p in ours.engine.programs] == ["prefill", "decode"]
    assert not any(p.recorded for p in ours.engine.programs)


@pytest.mark.parametrize("refuses", ["when asked", "when recorded"])
def test_an_engine_that_cannot_be_recorded_runs_call_by_call(engines: Engines, monkeypatch: Any, refuses: str) -> None:
    ours, plain = host(engines), host(engines, record=False)
    if refuses == "when asked":
        monkeypatch.setattr("triune_runtime.targets.device.host.HostProgram.capturable", False)
    else:
        monkeypatch.setattr(ours.device, "capture", lambda queue: None)
    for start in range(3):
        for count in (2, 3):
            assert np.array_equal(ours.runner.run(decode(count, start)), plain.runner.run(decode(count, start)))


def test_one_batch_runs_as_one_and_the_rest_alone(engines: Engines) -> None:
    ours = host(engines)
    ours.runner.run([Work(3, 0, TOKENS[:5]), *decode(2)])
    assert sorted(ours.compute.calls) == [(1, 5), (2, 1)]


def test_memory_is_all_there_at_the_start_and_stays(engines: Engines) -> None:
    ours = host(engines)
    for step in range(4):  # every batch size, twice: recorded
        for count in range(1, SLOTS + 1):
            ours.runner.run(decode(count, step))
    before = ours.device.allocated_bytes, len(ours.engine.programs)
    for step in range(300):
        ours.runner.run(decode(1 + step % SLOTS, step % LENGTH))
        ours.runner.run([Work(0, 0, TOKENS[: 1 + step % 16])])
        ours.runner.copy_slot(0, 1, 1)
    assert (ours.device.allocated_bytes, len(ours.engine.programs)) == before
    assert ours.device.queued == len(engines.manifest.cache), "the last copy waits for the next run, nothing else does"


def test_the_cache_takes_what_the_manifest_says(engines: Engines) -> None:
    assert host(engines).runner.cache_bytes == SLOTS * LENGTH * engines.manifest.kv_bytes_per_token


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (Work(0, 0, TOKENS[:17]), "a run of 17 tokens, the engine's profile takes 16"),
        (Work(0, 0, TOKENS[:12], drafts=9), "logits of 10 of 12 tokens, the engine's profile gives 8"),
    ],
)
def test_what_the_profile_does_not_take_is_our_own_bug(engines: Engines, work: Work, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        host(engines).runner.run([work])


def test_a_manifest_of_another_shape_is_refused(engines: Engines) -> None:
    good = as_tensorrt(engines.manifest)
    profiles = slot_plan(good).profiles
    windowed = dataclasses.replace(good.cache[0], window=8)
    bad = [
        (dataclasses.replace(good, plan={}), "says nothing that fits of slots and profiles"),
        (as_tensorrt(engines.manifest, profiles=profiles[::-1]), r"profiles \['decode', 'prefill'\]"),
        (as_tensorrt(engines.manifest, profiles=profiles[:1]), r"profiles \['prefill'\]"),
        (as_tensorrt(engines.manifest, capacity=32), "positions of a slot 32; this runtime needs 64"),
        (dataclasses.replace(good, cache=(windowed, *good.cache[1:])), "windows in the cache"),
        (dataclasses.replace(good, limits=dataclasses.replace(good.limits, max_sequences=9)), "sequences of a decode 4"),
    ]
    for manifest, message in bad:
        with pytest.raises(ManifestError, match=message):
            SlotRunner(manifest, HostDevice(), HostEngine(good, HostDevice(), lambda inputs: inputs["logits"]))
