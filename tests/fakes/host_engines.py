"""Engines behind `HostDevice`: an ONNX Runtime engine in the dress of a TensorRT one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.cpu.session import ask_for_exact_products
from triune_runtime.targets.device.host import HostDevice, HostEngine
from triune_runtime.targets.device.plan import Profile
from triune_runtime.targets.device.slot_runner import SlotRunner
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

DRAFTS = 8  # positions that get logits, at most


def as_tensorrt(manifest: EngineManifest, **changes: Any) -> EngineManifest:
    """The manifest that a TensorRT engine of the same graph would have; `changes` are of its plan."""
    limits = manifest.limits
    plan = TensorRtPlan(
        flavour="tensorrt_rtx",
        version="1.7.1.116",
        compute_capabilities=("8.9",),
        capacity=limits.max_length + -limits.max_length % 16,
        profiles=(
            Profile(
                name="prefill", batch=(1, 1, 1), tokens=(1, limits.prefill_chunk, limits.prefill_chunk), logits=(1, 1, DRAFTS)
            ),
            Profile(name="decode", batch=(1, 1, limits.max_sequences), tokens=(1, 1, 1), logits=(1, 1, 1)),
        ),
        plan_bytes=0,
        plan_sha256="",
        best_tokens=True,
    )
    return dataclasses.replace(manifest, target="tensorrt", plan=dataclasses.replace(plan, **changes).to_json())


class OrtCompute:
    """What `HostEngine` computes: the CPU engine of the same model, appending in place to the memory that is bound."""

    def __init__(self, path: Path, manifest: EngineManifest) -> None:
        self.choose: Callable[[NDArray[np.float32]], NDArray[np.int64]] = lambda logits: logits.argmax(-1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))  # as `OrtRunner`: sums are cut alike
        options.enable_mem_pattern = False
        ask_for_exact_products(options)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._manifest = manifest
        self.calls: list[tuple[int, int]] = []  # (batch, tokens)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        batch, n = inputs["input_ids"].shape
        self.calls.append((batch, n))
        starts = inputs["starts"]
        assert np.array_equal(inputs["positions"], starts[:, None] + np.arange(n)), "positions do not follow starts"
        logits = np.empty((batch, len(inputs["logit_positions"]), self._manifest.vocab_size), np.float32)
        binding = self._session.io_binding()
        feeds = {
            "input_ids": inputs["input_ids"],
            "total_lengths": (starts + n).astype(np.int32),
            "logit_positions": inputs["logit_positions"],
        }
        feeds |= {f"past.{c.name}": inputs[f"past.{c.name}"] for c in self._manifest.cache}
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        outputs = {"logits": logits} | {f"present.{c.name}": feeds[f"past.{c.name}"] for c in self._manifest.cache}
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding)
        return with_best(logits, self.choose(logits))


def with_best(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The outputs of an engine that chooses `tokens` [batch, m] of `logits` [batch, m, vocab]."""
    best = np.take_along_axis(logits, tokens[..., None], -1)[..., 0]
    return {"logits": logits, "best_tokens": tokens, "best_logits": best}


class LoweredCompute:
    """What `HostEngine` computes: the graph that TensorRT is given, with its own inputs and outputs, run by ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        ask_for_exact_products(options)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.outputs = [o.name for o in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = dict(zip(self.outputs, self._session.run(self.outputs, dict(inputs)), strict=True))
        for name in self.outputs:
            if name.startswith("present."):
                inputs[name.replace("present.", "past.")][...] = found.pop(name)
        return found


@dataclasses.dataclass
class HostRunner:
    """A slot runner on a host device, and its parts."""

    runner: SlotRunner
    device: HostDevice
    engine: HostEngine
    compute: OrtCompute

    @classmethod
    def of(cls, manifest: EngineManifest, folder: Path, *, record: bool = True, best: bool = True) -> HostRunner:
        """The CPU engine of `manifest` in `folder`, run as a TensorRT engine would be; without `best`, as an old one."""
        device, compute = HostDevice(), OrtCompute(folder / manifest.engine, manifest)
        served = as_tensorrt(manifest, best_tokens=best)
        engine = HostEngine(served, device, compute)
        return cls(SlotRunner(served, device, engine, record=record), device, engine, compute)
