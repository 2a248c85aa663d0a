"""The list of weights that lie in files of their own beside an engine, and where in those each lies."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from ...errors import ManifestError

WEIGHTS = "weights.json"  # the list, beside the engine


@dataclass(frozen=True, kw_only=True)
class StoredWeight:
    """An initializer of the graph, and where its bytes lie."""

    name: str
    dtype: str  # as ONNX calls it in lower case, e.g. bfloat16, float8e4m3fn, uint8
    shape: tuple[int, ...]
    file: str  # beside the graph
    offset: int
    length: int


def save_weights(weights: list[StoredWeight], folder: Path) -> None:
    """Write them into `folder`."""
    rows = [list(dataclasses.asdict(weight).values()) for weight in weights]
    (folder / WEIGHTS).write_text(json.dumps(rows), "utf-8")


def load_weights(folder: Path) -> list[StoredWeight]:
    """The inverse of `save_weights`.

    Raises:
        ManifestError: the file is not there, or no such list.
    """
    names = [field.name for field in dataclasses.fields(StoredWeight)]
    try:
        rows = json.loads((folder / WEIGHTS).read_text("utf-8"))
        pairs = [dict(zip(names, row, strict=True)) for row in rows]
        return [StoredWeight(**(pair | {"shape": tuple(pair["shape"])})) for pair in pairs]
    except (OSError, ValueError, TypeError) as error:
        raise ManifestError(f"{folder / WEIGHTS} cannot be read: {error}", "build the engine again") from error
