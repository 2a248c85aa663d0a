"""The adapters of CUDA and TensorRT, over stand-ins with the real ones' arguments, and the names they use in the real ones.

Run: pytest tests/runtime/test_tensorrt.py. On a machine with a GPU, tests/gpu runs the real thing.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/tensorrt.txt")

from cuda.bindings import runtime as real_cuda

from fakes.cuda_runtime import FakeCuda
from fakes.engines import make_engine
from fakes.host_engines import OrtCompute, as_tensorrt
from fakes.tensorrt_package import FakeContext, FakeEngine, FakeTensorRt, named
from fakes.tiny_llama import tiny_checkpoint
from triune_runtime.errors import DeviceLost, ManifestError
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Runner, Want, Work
from triune_runtime.targets.device import cuda
from triune_runtime.targets.device.cuda import CudaDevice, CudaError
from triune_runtime.targets.device.slot_runner import SlotRunner
from triune_runtime.targets.tensorrt import runner as tensorrt
from triune_runtime.targets.tensorrt.runner import TensorRtError, tensorrt_runner

SLOTS, LENGTH = 3, 32
TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, LENGTH))
STEPS = [
    [Work(0, 0, TOKENS[:8]), Work(1, 0, TOKENS[4:9])],
    [Work(0, 8, TOKENS[8:9]), Work(1, 5, TOKENS[9:10]), Work(2, 0, TOKENS[:7])],
    [Work(0, 9, TOKENS[9:10]), Work(1, 6, TOKENS[10:11]), Work(2, 7, TOKENS[7:11], drafts=2)],
    [Work(0, 10, TOKENS[10:11]), Work(1, 7, TOKENS[11:12])],
    [Work(0, 11, TOKENS[11:12]), Work(1, 8, TOKENS[12:13]), Work(2, 9, TOKENS[3:4])],
]


class Bench:
    """A fake GPU with a fake TensorRT, and the ONNX Runtime runner of the same engine."""

    def __init__(self, manifest: EngineManifest, folder: Path, ort: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plain, self.folder, self.ort = manifest, folder, ort
        self.manifest = as_tensorrt(manifest)
        (folder / "model.plan").write_bytes(b"plan")
        self.served = dataclasses.replace(self.manifest, engine="model.plan")
        self.cuda = FakeCuda()
        self.trt = FakeTensorRt(self.served, OrtCompute(folder / manifest.engine, manifest), self.cuda)
        monkeypatch.setattr(cuda, "cudart", self.cuda)
        monkeypatch.setattr(tensorrt, "load_package", lambda flavour: self.trt)
        monkeypatch.setattr(tensorrt, "_loggers", {})

    def runner(self, **options: Any) -> SlotRunner:
        return tensorrt_runner(self.served, self.folder, **options)

    def have_best(self, best: bool) -> None:
        """Whether the engine finds best tokens."""
        self.served = dataclasses.replace(self.served, plan=self.served.plan | {"best_tokens": best})
        self.trt.manifest = self.served

    def stream_weights(self) -> None:
        self.served = dataclasses.replace(self.served, plan=self.served.plan | {"weight_streaming": True})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineManifest, Path, Runner]:
    folder = tmp_path_factory.mktemp("engine")
    engine = make_engine(tiny_checkpoint(hidden_size=64, intermediate_size=96), "w8a8", folder, slots=SLOTS, max_length=LENGTH)
    limits = Limits(max_sequences=SLOTS, max_length=LENGTH, prefill_chunk=8)
    return dataclasses.replace(engine.manifest, limits=limits), folder, engine.runner


@pytest.fixture
def bench(built: tuple[EngineManifest, Path, Runner], monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(*built, monkeypatch)


def agrees(runner: SlotRunner, ort: Runner) -> None:
    for work in STEPS:
        assert np.array_equal(runner.run(work), ort.run(work)), work
    for one in (runner, ort):
        one.copy_slot(0, 2, 12)
    last = [Work(2, 12, TOKENS[12:13])]
    assert np.array_equal(runner.run(last), ort.run(last))


@pytest.mark.parametrize("rtx", [True, False])
@pytest.mark.parametrize("record", [True, False])
def test_both_packages_give_the_onnx_runtime_runners_numbers(bench: Bench, rtx: bool, record: bool) -> None:
    bench.trt.rtx = rtx
    agrees(bench.runner(record=record), bench.ort)
    assert bench.trt.plan == b"plan"
    assert any(context.captured for context in bench.trt.contexts) == record
    assert ("cudaGraphLaunch" in bench.cuda.calls) == record


@pytest.mark.parametrize(
    ("best", "wanted", "copies"),
    [(True, (), 0), (True, (1,), 1), (True, (0, 1, 2), 1), (True, (0, 2), 2), (False, (), 0), (False, (0, 2), 0)],
)
def test_a_recorded_step_is_one_launch_the_copies_of_wanted_logits_and_one_wait(
    bench: Bench, best: bool, wanted: tuple[int, ...], copies: int
) -> None:
    """An engine without best tokens copies all logits within the launch."""
    bench.have_best(best)
    runner = bench.runner()
    for start in range(2):
        runner.run([Work(slot, start, TOKENS[:1]) for slot in range(3)])
    bench.cuda.calls.clear()
    runner.run_rows([Work(slot, 2, TOKENS[:1], wants=Want.LOGITS if slot in wanted else Want.TOKEN) for slot in range(3)])
    assert bench.cuda.calls == ["cudaGraphLaunch", *["cudaMemcpyAsync"] * copies, "cudaStreamSynchronize"]


def test_contexts_are_as_many_as_profiles_and_recorded_batch_sizes(bench: Bench) -> None:
    runner = bench.runner()
    for step in range(4):
        for count in range(1, SLOTS + 1):
            runner.run([Work(slot, step, TOKENS[:1]) for slot in range(count)])
    assert [context.profile for context in bench.trt.contexts] == [0, 1, 1, 1]


@pytest.mark.parametrize(("rtx", "kernels"), [(True, {0: "none", 1: "eager"}), (False, {0: None, 1: None})])
def test_kernels_for_one_shape_are_compiled_for_decoding_only(bench: Bench, rtx: bool, kernels: dict[int, str | None]) -> None:
    bench.trt.rtx = rtx
    agrees(bench.runner(), bench.ort)
    assert {context.profile: context.kernels for context in bench.trt.contexts} == kernels


@pytest.mark.parametrize("how", ["asked", "enqueue", "end"])
def test_what_cannot_be_captured_runs_call_by_call(bench: Bench, how: str, caplog: pytest.LogCaptureFixture) -> None:
    if how == "asked":
        bench.trt.capturable = False
    elif how == "enqueue":
        bench.trt.enqueue_fails_captured = True
    else:
        bench.cuda.invalidates_captures = True
    agrees(bench.runner(), bench.ort)
    assert "cudaGraphLaunch" not in bench.cuda.calls
    assert ("no CUDA graph" in caplog.text) == (how != "asked")
    if how == "asked":
        assert len(bench.trt.contexts) == 2, "one of each profile"


def test_weights_that_do_not_fit_are_streamed_and_nothing_is_recorded(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.stream_weights()
    bench.cuda.free = 8 << 30
    agrees(bench.runner(), bench.ort)
    assert bench.trt.engine is not None
    cache = bench.served.kv_bytes_per_token * LENGTH * SLOTS
    assert bench.trt.engine.weight_streaming_budget_v2 == (8 << 30) - cache - (2 << 30)
    assert "4.3 of 10.7 GB of weights stay in host memory" in caplog.text
    assert "cudaGraphLaunch" not in bench.cuda.calls


def test_weights_that_fit_are_not_streamed(bench: Bench) -> None:
    bench.stream_weights()
    agrees(bench.runner(), bench.ort)
    assert bench.trt.engine is not None
    assert bench.trt.engine.weight_streaming_budget_v2 == bench.trt.engine.streamable_weights_size


def test_a_plan_that_does_not_load_is_told_with_tensorrts_reason(bench: Bench) -> None:
    bench.trt.says = ["wrong version", "cudaError 35"]
    with pytest.raises(ManifestError) as error:
        bench.runner()
    assert re.fullmatch(
        r"TensorRT-RTX 1\.7\.1\.116 cannot load .*/model\.plan: wrong version; cudaError 35", error.value.args[0]
    )
    assert error.value.hint == "build the engine again for this machine"


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("starts", ("INPUT", "INT32", (-1,), None), "has starts as INPUT INT32 [-1]; engine.json makes it INPUT INT64 [-1]"),
        ("spare", ("INPUT", "INT64", (-1,), None), "has spare as INPUT INT64 [-1]; engine.json makes it nothing"),
        ("logits", ("OUTPUT", "HALF", (-1, -1, 256), None), "has logits as OUTPUT HALF"),
        ("best_tokens", ("OUTPUT", "INT32", (-1, -1), None), "engine.json makes it OUTPUT INT64 [-1, -1]"),
        ("present.0.key", ("OUTPUT", "FLOAT", (-1, 2, 32, 16), None), "in the memory of past.0.key"),
    ],
)
def test_an_engine_with_other_tensors_is_refused(bench: Bench, name: str, tensor: Any, says: str) -> None:
    bench.trt.changes[name] = tensor
    with pytest.raises(ManifestError, match=re.escape(says)):
        bench.runner()


def test_an_engine_with_other_profiles_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fakes.tensorrt_package.FakeEngine.num_optimization_profiles", 1)
    with pytest.raises(ManifestError, match=r"model\.plan has 1 optimization profiles, engine\.json 2"):
        bench.runner()


def test_a_run_that_fails_is_an_error_with_tensorrts_reason(bench: Bench) -> None:
    runner = bench.runner()
    bench.trt.enqueue_fails = True
    with pytest.raises(TensorRtError, match="the engine did not run: a kernel could not be launched"):
        runner.run(STEPS[0])


def test_a_gpu_that_fails_while_it_works_ends_the_engine_and_answers_everyone(bench: Bench) -> None:
    """CUDA would refuse every further call of the process: a server that only fails requests would look healthy."""
    runner = bench.runner()
    bench.cuda.fail["cudaStreamSynchronize"] = real_cuda.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(DeviceLost, match=r"waiting for the GPU failed: an illegal memory access .* \(CUDA error 700, "):
        runner.run(STEPS[0])
    assert not issubclass(DeviceLost, Exception), "an engine's step catches these and goes on"


def test_what_tensorrt_says_goes_to_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.runner()
    with caplog.at_level(logging.WARNING):
        bench.trt.logger.log(named("WARNING"), "a warning")
        bench.trt.logger.log(named("VERBOSE"), "a trifle")
    assert "a warning" in caplog.text and "a trifle" not in caplog.text


def test_memory_that_is_not_there_is_told_with_its_size(bench: Bench) -> None:
    bench.cuda.fail["cudaMalloc"] = real_cuda.cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(CudaError, match=r"allocating [\d,]+ bytes of GPU memory failed: out of memory \(CUDA error 2, "):
        bench.runner()


def test_memory_is_cleared_after_what_was_queued_before(bench: Bench) -> None:
    device = CudaDevice()
    address, array = device.allocate(512), device.host((512,), np.uint8)
    assert not array.any()
    array[:] = 1
    device.download(array, address)
    device.synchronize()
    assert not array.any()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_the_real_cuda_runtime_says_that_there_is_no_gpu() -> None:
    with pytest.raises(CudaError, match=r"choosing the first GPU failed: .* \(CUDA error \d+, cudaError"):
        CudaDevice()


def test_every_function_of_the_stand_in_takes_what_the_real_one_takes() -> None:
    """By the number of parameters that the real one's documentation gives."""
    functions = [name[1:] for name in vars(FakeCuda) if name.startswith("_cuda")]
    assert len(functions) > 12
    for name in functions:
        documented = (getattr(real_cuda, name).__doc__ or "").splitlines()[0]
        parameters = documented[documented.index("(") + 1 : documented.rindex(")")]
        count = len([p for p in parameters.split(",") if p.strip()])
        code = getattr(FakeCuda, f"_{name}").__code__
        assert code.co_argcount - 1 == count, documented


@pytest.mark.parametrize(("stand_in", "class_name"), [(FakeEngine, "ICudaEngine"), (FakeContext, "IExecutionContext")])
def test_every_method_of_the_stand_ins_is_tensorrts_with_as_many_arguments(stand_in: type, class_name: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="needs requirements/tensorrt.txt")
    real = getattr(trt, class_name)
    for name, function in vars(stand_in).items():
        if name.startswith("_"):
            continue
        assert hasattr(real, name), f"{class_name} has no {name}"
        if callable(function):
            signatures = re.findall(rf"^(?:\d+\. )?{name}\(self: (.*)\) -> ", getattr(real, name).__doc__, re.MULTILINE)
            counts = [1 + len(re.findall(r", \w+: ", signature)) for signature in signatures]
            assert function.__code__.co_argcount in counts, (name, signatures)


def test_what_is_looked_up_in_tensorrts_package_is_there() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="needs requirements/tensorrt.txt")
    assert "USER_MANAGED" in trt.ExecutionContextAllocationStrategy.__members__
    assert {"EAGER", "NONE"} <= trt.DynamicShapesKernelSpecializationStrategy.__members__.keys()
    for name in ("set_execution_context_allocation_strategy", "create_runtime_cache", "set_runtime_cache"):
        assert hasattr(trt.IRuntimeConfig, name), name
    assert hasattr(trt.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(trt.IExecutionContext, "is_stream_capturable")
    assert hasattr(trt.ICudaEngine, "weight_streaming_budget_v2")
    assert {"INT64", "HALF", "BF16", "FLOAT"} <= trt.DataType.__members__.keys()
    assert {"INPUT", "OUTPUT"} <= trt.TensorIOMode.__members__.keys()
    assert {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"} == trt.ILogger.Severity.__members__.keys()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_the_real_package_reads_a_plan_from_a_mapped_file_and_says_why_it_refuses_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="needs requirements/tensorrt.txt")
    monkeypatch.setattr(tensorrt, "load_package", lambda flavour: trt)
    (bench.folder / "model.plan").write_bytes(b"no plan " * 100)
    with pytest.raises(ManifestError, match=r"TensorRT-RTX .* cannot load .*Serialization"):
        bench.runner()
