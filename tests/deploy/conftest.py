"""The chart rendered. Its tools are those of `make test-containers`, which asks for these tests, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.charts import HOW, ROOT, TOOLS, unpack


@pytest.fixture(scope="session")
def programs() -> Path:
    """A folder with helm and kubectl."""
    if not os.environ.get("TRIUNE_TEST_CONTAINERS"):
        pytest.skip("needs tools in an environment of their own: run `make test-containers`")
    assert TOOLS.exists(), HOW
    return unpack(ROOT / "build" / "charts")
