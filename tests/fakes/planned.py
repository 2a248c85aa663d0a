"""Models and plans for tests of the planner: published configs, and a plan of one on GPUs of a name."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from fakes.published import CONFIGS, Published
from triune_builder.planning.geometry import Geometry, geometry_of
from triune_builder.planning.hardware import GPUS
from triune_builder.planning.memory import Plan
from triune_builder.planning.splits import Split

TABLE = CONFIGS.parent / "planning" / "configs.json"
Row = dict[str, Any]


def rows() -> list[Row]:
    """Model, the bytes of its tensors, how they are known, and its config.json, less what says nothing here."""
    found: list[Row] = json.loads(TABLE.read_text("utf-8"))
    return found


@lru_cache
def geometry(name: str) -> Geometry:
    """Of a file in tests/builder/published, or of a row's model."""
    if (CONFIGS / f"{name}.json").exists():
        return geometry_of(Published.read(name).config)
    return geometry_of(next(row["config"] for row in rows() if row["model"] == name))


def planned(name: str, gpu: str = "h200", *, precision: str = "bf16", kv_dtype: str = "bf16", **choices: Any) -> Plan:
    """A plan; `tensor`, `pipeline`, `data` and `expert` are its split's."""
    split = Split(**{key: choices.pop(key) for key in ("tensor", "pipeline", "data", "expert") if key in choices})
    return Plan(geometry=geometry(name), gpu=GPUS[gpu], split=split, precision=precision, kv_dtype=kv_dtype, **choices)


def config_file(folder: Path, name: str) -> Path:
    """config.json alone of a row's model or a published one, in a folder."""
    known = (CONFIGS / f"{name}.json").exists()
    config = Published.read(name).config if known else next(row["config"] for row in rows() if row["model"] == name)
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path
