"""The dashboards that are in git, as panels with their queries. Reads JSON; knows nothing of what made it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring" / "grafana" / "dashboards"


@dataclass(frozen=True)
class Panel:
    """A panel that shows something."""

    title: str
    queries: tuple[str, ...]


def boards() -> dict[str, Any]:
    """File name -> dashboard."""
    return {path.name: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels() -> Iterator[Panel]:
    """Of all dashboards, those that are no row's title."""
    for board in boards().values():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield Panel(panel["title"], tuple(target["expr"] for target in panel["targets"]))
