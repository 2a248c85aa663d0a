"""Tiny checkpoints in the form for TensorRT 8.6 to 10, computed by ONNX Runtime or as TensorRT-RTX's parser reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from triune_builder.graph.export import GraphBundle, export
from triune_builder.targets.tensorrt import adapter
from triune_builder.targets.tensorrt.classic import files, lowering
from triune_builder.targets.tensorrt.classic.network_runner import Arrays, ClassicNetwork, Compute, interpreted
from triune_builder.targets.tensorrt.classic.run import DECODE, PREFILL
from triune_builder.targets.tensorrt.classic.sizes import classic_profiles
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.targets.device.host import HostDevice, HostEngine
from triune_runtime.targets.device.slot_runner import SlotRunner
from triune_runtime.targets.device.stored import StoredWeight, load_weights
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

KINDS = (PREFILL, DECODE)


@dataclass(frozen=True)
class Classic:
    """The graphs on disk."""

    folder: Path
    bundle: GraphBundle
    stored: list[StoredWeight]
    capacity: int

    def graph(self, kind: str) -> Path:
        return self.folder / f"{kind}.onnx"

    @property
    def weights(self) -> dict[str, Any]:
        return files.read_weights(self.stored, self.folder)

    def network(self, compute: Any, slots: int = 4) -> ClassicNetwork:
        """The runs of both graphs, computed by what `compute` makes of a kind."""
        computes = {kind: compute(kind) for kind in KINDS}
        sizes = {"vocab_size": self.bundle.vocab_size, "capacity": self.capacity}
        return ClassicNetwork(computes, self.bundle.cache, slots=slots, **sizes)

    def by_onnx_runtime(self, kind: str) -> Compute:
        return OrtCompute(self.graph(kind), self.weights)

    def by_interpreter(self, kind: str) -> Compute:
        return interpreted(adapter.load(adapter.RTX), self.graph(kind), self.weights)


class OrtCompute:
    """One graph, its weights bound."""

    def __init__(self, graph: Path, weights: Arrays) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        read = {x.name for x in self._session.get_inputs()}
        self._weights = {name: weight for name, weight in weights.items() if name in read}
        self._names = [x.name for x in self._session.get_outputs()]

    def __call__(self, feeds: Arrays) -> dict[str, Any]:
        given = self._weights | dict(feeds)  # where weights are bound, those
        return dict(zip(self._names, self._session.run(self._names, given), strict=True))


def classic(checkpoint: Any, folder: Path, *, max_length: int) -> Classic:
    """Lower `checkpoint` in both kinds and write them into `folder`."""
    stored: list[StoredWeight] = []
    for kind in KINDS:
        bundle, weights = lowering.lower(export(checkpoint, max_length=max_length), kind, max_length=max_length)
        stored = stored or files.write_weights(bundle, weights, folder)
        files.write_graph(bundle, weights, folder / f"{kind}.onnx")
    return Classic(folder, bundle, stored, lowering.capacity(max_length))


@dataclass(frozen=True)
class Sizes:
    """Of the engines that there are: tokens of a prefill, sequences of a decode."""

    prefill: tuple[int, ...]
    decode: tuple[int, ...]


@dataclass(frozen=True)
class HostClassic:
    """A slot runner over the graphs on a host device, and its parts."""

    runner: SlotRunner
    device: HostDevice
    engine: HostEngine
    manifest: EngineManifest

    def cached(self, slots: slice, length: int) -> list[Any]:
        """The first `length` positions of every cache tensor of `slots`, copied: [slots, heads, length, dim]."""
        return [array[slots, :, :length].copy() for array in self._pools()]

    def _pools(self) -> list[Any]:
        program = next(p for p in self.engine.programs if p.profile.name == DECODE)
        found = program.bound()
        return [found[f"past.{c.name}"] for c in self.manifest.cache]


def on_host(engine: Classic, limits: Limits, sizes: Sizes, **changes: Any) -> HostClassic:
    """The runner of `engine` as it would be built with engines of these sizes; `changes` are of its plan."""
    profiles = classic_profiles(sizes.prefill, sizes.decode)
    plan = TensorRtPlan(
        flavour="tensorrt", version="8.6.0", compute_capabilities=("9.0",), profiles=profiles, plan_bytes=0, plan_sha256="",
        **({"capacity": engine.capacity, "best_tokens": True, "fixed_sizes": True} | changes),
    )  # fmt: skip
    manifest = EngineManifest(
        model="tiny", architecture=engine.bundle.architecture, target="tensorrt", precision="fp16", engine="model.plan",
        vocab_size=engine.bundle.vocab_size, cache=engine.bundle.cache, stop_token_ids=(0,), limits=limits,
        plan=plan.to_json(),
    )  # fmt: skip
    return host_of(manifest, {kind: engine.by_onnx_runtime(kind) for kind in KINDS})


def host_of(manifest: EngineManifest, computes: dict[str, Compute]) -> HostClassic:
    """The runner of `manifest` over what computes its graphs."""
    device = HostDevice()
    host = HostEngine(manifest, device, lambda inputs: in_place(computes, inputs))
    return HostClassic(SlotRunner(manifest, device, host), device, host, manifest)


def in_folder(folder: Path) -> dict[str, Compute]:
    """What computes the graphs that a build left in `folder`."""
    weights = files.read_weights(load_weights(folder), folder)
    return {kind: OrtCompute(next(folder.rglob(f"{kind}.onnx")), weights) for kind in KINDS}


def in_place(computes: dict[str, Compute], inputs: Arrays) -> dict[str, Any]:
    """What an engine does: the outputs but for the cache, which is updated where it lies."""
    found = dict(computes[DECODE if "sequences" in inputs else PREFILL](inputs))
    for name in [name for name in found if name.startswith("present.")]:
        inputs[name.replace("present.", "past.")][...] = found.pop(name)
    return found


def only_halves(graph: Path) -> None:
    """Rewrite a graph as an engine may compute it that chooses float16 for every number; inputs and outputs stay."""
    model = onnx.load(str(graph), load_external_data=False)
    single, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        if tensor.data_type == single:
            with np.errstate(over="ignore"):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    nodes = list(model.graph.node)
    for node in nodes:
        if node.op_type == "Cast" and node.attribute[0].i == single:
            node.attribute[0].i = half
    wide = [x.name for x in model.graph.input if x.type.tensor_type.elem_type == single]
    made = [x.name for x in model.graph.output if x.type.tensor_type.elem_type == single]
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [f"{name}.narrow" if name in {*wide, *made} else name for name in names]
    before = [onnx.helper.make_node("Cast", [name], [f"{name}.narrow"], to=half) for name in wide]
    after = [onnx.helper.make_node("Cast", [f"{name}.narrow"], [name], to=single) for name in made]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend([*before, *nodes, *after])
    onnx.save(model, str(graph))
