"""Images of the unmodified Dockerfiles on stand-in bases, and containers of them.

Building and running takes minutes and an engine: `make test-containers` asks for it, `make test` says that it skips them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from containers import bases
from containers.engine import HOW, TOOLS, Unavailable, engine, mirrors, run
from support.real_server import REPOSITORY

CPU, GPU, WATCHERS = "triune-cpu:test", "triune:test", "watchers"
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
def building(docker: Environment) -> Iterator[dict[str, Future[None]]]:
    """Both images and those that look at a server, each while the others wait for the network."""
    with ThreadPoolExecutor() as threads:
        debian = threads.submit(bases.make_debian, docker)
        yield {
            CPU: threads.submit(_build_cpu, docker, debian),
            GPU: threads.submit(_build_gpu, docker),
            WATCHERS: threads.submit(_build_watchers, docker, debian),
        }


def _build_watchers(docker: Environment, debian: Future[None]) -> None:
    debian.result()
    bases.make_watchers(docker)


def _build_cpu(docker: Environment, debian: Future[None]) -> None:
    debian.result()
    run("docker/build", "Dockerfile.cpu", CPU, f"--build-arg=DEBIAN_IMAGE={bases.DEBIAN}", environment=docker)


def _build_gpu(docker: Environment) -> None:
    bases.make_nvidia(docker)
    images = (f"--build-arg=PYTORCH_IMAGE={bases.PYTORCH}", f"--build-arg=TRITON_IMAGE={bases.TRITON}")
    run("docker/build", "Dockerfile", GPU, *images, "--build-arg=TARGETS=", environment=docker)


@pytest.fixture(scope="session")
def cpu_image(building: dict[str, Future[None]]) -> str:
    """The image for machines without a GPU."""
    try:
        building[CPU].result()
    except Unavailable as reason:
        pytest.skip(f"NO IMAGE WAS BUILT: {reason}")
    return CPU


@pytest.fixture(scope="session")
def watchers(cpu_image: str, building: dict[str, Future[None]]) -> dict[str, str]:
    """The images of Prometheus and Alertmanager, by their services."""
    building[WATCHERS].result()
    return bases.WATCHERS


@pytest.fixture(scope="session")
def gpu_image(building: dict[str, Future[None]]) -> str:
    """The image for GPUs, without the packages of a target that needs one."""
    try:
        building[GPU].result()
    except Unavailable as reason:
        pytest.skip(f"THE IMAGE FOR GPUS WAS NOT BUILT: {reason}")
    if not mirrors("ubuntu"):
        warnings.warn(bases.DEBIAN_FOR_NVIDIA, stacklevel=1)
    return GPU


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository that `make engine` built."""
    assert REPOSITORY.exists(), f"no model repository at {REPOSITORY}: run `make engine`"
    return REPOSITORY.resolve()
