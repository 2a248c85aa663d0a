"""What the tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fakes.command import Triune
from fakes.server import options
from support.real_server import free_port
from triune_server import leftovers
from triune_server.options import ServerOptions


@pytest.fixture
def triune(tmp_path: Path) -> Iterator[Triune]:
    made = Triune(tmp_path)
    yield made
    made("down")
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
    assert not left, "processes were left behind"


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(leftovers, "SHARED_MEMORY", folder)
    return folder


@pytest.fixture
def where() -> ServerOptions:
    return options(free_port(), free_port(), free_port())
