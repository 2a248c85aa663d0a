"""What the chart's pods run: an archive is fetched whole or not at all. Run: pytest tests/deploy/test_scripts.py"""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.charts import CHART

FETCH = CHART / "files" / "fetch.py"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL that it is served under."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def pack(folder: Path, names: tuple[str, ...]) -> str:
    """Pack files of these names as site/r.tar.gz; its hash."""
    with tarfile.open(folder / "r.tar.gz", "w:gz") as archive:
        for name in names:
            (folder / "content").write_text(name)
            archive.add(folder / "content", name)
    return hashlib.sha256((folder / "r.tar.gz").read_bytes()).hexdigest()


def fetch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, FETCH, *arguments], capture_output=True, text=True, env={"no_proxy": "*"})


def test_an_archive_is_fetched_once(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    sha256, place = pack(folder, ("triune/config.pbtxt", "generate/1/model.onnx")), tmp_path / "build" / "x"
    assert fetch(f"{url}/r.tar.gz", sha256, place).returncode == 0
    assert (place / "generate" / "1" / "model.onnx").read_text() == "generate/1/model.onnx"
    (folder / "r.tar.gz").unlink()
    assert "there already" in fetch(f"{url}/r.tar.gz", sha256, place).stdout


@pytest.mark.parametrize("names", [("triune/config.pbtxt",), ("repository/triune/config.pbtxt",)], ids=["changed", "deeper"])
def test_another_archive_is_refused_and_leaves_nothing(site: tuple[Path, str], tmp_path: Path, names: tuple[str, ...]) -> None:
    folder, url = site
    sha256 = pack(folder, names)
    asked = "0" * 64 if names[0].startswith("triune") else sha256
    done = fetch(f"{url}/r.tar.gz", asked, tmp_path / "build" / "x")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert ("engine.archive.sha256" if asked != sha256 else "tar -C") in done.stderr
    assert not list((tmp_path / "build").iterdir())


def test_what_is_not_there_is_said(site: tuple[Path, str], tmp_path: Path) -> None:
    done = fetch(f"{site[1]}/none.tar", "0" * 64, tmp_path / "x")
    assert done.returncode == 1 and "404" in done.stderr and "Traceback" not in done.stderr
