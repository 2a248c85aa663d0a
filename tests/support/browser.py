"""A headless Chromium for the tests of the chat page: npm's, or the system's if there is one. `make test-page` sets it up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".venvs" / "page"
_SYSTEM = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome-stable", "google-chrome")
_LONGEST_VISIT_S = 240

needs_a_browser = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "node_modules" / "playwright-core").exists(),
    reason="no browser to look at the chat page with: `make test-page` sets one up",
)


def visit(script: str, url: str, shots: Path) -> dict[str, Any]:
    """What a visit to `url` saw; screenshots go to `shots`, or to the folder that TRIUNE_BROWSER_SHOTS names."""
    executable = os.environ.get("TRIUNE_BROWSER") or next(filter(None, map(shutil.which, _SYSTEM)), "")
    folder = os.environ.get("TRIUNE_BROWSER_SHOTS") or str(shots)
    command = ["node", str(ROOT / "tests" / "gateway" / script), url, str(MODULES), executable, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_VISIT_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
