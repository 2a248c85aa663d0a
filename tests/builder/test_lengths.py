"""How long sequences may be where nobody says. Run: pytest tests/builder/test_lengths.py"""

from __future__ import annotations

import dataclasses
import json
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fakes.tiny_build import TinyTools, settings, write_checkpoint
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import tiny_checkpoint
from triune_builder.checkpoint import open_checkpoint
from triune_builder.dry_run import dry_run
from triune_builder.errors import BuildError
from triune_builder.estimate import room_of
from triune_builder.inputs import Inputs, Settings
from triune_builder.lengths import Room, machine_memory, own_length
from triune_builder.plan import BuildPlan, plan_of
from triune_builder.progress import Display
from triune_builder.targets import find_target
from triune_builder.verify.report import BuildReport
from triune_runtime.cgroup import MachineFiles
from triune_runtime.manifest import CacheTensor, EngineManifest, Limits

GB = 10**9


def room(own: int | None, kilobytes: int = 46, window: int | None = None, loaded: int = GB // 10) -> Room:
    """Of a model whose tokens take so much KV cache: SmolLM2-135M's 46 KB, by default."""
    return Room(own=own, loaded=loaded, cache=(CacheTensor(name="0.key", heads=1, dim=256 * kilobytes, window=window),))


def chosen(room: Room, memory: int, target: str = "cpu", sequences: int = 16) -> int:
    plan = BuildPlan(target=target, auto_length=True, limits=Limits(max_sequences=sequences))
    return plan.sized(room, memory)[0].limits.max_length


@pytest.mark.parametrize(
    ("own", "memory", "expected", "why"),
    [
        (512, 16, 512, "the model's own length"),
        (8192, 64, 8192, "the model's own length"),
        (131_072, 1000, 32_768, "of the model's own 131,072; a longer one must be asked for"),
        (8192, 8, 5120, "of the model's own 8,192, for which 16 KV slots would take 6.17 GB; these take 3.86 GB of 8 GB"),
        (None, 64, 2048, "the model does not say"),
        (8192, 0, 256, "of the model's own 8,192"),
        (100, 0, 100, "the model's own length"),
    ],
)
def test_the_length_is_the_models_own_as_far_as_memory_allows(own: int | None, memory: int, expected: int, why: str) -> None:
    plan, said = BuildPlan(auto_length=True).sized(room(own), memory * GB)
    assert plan.limits.max_length == expected and not plan.auto_length
    assert why in said or memory == 0


@given(st.integers(2, 1 << 20), st.integers(1, 500), st.integers(1, 64), st.integers(0, 64), st.sampled_from([None, 128, 4096]))
def test_the_slots_never_take_more_than_half_of_what_the_weights_leave(
    own: int, kilobytes: int, sequences: int, gigabytes: int, window: int | None
) -> None:
    of, memory = room(own, kilobytes, window), gigabytes * GB
    length = chosen(of, memory, sequences=sequences)
    assert min(own, 256) <= length <= min(own, 32_768)
    assert length <= 256 or sequences * of.kv_bytes(length) <= max(memory - GB // 10, 0) / 2


def test_fewer_sequences_may_be_longer() -> None:
    assert chosen(room(32_768), 8 * GB, sequences=4) > chosen(room(32_768), 8 * GB, sequences=16)


def test_of_a_gpu_that_may_be_elsewhere_the_memory_is_not_guessed() -> None:
    assert [chosen(room(own), 0, "tensorrt") for own in (512, 8192)] == [512, 2048]


def test_more_than_the_model_was_made_for_is_refused_with_what_make_takes() -> None:
    with pytest.raises(BuildError, match=r"--max-length is 513; .* is made for 512 tokens") as caught:
        BuildPlan(limits=Limits(max_length=513)).sized(room(512))
    assert caught.value.hint == "choose --max-length 512 (make: MAX_LENGTH=512) or less, or leave it out"


@pytest.mark.parametrize("said", ["auto", "AUTO", None, "4096", "4,096", 4096])
def test_the_option_is_a_number_or_auto(said: object) -> None:
    plan = plan_of({"max_length": said})
    assert plan.auto_length == (said in ("auto", "AUTO", None))
    assert plan.auto_length or plan.limits.max_length == 4096


@pytest.mark.parametrize("value", [None, "512", True, 0, 1, -4, 0.5, [512]])
def test_a_length_that_is_none_is_not_believed(value: object) -> None:
    assert own_length({"max_position_embeddings": value}) is None


def test_what_is_remembered_of_a_checkpoint_gives_the_same_length(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", tiny_checkpoint(max_position_embeddings=9000))
    seen = room_of(BuildPlan(), open_checkpoint(str(folder), cache=tmp_path))
    again = Room.from_json(json.loads(json.dumps(seen.to_json())))
    assert seen.own == 9000 and seen.loaded
    for memory in range(0, 40_000_000, 1_000_000):
        assert chosen(seen, memory) == chosen(again, memory)


@pytest.mark.parametrize(
    "limits",
    [
        {"sys/fs/cgroup/memory.max": "1000000\n"},
        {"proc/self/cgroup": "0::/jobs/7\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/jobs/memory.max": "1000000\n",
         "sys/fs/cgroup/jobs/7/memory.max": "2000000\n"},
        {"proc/self/cgroup": "4:memory:/docker/x\n", "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "1000000\n",
         "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
    ],
    ids=["of a container", "of a group above its own", "version 1"],
)  # fmt: skip
def test_a_build_has_the_memory_that_every_group_allows(limits: dict[str, str], tmp_path: Path) -> None:
    whole = machine_memory(MachineFiles(tmp_path))
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine_memory(MachineFiles(tmp_path)) == 1_000_000 < whole


def test_a_model_of_few_tokens_builds_unasked_and_says_its_length(tmp_path: Path) -> None:
    model, tiny, lines = write_checkpoint(tmp_path / "m.gguf"), settings(tmp_path), StringIO()
    plan = BuildPlan(model=str(model), precision="int8", auto_length=True, limits=Limits(max_sequences=2, prefill_chunk=8))
    tools = TinyTools(config={"max_position_embeddings": 96})
    made = tools.build(plan, tiny, display=Display(Console(file=lines, width=120)))
    assert EngineManifest.load(made.repository / "generate" / "1").limits.max_length == 96
    assert "2 sequences of 96 tokens, the model's own length" in lines.getvalue()
    report = BuildReport.read(made.repository / "generate" / "1")
    assert "96, the model's own length" in report.text()
    tools.calls.clear()
    assert tools.build(plan, tiny).unchanged and tools.calls == []
    same = dataclasses.replace(plan, auto_length=False, limits=dataclasses.replace(plan.limits, max_length=96))
    assert tools.build(same, tiny).unchanged


def test_other_limits_need_no_other_engine(tmp_path: Path) -> None:
    model, tiny = write_checkpoint(tmp_path / "m.gguf"), settings(tmp_path)
    tools = TinyTools(config={"max_position_embeddings": 9000})
    limits = Limits(max_sequences=2, prefill_chunk=8, max_length=8192)
    plan = BuildPlan(model=str(model), precision="int8", limits=limits)
    tools.build(plan, tiny)
    for changed, again in (({"max_length": 4096}, []), ({"max_queue": 3}, []), ({"max_length": 64}, ["verify"]),
                           ({"max_sequences": 3}, ["verify"])):  # fmt: skip
        tools.calls.clear()
        made = tools.build(dataclasses.replace(plan, limits=dataclasses.replace(limits, **changed)), tiny)
        assert not made.unchanged and tools.calls == ["fetch", *again], changed


def test_the_length_is_part_of_a_tensorrt_engine() -> None:
    def key(target: str, length: int) -> str:
        plan = BuildPlan(target=target, limits=Limits(max_length=length))
        inputs = Inputs(plan, Settings(), find_target(target))
        inputs.size(room(8192))
        return inputs.engine_key([])

    assert key("tensorrt", 512) != key("tensorrt", 1024)
    assert key("cpu", 512) == key("cpu", 1024) == key("cpu", 8192)


def test_a_dry_run_says_the_length_too(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", tiny_checkpoint(max_position_embeddings=512, head_dim=16, intermediate_size=64))
    plan = BuildPlan(model=str(folder), auto_length=True)
    found = dry_run(plan, Settings(build_dir=tmp_path / "build"), display=Display(quiet=True)).estimate
    assert (found.limits.max_length, found.length) == (512, "the model's own length")
