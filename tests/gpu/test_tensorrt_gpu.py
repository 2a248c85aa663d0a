"""TensorRT engines on a real GPU: numbers, CUDA graphs, memory. Needs no preparation but `make test-gpu`.

Run on a machine with an NVIDIA GPU of compute capability 8.0 or later and requirements/tensorrt.txt (TensorRT-RTX), or for a
data-center GPU the package `tensorrt` and cuda-bindings. Each engine is built here, for the GPU that is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from fakes import tiny_deepseek
from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_llama import tiny_checkpoint
from support.model_steps import LIMITS, STEPS, TOKENS, assert_computes, by_network, by_reference
from triune_builder.errors import BuildError
from triune_builder.plan import BuildPlan
from triune_builder.targets.tensorrt import gpus
from triune_builder.targets.tensorrt.compiling import compile_engine, make_network_runner
from triune_builder.targets.tensorrt.graph_files import GRAPH
from triune_builder.targets.tensorrt.precisions import find_precision
from triune_builder.verify.best import best_errors
from triune_builder.verify.speed import replay_error
from triune_runtime.errors import ManifestError
from triune_runtime.machine import Gpu, this_machine
from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Runner, Want, Work
from triune_runtime.targets import check_runnable, make_runner
from triune_runtime.targets.tensorrt import elsewhere

pytestmark = pytest.mark.gpu
SIZES = {"hidden_size": 64, "intermediate_size": 96}
TOLERANCE = {"float16": 4e-2, "bfloat16": 2e-1}  # of the largest logit
CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_checkpoint(**SIZES),
    "mistral with a window": lambda: tiny_checkpoint(model_type="mistral", **SIZES, sliding_window=6),
    "qwen2": lambda: dense_checkpoint("qwen2", **SIZES),
    "qwen3": lambda: dense_checkpoint("qwen3", **SIZES, head_dim=16),
    "deepseek_v3": lambda: tiny_deepseek.tiny_checkpoint(seed=1),
}
STEPS_OF_MEMORY = 1000
ROOM = 1 << 20  # bytes of GPU memory that may come and go


class Built(NamedTuple):
    checkpoint: Any
    manifest: EngineManifest
    folder: Path

    def runner(self) -> Runner:
        return make_runner(self.manifest, self.folder)


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    machine = this_machine()
    if not machine.gpus:
        pytest.skip(f"no supported GPU: {machine.no_gpu}")
    if tuple(map(int, machine.gpus[0].compute_capability.split("."))) < (8, 0):
        pytest.skip(f"no supported GPU: {machine.gpus[0]} is older than compute capability 8.0")
    return machine.gpus[0]


def build(gpu: Gpu, name: str, precision: str, folder: Path) -> Built:
    """An engine for this GPU, as `triune build` makes it."""
    capability = gpu.compute_capability
    try:
        find_precision(precision, (capability,))
    except BuildError as error:
        pytest.skip(f"{gpu.name}: {error}")
    if precision != "fp16" and (version := gpus.classic_version((capability,))) is not None:
        pytest.skip(f"TensorRT {version} takes no {precision}")
    checkpoint = CHECKPOINTS[name]()
    plan = BuildPlan(target="tensorrt", precision=precision, limits=LIMITS, options={"compute_capability": [capability]})

    @contextmanager
    def stage(name: str) -> Iterator[Any]:
        yield Silent()

    facts = compile_engine(plan, checkpoint, folder, stage)
    manifest = EngineManifest(
        model=name, architecture=facts.architecture, target="tensorrt", precision=precision, engine=facts.engine,
        vocab_size=facts.vocab_size, cache=facts.cache, stop_token_ids=(0,), limits=LIMITS, plan=facts.plan,
    )  # fmt: skip
    return Built(checkpoint, manifest, folder)


class Silent:
    """A stage's clock that nobody looks at."""

    show = SimpleNamespace(say=lambda words: None)

    def note(self, words: str) -> None: ...
    def count(self, done: int, total: int) -> None: ...


@pytest.fixture
def in_this_process() -> None:
    """Of tests that look into the runner."""
    if python := elsewhere.other_python():
        pytest.skip(
            f"the engine runs in a process of {python}: set {elsewhere.SWITCH} to nothing where this Python has TensorRT"
        )


@pytest.fixture(scope="module")
def llama(gpu: Gpu, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(gpu, "llama", "fp16", tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_prefill_chunks_ragged_decode_and_drafts_are_the_float_references(gpu: Gpu, tmp_path: Path, name: str) -> None:
    built = build(gpu, name, "fp16", tmp_path)
    assert_computes(built.runner(), by_reference(built.checkpoint), TOLERANCE["float16"])


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4", "fp8"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_the_engine_computes_the_network_that_was_parsed(gpu: Gpu, tmp_path: Path, name: str, precision: str) -> None:
    """Quantized alike, so that what quantizing costs does not count; models with experts may choose others at ties."""
    built = build(gpu, name, precision, tmp_path)
    network = make_network_runner(tmp_path / "network" / GRAPH, built.manifest)
    assert_computes(built.runner(), by_network(network), TOLERANCE[find_precision(precision, (gpu.compute_capability,)).dtype])


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "int4", "fp8"])
def test_best_tokens_are_those_of_the_logits(gpu: Gpu, tmp_path: Path, precision: str) -> None:
    """Of equal logits the first, whatever the batch: bfloat16 has many equal ones."""
    built = build(gpu, "llama", precision, tmp_path)
    runner = built.runner()
    assert "greedy" in runner.chooses
    for work in STEPS:
        made = runner.run_rows(work)
        assert made.best is not None
        assert np.array_equal(made.best.tokens, made.logits.argmax(1)), work
        assert np.array_equal(made.best.logits, made.logits.max(1)), work
    assert best_errors(runner, LIMITS, TOKENS) == 0


def test_a_step_that_wants_no_logits_finds_the_same_tokens(llama: Built) -> None:
    one, other = llama.runner(), llama.runner()
    assert "greedy" in one.chooses and "greedy" in other.chooses
    for work in STEPS:
        bare = one.run_rows([item._replace(wants=Want.TOKEN) for item in work]).best
        full = other.run_rows(work).best
        assert bare is not None and full is not None and np.array_equal(bare.tokens, full.tokens), work


def test_a_replayed_step_has_the_bits_of_a_queued_one(llama: Built) -> None:
    assert replay_error(llama.runner(), LIMITS, llama.manifest.vocab_size) == 0.0


@pytest.mark.usefixtures("in_this_process")
def test_a_runner_with_cuda_graphs_says_what_one_without_says(llama: Built) -> None:
    from triune_runtime.targets.tensorrt.runner import tensorrt_runner

    recorded, queued = (tensorrt_runner(llama.manifest, llama.folder, record=record) for record in (True, False))
    for work in STEPS:
        assert np.array_equal(recorded.run(work), queued.run(work)), work


@pytest.mark.usefixtures("in_this_process")
def test_steps_are_really_recorded(llama: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the two tests above say nothing."""
    from triune_runtime.targets.device.cuda import CudaDevice

    made: list[Any] = []
    capture = CudaDevice.capture

    def counted(self: CudaDevice, queue: Callable[[], None]) -> Any:
        made.append(capture(self, queue))
        return made[-1]

    monkeypatch.setattr(CudaDevice, "capture", counted)
    runner = llama.runner()
    for step in range(3):
        for count in range(1, LIMITS.max_sequences + 1):
            runner.run([Work(slot, step, TOKENS[:1]) for slot in range(count)])
    sizes = {p["batch"][0] for p in llama.manifest.plan["profiles"] if p["name"] == "decode"}
    expected = len(sizes) if llama.manifest.plan.get("fixed_sizes") else LIMITS.max_sequences
    assert len(made) == expected and all(made), "an engine that cannot be captured"


@pytest.mark.usefixtures("in_this_process")
def test_gpu_memory_stays_over_a_thousand_steps(llama: Built) -> None:
    from triune_runtime.targets.device.cuda import CudaDevice

    runner, device = llama.runner(), CudaDevice()

    def step(number: int) -> None:
        runner.run([Work(slot, number % 30, TOKENS[:1]) for slot in range(1 + number % LIMITS.max_sequences)])
        runner.run([Work(number % LIMITS.max_sequences, 0, TOKENS[: 1 + number % LIMITS.prefill_chunk])])
        runner.copy_slot(0, 1, 1)

    for number in range(60):  # every batch size is recorded, every shape has been seen
        step(number)
    before = device.free_bytes()
    for number in range(STEPS_OF_MEMORY):
        step(number)
    assert before - device.free_bytes() <= ROOM


def test_an_engine_for_another_gpu_is_refused(llama: Built, gpu: Gpu) -> None:
    other = dataclasses.replace(llama.manifest, plan=llama.manifest.plan | {"compute_capabilities": ["7.0"]})
    with pytest.raises(ManifestError, match=f"needs compute capability 7.0, this machine's .* has {gpu.compute_capability}"):
        check_runnable(other, llama.folder)


def test_an_engine_of_another_version_is_refused(llama: Built) -> None:
    other = dataclasses.replace(llama.manifest, plan=llama.manifest.plan | {"version": "1.2.3.4"})
    with pytest.raises(ManifestError, match=r"was built with .* 1\.2\.3\.4 and loads in no other version"):
        check_runnable(other, llama.folder)
