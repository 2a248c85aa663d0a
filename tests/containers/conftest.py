"""Images of the unmodified Dockerfiles on stand-in bases, and containers of them.

Building and running takes minutes and an engine: `make test-containers` asks for it, `make test` says that it skips them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers import bases
from containers.engine import HOW, TOOLS, Unavailable, engine, run
from support.real_server import REPOSITORY

CPU, GPU = "triune-cpu:test", "triune:test"
Environment = dict[str, str]


@pytest.fixture(scope="session")
def tools() -> Path:
    """The programs that check Dockerfiles and compose files."""
    if not os.environ.get("TRIUNE_TEST_CONTAINERS"):
        pytest.skip("needs tools in an environment of their own: run `make test-containers`")
    assert TOOLS.exists(), "no tools: run `make test-containers`"
    return TOOLS


@pytest.fixture(scope="session")
def docker(tools: Path) -> Iterator[Environment]:
    """The environment in which `docker` works."""
    try:
        running = engine()
        environment = running.__enter__()
    except Unavailable as reason:
        pytest.skip(f"NO CONTAINER WAS BUILT OR RUN: {reason}; {HOW}")
    yield environment
    running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def cpu_image(docker: Environment) -> str:
    """The image for machines without a GPU."""
    bases.make_debian(docker)
    run("docker/build", "Dockerfile.cpu", CPU, f"--build-arg=DEBIAN_IMAGE={bases.DEBIAN}", environment=docker)
    return CPU


@pytest.fixture(scope="session")
def gpu_image(docker: Environment) -> str:
    """The image for GPUs, without the packages of a target that needs one."""
    try:
        bases.make_nvidia(docker)
    except Unavailable as reason:
        pytest.skip(f"THE IMAGE FOR GPUS WAS NOT BUILT: {reason}")
    images = (f"--build-arg=PYTORCH_IMAGE={bases.PYTORCH}", f"--build-arg=TRITON_IMAGE={bases.TRITON}")
    run("docker/build", "Dockerfile", GPU, *images, "--build-arg=TARGETS=", environment=docker)
    return GPU


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository that `make engine` built."""
    assert REPOSITORY.exists(), f"no model repository at {REPOSITORY}: run `make engine`"
    return REPOSITORY.resolve()
