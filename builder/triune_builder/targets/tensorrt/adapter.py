"""The builder's one adapter for TensorRT: `tensorrt` (11.x) and `tensorrt_rtx` (1.7) have the same API for all that is used.

TensorRT-RTX builds without a GPU, for named compute capabilities. What either package logs belongs to the call that caused it:
there is one logger in a process, since TensorRT keeps the first it is given.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...errors import BuildError, option

RTX, FULL = "tensorrt_rtx", "tensorrt"
_MODULES = {RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings"), FULL: ("tensorrt",)}
# Said as warnings, and they mean an engine that is wrong or not what was asked for.
_GRAVE = re.compile(
    r"not self-consistent|no effect|will be ignored|is ignored|not supported|unsupported|clamped", re.IGNORECASE
)
_HARMLESS = re.compile(r"[Ii]nt64 [Bb]inding")
_NO_GPU = re.compile(r"cudaError (35|100|3)\b")


@dataclass(frozen=True)
class Row:
    """One line that TensorRT logged."""

    severity: str
    text: str


class TensorRt:
    """One of the two packages, imported."""

    def __init__(self, flavour: str, module: Any) -> None:
        self.flavour, self.trt = flavour, module
        self.version: str = module.__version__
        self._rows: list[Row] = []
        rows = self._rows

        class Log(module.ILogger):  # type: ignore[misc]  # a class of the package at hand
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                rows.append(Row(severity.name, message))

        self.logger = Log()

    @contextmanager
    def logged(self) -> Iterator[list[Row]]:
        """The rows that are logged inside."""
        self._rows.clear()
        yield self._rows

    @property
    def is_rtx(self) -> bool:
        return self.flavour == RTX


@functools.cache
def load(flavour: str) -> TensorRt:
    """The package of that name.

    Raises:
        BuildError: it is not installed, or does not load.
    """
    problems = []
    for name in _MODULES[flavour]:
        try:
            return TensorRt(flavour, importlib.import_module(name))
        except ImportError as error:
            problems.append(str(error))
    hint = (
        "run `make engine TARGET=tensorrt`, or pip install -r requirements/tensorrt.txt"
        if flavour == RTX
        else "install `tensorrt` 11 on a machine with the GPU, or name a compute capability that TensorRT-RTX has"
    )
    raise BuildError(f"the target needs the package {flavour}, which cannot be imported: {problems[-1]}", hint)


class Network:
    """A parsed graph: TensorRT's network definition, and the weights it points into, which must outlive it."""

    def __init__(self, rt: TensorRt, graph: Path, weights: Mapping[str, NDArray[Any]]) -> None:
        """Parse the ONNX file `graph`.

        Args:
            weights: arrays of the external data of `graph`; the network reads them where they lie.

        Raises:
            BuildError: TensorRT refuses the graph, or leaves out what would read one of its inputs.
        """
        trt = rt.trt
        self.rt, self.weights = rt, weights
        with rt.logged() as rows:
            self.builder = trt.Builder(rt.logger)
            self.definition = self.builder.create_network(_strongly_typed(trt))
            parser = trt.OnnxParser(self.definition, rt.logger)
            parsed = (
                parser.load_model_proto(graph.read_bytes(), str(graph))
                and all(parser.load_initializer(name, array.ctypes.data, array.nbytes) for name, array in weights.items())
                and parser.parse_model_proto()
            )
            if not parsed:
                found = [parser.get_error(i).desc() for i in range(parser.num_errors)] or _errors(rows)
                raise BuildError(
                    f"TensorRT's parser refuses the graph: {'; '.join(found)[:2000]}", "this is a fault of the lowering"
                )
            _refuse_grave(rows)
        self._parser = parser  # owns memory that the network points into
        if dead := self._unread():
            raise BuildError(
                f"TensorRT's parser left out what reads {', '.join(dead)}: the engine would be wrong",
                "lower the graph to ops that TensorRT reads in full",
            )

    def layers(self) -> list[Any]:
        return [self.definition.get_layer(i) for i in range(self.definition.num_layers)]

    def _unread(self) -> list[str]:
        read = {x.name for layer in self.layers() for x in map(layer.get_input, range(layer.num_inputs)) if x is not None}
        for layer in self.layers():  # the mask and lengths of an attention are no numbered inputs
            if layer.type == self.rt.trt.LayerType.ATTENTION_INPUT:
                attention = as_class(self.rt.trt, layer, "IAttentionInputLayer").attention
                read |= {x.name for x in (attention.mask, attention.key_value_lengths) if x is not None}
        names = [self.definition.get_input(i).name for i in range(self.definition.num_inputs)]
        return [name for name in names if name not in read]


def as_class(trt: Any, layer: Any, name: str) -> Any:
    """The layer with the methods of its own kind: `get_layer` returns it as an ILayer."""
    layer.__class__ = getattr(trt, name)
    return layer


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Least, best and most of each input's shape."""

    inputs: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


def build(
    network: Network,
    plan: Path,
    profiles: Sequence[Shapes],
    *,
    compute_capabilities: Sequence[str] = (),
    weight_streaming: bool = False,
    timing_cache: Path | None = None,
) -> list[str]:
    """Write the engine of `network` to `plan`, and return what TensorRT warned of.

    Attention stays fused: where TensorRT has no kernel for it, the build fails.

    Args:
        compute_capabilities: of the GPUs it is for, e.g. "8.9"; empty: all that the package is made for.
        timing_cache: measurements of kernels, read if it is there and written again; full TensorRT alone has them.

    Raises:
        BuildError: TensorRT refuses, or warns of what makes a wrong engine.
    """
    rt, trt = network.rt, network.rt.trt
    with rt.logged() as rows:
        config = network.builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if weight_streaming:
            config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
        elif rt.is_rtx:  # which CUDA graphs need, and which weight streaming excludes
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        _target(rt, config, compute_capabilities)
        for shapes in profiles:
            profile = network.builder.create_optimization_profile()
            for name, sizes in shapes.inputs.items():
                profile.set_shape(name, *sizes)
            if config.add_optimization_profile(profile) < 0:
                raise BuildError(
                    f"TensorRT refuses a profile: {'; '.join(_errors(rows))}",
                    f"check {option('max_sequences')} and {option('prefill_chunk')}",
                )
        cache = None if rt.is_rtx else _timings(config, timing_cache)  # TensorRT-RTX measures nothing at build time
        try:
            with plan.open("wb") as file:  # as it comes, so that the plan is not in memory as a whole beside the weights
                made = network.builder.build_serialized_network_to_stream(network.definition, config, _writer(trt, file))
            if not made:
                raise BuildError(_failure(_errors(rows), compute_capabilities), _hint(_errors(rows)))
            _refuse_grave(rows)
        except BuildError:
            plan.unlink()
            raise
        if cache is not None and timing_cache is not None:
            timing_cache.parent.mkdir(parents=True, exist_ok=True)
            timing_cache.write_bytes(memoryview(config.get_timing_cache().serialize()))
        return [row.text for row in rows if row.severity == "WARNING" and not _HARMLESS.search(row.text)]


def integrity(rt: TensorRt, plan: Path) -> str:
    """Whether the plan is whole: "loaded", or "whole" where only the missing GPU kept it from being loaded.

    TensorRT checks a plan's mark and its size before it looks for a GPU.

    Raises:
        BuildError: it is not.
    """
    with rt.logged() as rows:
        runtime = rt.trt.Runtime(rt.logger)
        if runtime.deserialize_cuda_engine(np.memmap(plan, np.uint8, "r")) is not None:
            return "loaded"
        errors = _errors(rows)
    if errors and "Serialization" not in errors[0] and _NO_GPU.search(errors[0]):
        return "whole"
    raise BuildError(f"{plan.name} is damaged: {errors[0] if errors else 'it cannot be loaded'}", "build the engine again")


def _writer(trt: Any, file: BinaryIO) -> Any:
    class Writer(trt.IStreamWriter):  # type: ignore[misc]  # a class of the package at hand
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            return file.write(data)

    return Writer()


def _strongly_typed(trt: Any) -> int:
    """TensorRT-RTX knows no other networks; TensorRT 11 still has the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _target(rt: TensorRt, config: Any, compute_capabilities: Sequence[str]) -> None:
    if not rt.is_rtx:
        return  # for the GPU that is there
    config.num_compute_capabilities = len(compute_capabilities)
    for i, name in enumerate(compute_capabilities):
        config.set_compute_capability(rt.trt.ComputeCapability.__members__[f"SM{name.replace('.', '')}"], i)


def _timings(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    config.set_timing_cache(cache, False)
    return cache


def _errors(rows: Sequence[Row]) -> list[str]:
    return [row.text for row in rows if row.severity in ("ERROR", "INTERNAL_ERROR")]


def _refuse_grave(rows: Sequence[Row]) -> None:
    grave = [row.text for row in rows if row.severity == "WARNING" and _GRAVE.search(row.text)]
    if grave:
        raise BuildError(
            f"TensorRT warns of what makes a wrong engine: {'; '.join(grave)[:2000]}", "check the limits and the lowering"
        )


def _failure(errors: Sequence[str], compute_capabilities: Sequence[str]) -> str:
    where = f" for compute capability {', '.join(compute_capabilities)}" if compute_capabilities else ""
    what = "; ".join(errors)[:2000] or "no reason given"
    if "dedicated kernel" in what:
        return f"TensorRT has no fused attention kernel for this model{where}: {what}"
    return f"TensorRT cannot build the engine{where}: {what}"


def _hint(errors: Sequence[str]) -> str:
    what = "; ".join(errors)
    if "dedicated kernel" in what:
        return f"choose another {option('target')}, or a GPU that has one: unfused attention would be slow"
    if "HW-specific datatypes" in what:
        return f"name only GPUs that have this datatype, e.g. {option('compute_capability', 8.9)}"
    return "this is a fault of the lowering; the text is TensorRT's own"
