"""Some of the faults of `make chaos` against a real server of r1-nano, a minute or two.

Run: make engine MODEL=r1-nano PRECISION=fp32 && pytest -m slow tests/e2e/test_chaos.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.chaos.__main__ import main
from bench.chaos.table import SMOKE

from support.real_server import ROOT

REPOSITORY = ROOT / "build/r1-nano/cpu/repository"


@pytest.mark.slow
@pytest.mark.triton
def test_a_server_survives_some_faults_of_each_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not REPOSITORY.is_dir():
        pytest.skip(f"no repository at {REPOSITORY}: run `make engine MODEL=r1-nano PRECISION=fp32`")
    names = [word for name in SMOKE for word in ("--name", name)]
    code = main([str(REPOSITORY), *names, "--faults", str(len(SMOKE)), "--seed", "1", "--json", str(tmp_path / "lines.json")])
    assert code == 0, capsys.readouterr().out
    assert len((tmp_path / "lines.json").read_text("utf-8").splitlines()) == len(SMOKE)
