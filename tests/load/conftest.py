"""What the load tests share."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True)
def small_collections() -> None:
    """Every load begins with a collection of garbage, which here would go through all that other tests have imported."""
    gc.freeze()
