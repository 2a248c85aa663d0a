"""Writes a graph for ONNX Runtime: model.onnx and its weights, one weight in memory at a time.

Weights lie in model.data, and those that are to be read from another file, in that file: a hard link to it beside
model.onnx, since ONNX Runtime follows neither `../` nor symbolic links.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from ..errors import BuildError
from ..graph.export import GraphBundle
from ..graph.weights import StackedTensor
from ..progress import StageClock
from ..quantize.change import Change
from .journal import Journal

MODEL = "model.onnx"
CHECKING = "drafts.onnx"  # the same for a token and drafts of the next ones; see ort_drafts.py
MTP = "mtp.onnx"  # the layer of multi-token prediction
DATA = "model.data"
_DATA = ".data"
_JOURNAL = ".written-"  # and the graph's name: in the folder while its weights are being written
_ALIGNMENT = 4096  # of each weight in the data file, so that it can be memory-mapped
_SMALL = 1024  # bytes up to which a constant stays inside model.onnx
_CAST = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT8E4M3FN}
_CHUNK = 1 << 24  # bytes copied at a time


@dataclass
class Written:
    """What lies in the folder."""

    files: list[str]
    loaded: int  # bytes of weights in a server's memory: halves and eighths are cast to float32
    linked: dict[str, int] = field(default_factory=dict)  # files that are hard links -> bytes of them that the graph reads
    copied: dict[str, int] = field(default_factory=dict)  # files that could not be linked -> bytes of them in model.data


def write(
    bundle: GraphBundle,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    changes: Sequence[Change] = (),
    name: str = MODEL,
    beside: str | None = None,
    outside: Callable[[ir.TensorProtocol], bool] = lambda tensor: tensor.nbytes > _SMALL,
) -> Written:
    """Write the graph of `bundle` into `folder`; weights that an interrupted run wrote there are not made again.

    Args:
        progress: called with (weights written, weights in all).
        changes: what is measured of weights while they are written.
        name: of the graph's file; its weights lie in the .data file of that name.
        beside: a graph written before; weights of one name and the same bytes are read where that one's lie.
        outside: whether a tensor is written into the data file and not into the graph.
    """
    journal = Journal(folder / f"{_JOURNAL}{name}", changes)
    data_name = Path(name).with_suffix(_DATA).name
    writer = _Writer(folder, data_name, journal, _places(folder / beside) if beside else {}, outside)
    initializers = _grouped(bundle.model.graph.initializers.values())
    places: list[tuple[ir.Value, ir.ExternalTensor]] = []  # a weight may be made of another: none is replaced before the end
    with (folder / data_name).open("r+b" if journal.places else "wb") as data:
        data.truncate(journal.end)
        data.seek(journal.end)
        for done, value in enumerate(initializers, start=1):
            if (place := writer.place(value, data)) is not None:
                places.append((value, place))
            if progress:
                progress(done, len(initializers))
    _save(bundle.model, folder / name, places)
    journal.close()
    loaded = sum(_loaded(value.const_value) for value in initializers)
    return Written([name, data_name, *writer.linked], loaded, writer.linked, writer.copied)


def tell_links(written: Written, clock: StageClock) -> None:
    """Say which weights are read where they lie, and which had to be copied."""
    for files, what in ((written.linked, "read in place"), (written.copied, "copied, as no hard link to it can be made here")):
        if files:
            name = f"{len(files)} files" if len(files) > 1 else next(iter(files))
            clock.show.say(f"{'write':<10} {name}: {sum(files.values()) / 1e6:,.0f} MB {what}")


def _loaded(tensor: ir.TensorProtocol | None) -> int:
    assert tensor is not None, "initializers have values"
    return 4 * tensor.size if tensor.dtype in _CAST else tensor.nbytes


def _grouped(initializers: Iterable[ir.Value]) -> list[ir.Value]:
    """The parts of a weight (its codes, its scale, ...) side by side: they are made together, and kept no longer."""
    groups: dict[str, list[ir.Value]] = {}
    for value in initializers:
        groups.setdefault((value.name or "").rpartition(".")[0], []).append(value)
    return [value for group in groups.values() for value in group]


def write_graph(bundle: GraphBundle, path: Path) -> None:
    """Write the graph of `bundle` as it would be written with its weights, and none of those."""
    places: list[tuple[ir.Value, ir.ExternalTensor]] = []
    end, data_name = 0, path.with_suffix(_DATA).name
    for value in _grouped(bundle.model.graph.initializers.values()):
        tensor = value.const_value
        assert tensor is not None, f"{value.name} has no value"
        if tensor.nbytes > _SMALL:
            offset = end + -end % _ALIGNMENT
            end = offset + tensor.nbytes
            places.append((value, _external(value, path.parent, data_name, offset, tensor.nbytes)))
    _save(bundle.model, path, places)


def _save(model: ir.Model, path: Path, places: Sequence[tuple[ir.Value, ir.ExternalTensor]]) -> None:
    """Write the graph alone, its weights being at `places`; the model stays as it is."""
    before = [value.const_value for value, _ in places]
    try:
        for value, place in places:
            value.const_value = place
        ir.save(model, path)
    except ir.serde.SerdeError as error:
        raise _told(error) from error
    finally:
        for (value, _), tensor in zip(places, before, strict=True):
            value.const_value = tensor


def _told(error: BaseException) -> BaseException:
    """What small weights say that are made while the graph is written, without what the library says around it."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return cause if isinstance(cause, BuildError) else error


def _external(value: ir.Value, folder: Path, file: str, offset: int, length: int) -> ir.ExternalTensor:
    tensor = value.const_value
    assert tensor is not None and isinstance(tensor.shape, ir.Shape), f"{value.name} has no value"
    return ir.ExternalTensor(file, offset, length, tensor.dtype, shape=tensor.shape, name=value.name or "", base_dir=folder)


def _places(path: Path) -> dict[str, ir.ExternalTensor]:
    """Where the weights of a written graph lie."""
    values = ir.load(path).graph.initializers.values()
    return {v.name or "": v.const_value for v in values if isinstance(v.const_value, ir.ExternalTensor)}


def _same(tensor: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if (tensor.dtype, tensor.nbytes) != (other.dtype, other.nbytes):
        return False
    return np.array_equal(tensor.numpy().reshape(-1).view(np.uint8), other.numpy().reshape(-1).view(np.uint8))


class _Writer:
    """Gives each weight its place."""

    def __init__(
        self,
        folder: Path,
        data_name: str,
        journal: Journal,
        known: Mapping[str, ir.ExternalTensor],
        outside: Callable[[ir.TensorProtocol], bool],
    ) -> None:
        self._folder, self._data_name, self._journal, self._known, self._outside = folder, data_name, journal, known, outside
        self.linked: dict[str, int] = {}
        self.copied: dict[str, int] = {}

    def place(self, value: ir.Value, data: BinaryIO) -> ir.ExternalTensor | None:
        """Put one weight's bytes at the end of the data file, or a link to the file where they lie beside it.

        None for one that stays in the graph.
        """
        tensor = value.const_value
        assert tensor is not None, f"{value.name} has no value"
        if isinstance(tensor, ir.ExternalTensor) and self._link(tensor):
            return _external(value, self._folder, Path(tensor.location).name, tensor.offset or 0, tensor.nbytes)
        if value.name in self._journal.places:
            return _external(value, self._folder, self._data_name, *self._journal.places[value.name])
        if not self._outside(tensor) and not isinstance(tensor, ir.ExternalTensor):
            return None
        if (known := self._known.get(value.name or "")) is not None and _same(tensor, known):
            return _external(value, self._folder, Path(known.location).name, known.offset or 0, tensor.nbytes)
        offset = data.tell() + -data.tell() % _ALIGNMENT
        data.write(b"\0" * (offset - data.tell()))
        _append(tensor, data)
        length = data.tell() - offset
        self._journal.add(value.name or "", offset, length, data)
        return _external(value, self._folder, self._data_name, offset, length)

    def _link(self, tensor: ir.ExternalTensor) -> bool:
        """Whether the tensor's file lies in the folder now."""
        name = Path(tensor.location).name
        if name not in self.linked and name not in self.copied:
            (self._folder / name).unlink(missing_ok=True)
            try:
                os.link(Path(tensor.path).resolve(), self._folder / name)  # itself, not a symbolic link to it
            except OSError:  # another file system, or one without hard links
                self.copied[name] = 0
            else:
                self.linked[name] = 0
        (self.linked if name in self.linked else self.copied)[name] += tensor.nbytes
        return name in self.linked


def _append(tensor: ir.TensorProtocol, data: BinaryIO) -> None:
    if isinstance(tensor, StackedTensor):
        tensor.tofile(data)  # entry by entry
    elif isinstance(tensor, ir.ExternalTensor):
        assert tensor.offset is not None
        with Path(tensor.path).open("rb") as file:
            file.seek(tensor.offset)
            left = tensor.nbytes
            while left > 0:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise OSError(f"{tensor.path} is shorter than it was")
                data.write(chunk)
                left -= len(chunk)
    elif tensor.dtype.bitwidth < 8:
        data.write(tensor.tobytes())  # several numbers a byte
    else:
        array = np.ascontiguousarray(tensor.numpy())
        data.write(array.reshape(-1).view(np.uint8).data)  # not a copy of its bytes: there may be gigabytes
