"""Instructor. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "instructor"


def test_every_mode_gives_an_object_of_the_class(run: Run) -> None:
    found = run("objects")
    assert "default" in found and len(found) > 3
    for mode, place in found.items():
        assert place["city"] in ("Paris", "Rome") and isinstance(place["large"], bool), mode


def test_a_streamed_object_ends_as_the_whole_one(run: Run) -> None:
    found = run("partial")
    assert found["pieces"] > 1 and found["last"] == found["whole"]
