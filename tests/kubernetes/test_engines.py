"""Where a pod's engine comes from: built by its init container, or fetched packed. Run: make test-kubernetes"""

from __future__ import annotations

import functools
import hashlib
import http.server
import tarfile
import threading
import time
from pathlib import Path

import pytest

from containers.engine import run
from kubernetes.claims import claim
from kubernetes.cluster import node_address
from kubernetes.notes import note
from support.charts import CHART
from support.real_server import ROOT

pytestmark = pytest.mark.timeout(1200)
Environment = dict[str, str]
SAID = (
    "-f", str(CHART / "values-cpu.yaml"), "--set=image.tag=test,image.pullPolicy=Never", "--set=gateway.replicas=1",
    "--set=server.resources.requests.cpu=100m,server.resources.requests.memory=256Mi,engine.volume.size=",
    "--set=server.drainSeconds=1,gateway.drainSeconds=1",
)  # fmt: skip


def install(environment: Environment, release: str, *said: str) -> str:
    """Install one server with its gateway, have it asked, take it away; what `helm test` shows."""
    install = ("helm", "install", release, str(CHART), *SAID, *said, "--server-side=false", "--wait", "--timeout=8m")
    run(*install, environment=environment)
    try:
        return run("helm", "test", release, "--logs", environment=environment)
    finally:
        run("helm", "uninstall", release, "--wait", "--timeout=4m", environment=environment)


def test_an_init_container_builds_the_engine(kubernetes: Environment, tmp_path: Path) -> None:
    began = time.monotonic()
    claim(kubernetes, tmp_path, "checkpoint", ROOT / "models" / "r1-nano" / "checkpoint")
    settings = (
        "--set=engine.build.settings.precision=fp32,engine.build.settings.max_length=512,engine.build.settings.verify=none"
    )
    said = install(kubernetes, "nano", "--set=model.name=/checkpoint,engine.build.checkpointClaim=checkpoint", settings)
    assert "What is the capital of France? " in said
    note("r1-nano: its engine was built by the init container, installed, asked and uninstalled", began)


def test_an_init_container_fetches_the_engine(kubernetes: Environment, repository: Path, tmp_path: Path) -> None:
    began, packed = time.monotonic(), tmp_path / "repository.tar"
    with tarfile.open(packed, "w") as archive:
        archive.add(repository, ".")
    sha256 = hashlib.sha256(packed.read_bytes()).hexdigest()
    node = node_address(kubernetes)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer((node, 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://{node}:{server.server_address[1]}/{packed.name}"
        said = install(kubernetes, "fetched", f"--set=engine.source=archive,engine.archive.sha256={sha256}",
                       f"--set=engine.archive.url={url}")  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert "Paris" in said
    note("an engine's archive was fetched by the init container, installed, asked and uninstalled", began)
