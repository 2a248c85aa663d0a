"""Dashboards are what the code gives and what Grafana knows. Run: pytest tests/monitoring/test_dashboards.py"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog import encoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from support.dashboards import FOLDER, boards, panels
from triune_dashboards.__main__ import texts
from triune_dashboards.parts import board, graph, rows

BOARDS = boards()


def lost(given: Any, kept: Any, where: str = "") -> Iterator[str]:
    """Keys that Grafana's typed model drops: misspelt, or not of this panel."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key in given:
            yield from lost(given[key], kept[key], f"{where}.{key}") if key in kept else [f"{where}.{key}"]
    elif isinstance(given, list) and isinstance(kept, list):
        for number, (one, other) in enumerate(itertools.zip_longest(given, kept)):
            yield from lost(one, other, f"{where}[{number}]")
    elif given != kept:
        yield f"{where}: {given!r} became {kept!r}"


def round_trip(given: Any) -> Any:
    register_default_plugins()
    return json.loads(encoder.JSONEncoder().encode(Dashboard.from_json(given)))


def test_what_is_in_git_is_what_the_code_gives() -> None:
    found = {path.name: path.read_text("utf-8") for path in FOLDER.iterdir()}
    assert found == texts(), "run `make dashboards`"


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_own_model_keeps_every_key(name: str) -> None:
    assert not list(lost(BOARDS[name], round_trip(BOARDS[name])))


def test_a_misspelt_key_would_be_found() -> None:
    broken = json.loads(json.dumps(BOARDS["triune-serving.json"]))
    broken["panels"][1]["fieldConfig"]["defaults"]["untis"] = "s"
    assert list(lost(broken, round_trip(broken))) == [".panels[1].fieldConfig.defaults.untis"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_beside_each_other(name: str) -> None:
    shown = BOARDS[name]["panels"]
    for one, other in itertools.combinations(shown, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart, (one["title"], other["title"])
    assert all(p["gridPos"]["x"] >= 0 and p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in shown)
    assert len({panel["id"] for panel in shown}) == len(shown)


def test_dashboards_have_names_of_their_own_and_panels_too() -> None:
    assert len({one["uid"] for one in BOARDS.values()}) == len({one["title"] for one in BOARDS.values()}) == len(BOARDS)
    titles = [(name, panel["title"]) for name, one in BOARDS.items() for panel in one["panels"] if panel["type"] != "row"]
    assert len(set(titles)) == len(titles)


def test_every_panel_asks_the_data_source_that_is_chosen() -> None:
    for one in BOARDS.values():
        assert one["templating"]["list"][0]["name"] == "datasource"
        assert all(panel["datasource"]["uid"] == "${datasource}" for panel in one["panels"] if panel["type"] != "row")
    assert all(panel.queries for panel in panels())


def test_a_row_that_is_not_filled_is_refused() -> None:
    with pytest.raises(ValueError, match="8 columns wide; expected a multiple of 24"):
        rows(board("u", "t", "", {}), {"Row": [graph("g", "", "s", [])]})
