"""ONNX Runtime on an NVIDIA GPU, with the KV cache in blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..target import Target
from .preflight import check_engine, find_gpu

if TYPE_CHECKING:
    from ...kv.store import KvStore
    from ...machine import Machine
    from ...manifest import EngineManifest
    from ...runner import Runner


def _runner(manifest: EngineManifest, folder: Path) -> Runner:
    from .loading import cuda_runner

    return cuda_runner(manifest, folder)


def _store(manifest: EngineManifest, runner: Runner) -> KvStore:
    from ...kv.blocks import BlockStore
    from .plan import CudaPlan
    from .runner import PagedRunner

    assert isinstance(runner, PagedRunner), f"{type(runner).__name__} is no runner of this target"
    return BlockStore(manifest.limits.max_sequences, runner.blocks, CudaPlan.of(manifest).block_tokens)


def _device(machine: Machine) -> str:
    return str(find_gpu(machine))


# Kernels are chosen by how many run together, and sum in other orders: a sequence's bits depend on what runs beside it.
TARGET = Target(
    check=check_engine, runner=_runner, device=_device, bit_exact=False, store=_store, gpu="needed", shares_memory=True,
    libraries=("libonnxruntime_providers_cuda", "libcuda.so"),
)  # fmt: skip
