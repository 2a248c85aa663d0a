"""Plots as a file of their own, and dots with labels. Run: pytest tests/load/test_picture.py"""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from triune_load.report.picture import Panel, picture
from triune_load.report.svg import Line, plot, plot_body

SVG = "{http://www.w3.org/2000/svg}"
NEAR = Line(
    "near", [1.0, 1.01, 1.02, 30.0], [0.5, 0.52, 0.5, 2.0], dots=True, line=False, labels=["int4", "int8", "w8a8", "fp32"]
)


def drawn(*lines: Line) -> ElementTree.Element:
    panels = [Panel(title="Loss by size", lines=lines, x_name="MB", y_name="%")]
    return ElementTree.fromstring(picture("What it costs <here>", "on this & that", panels))


def boxes(root: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """About what each label covers."""
    found = []
    for label in root.iter(f"{SVG}text"):
        if label.get("class") == "told":
            wide, x, y = 7.2 * len(label.text or ""), float(label.get("x", 0)), float(label.get("y", 0))
            left = x - {"start": 0, "middle": 0.5, "end": 1}[label.get("text-anchor", "start")] * wide
            found.append((left, y - 9, left + wide, y + 2))
    return found


def test_labels_of_dots_that_lie_together_cover_neither_each_other_nor_a_dot() -> None:
    root = drawn(NEAR)
    found = boxes(root)
    assert len(found) == 4
    for n, (left, top, right, bottom) in enumerate(found):
        assert not any(left < r and right > x and top < b and bottom > y for x, y, r, b in found[n + 1 :])
        for dot in root.iter(f"{SVG}circle"):
            x, y = float(dot.get("cx", 0)), float(dot.get("cy", 0))
            assert not (left < x < right and top < y < bottom)


def test_a_picture_is_whole_without_a_page() -> None:
    root = drawn(NEAR, Line("far", [10.0], [1.0], "var(--two)", dots=True, line=False, labels=["int4"]))
    text = ElementTree.tostring(root, "unicode")
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert "var(" not in text and "#2a6fd6" in text and "#c2571a" in text
    assert {"What it costs <here>", "on this & that", "Loss by size", "near", "far", "MB", "%"} <= set(words)


def test_a_plot_without_points_is_left_out() -> None:
    root = drawn(Line("none", [], []))
    assert "Loss by size" not in [one.text for one in root.iter(f"{SVG}text")]


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=5))
def test_values_below_zero_have_their_place_on_the_axis(values: list[float]) -> None:
    body = ElementTree.fromstring(
        f"<g>{plot_body([Line('a', range(1, len(values) + 1), values, dots=True)], x_name='', y_name='')}</g>"
    )
    heights = [float(dot.get("cy", 0)) for dot in body.iter("circle")]
    assert all(18 <= height <= 200 for height in heights)
    ranked = sorted(range(len(values)), key=lambda n: values[n])
    assert [heights[n] for n in ranked] == sorted(heights, reverse=True)


def test_a_page_has_the_same_plot() -> None:
    assert plot_body([NEAR], x_name="MB", y_name="%") in plot("Loss by size", [NEAR], x_name="MB", y_name="%")
