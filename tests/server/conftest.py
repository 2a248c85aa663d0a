"""What the tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fakes.command import Triune


@pytest.fixture
def triune(tmp_path: Path) -> Iterator[Triune]:
    made = Triune(tmp_path)
    yield made
    made("down")
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
    assert not left, "processes were left behind"
