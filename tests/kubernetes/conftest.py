"""A cluster with the image and the engine in it. Run: make test-kubernetes"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers import bases
from containers.engine import HOW, Unavailable, engine, run
from kubernetes.binaries import build
from kubernetes.cluster import PAUSE, cluster
from kubernetes.notes import FILE, note
from support.real_server import REPOSITORY

IMAGE = "triune-cpu:test"
_PAUSE = f'FROM {bases.DEBIAN}\nENTRYPOINT ["/bin/sleep", "infinity"]\n'
Environment = dict[str, str]


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Environment]:
    """The environment of a running cluster, in which kubectl and helm work."""
    if not os.environ.get("TRIUNE_TEST_KUBERNETES"):
        pytest.skip("takes minutes: run `make test-kubernetes`")
    try:
        binaries = build()
        running = engine()
        docker = running.__enter__()
    except Unavailable as reason:
        pytest.skip(f"NO CLUSTER WAS STARTED: {reason}; {HOW}")
    try:
        bases.make_debian(docker)
        run("docker/build", "Dockerfile.cpu", IMAGE, f"--build-arg=DEBIAN_IMAGE={bases.DEBIAN}", environment=docker)
        with tempfile.TemporaryDirectory(prefix="triune-kubernetes-") as folder:
            (Path(folder) / "Dockerfile").write_text(_PAUSE)
            run("docker", "build", "-q", "-t", PAUSE, folder, environment=docker)
            (Path(folder) / "cluster").mkdir()
            FILE.unlink(missing_ok=True)
            began = time.monotonic()
            with cluster(docker, binaries, Path(folder) / "cluster") as environment:
                note("the cluster has a node that is ready", began)
                yield environment
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository that `make engine` built."""
    assert REPOSITORY.exists(), f"no model repository at {REPOSITORY}: run `make engine`"
    return REPOSITORY.resolve()
