"""What is said where the process runs in an image, which has no make. Run: pytest tests/server/test_in_an_image.py"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from triune_runtime.command_line import in_place
from triune_server import shared_memory
from triune_server.errors import ServerError
from triune_server.gateway import check_key_file

IMAGE = "triune-cpu:0.1.0"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_IN_IMAGE", IMAGE)


THERE = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TRIUNE_IN_IMAGE": IMAGE, "PYTHONDONTWRITEBYTECODE": "1"}


def in_image(folder: Path, *arguments: str, by: Sequence[str] = (), **said: str) -> str:
    """What a command that fails says there."""
    done = subprocess.run(
        [*by, sys.executable, "-m", "triune_server.entry", *arguments], cwd=folder, capture_output=True, text=True, timeout=60,
        env=THERE | said,
    )  # fmt: skip
    assert done.returncode and "Traceback" not in done.stderr
    return done.stderr


HINTS = [
    ("run `make engine`, then serve its repository", f"run `docker run ... {IMAGE} build`, then serve its repository"),
    (
        "build it: `make engine MODEL='a b' TARGET=cuda`",
        f"build it: `docker run ... {IMAGE} build --model='a b' --target=cuda`",
    ),
    ("build for the CPU: make engine TARGET=cpu", f"build for the CPU: `docker run ... {IMAGE} build --target=cpu`"),
    ("start one with `make up`", f"start one with `docker run ... {IMAGE} serve`"),
    ("make it usable, or choose another: RUN_FOLDER=FOLDER", "make it usable, or choose another: -e TRIUNE_RUN_FOLDER=FOLDER"),
    ("with make BUILD_DIR=FOLDER or RUN_FOLDER=FOLDER", "with -e TRIUNE_BUILD_DIR=FOLDER or -e TRIUNE_RUN_FOLDER=FOLDER"),
    ("say TRIUNE_SHM=1g", "say TRIUNE_SHM=1g"),
    ("look at LD_LIBRARY_PATH=x, and a=b", "look at LD_LIBRARY_PATH=x, and a=b"),
]


@pytest.mark.parametrize(("hint", "there"), HINTS)
def test_a_hint_names_what_can_be_done_in_an_image_and_is_as_it_was_elsewhere(
    image: None, hint: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_place(hint) == there
    monkeypatch.delenv("TRIUNE_IN_IMAGE")
    assert in_place(hint) == hint


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.cpu"])
def test_both_images_say_that_they_are(dockerfile: str) -> None:
    name = "triune" if dockerfile == "Dockerfile" else "triune-cpu"
    assert f'ENV TRIUNE_IN_IMAGE="{name}:${{VERSION}}"\n' in (ROOT / "docker" / dockerfile).read_text("utf-8")


def test_a_container_without_a_repository_says_to_mount_one(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    said = in_image(tmp_path, "serve", TRIUNE_REPOSITORY=str(tmp_path / "models"), TRIUNE_RUN_FOLDER=str(tmp_path / "run"))
    assert f"error: there is no model repository in {tmp_path}/models\n" in said
    assert (
        f"hint: mount one there: docker run -v FOLDER:{tmp_path}/models:ro ... {IMAGE}; FOLDER is" in said
        and "make" not in (said.replace("makes", ""))
    )


def test_keys_that_a_container_cannot_have_are_mended_outside(image: None, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-1\n")
    file.chmod(0o644)
    with pytest.raises(ServerError) as told:
        check_key_file(file)
    assert f"chown {os.geteuid()} FILE && chmod 600 FILE" in str(told.value.hint)
    check_key_file(file, private=False)  # as compose and Kubernetes mount it for a gateway


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="root can read all")
def test_keys_that_cannot_be_read_are_told_as_any_other_error(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch(mode=0o000)
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] * (os.geteuid() == 0)
    said = in_image(tmp_path, "gateway", f"--api-key-file={file}", by=as_others)
    assert said.startswith(f"error: the API keys in {file} cannot be read: Permission denied\n")
    assert said.endswith(f"chown {os.geteuid()} FILE && chmod 600 FILE\n")


def test_a_gateway_says_at_once_what_it_waits_for(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "triune_server.entry", "gateway", "--grpc-url=nowhere:1", "--openai-port=1"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            assert "for the server at nowhere:1; until that is ready, answers say 503" in process.stderr.readline()
        finally:
            process.kill()


def test_too_little_shared_memory_is_said_with_dockers_option(image: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {Path("/small"): 1 << 20, Path("/large"): 64 << 20}
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: type("Usage", (), {"total": sizes[path]}))
    shared_memory.check_shared_memory(Path("/large"))
    with pytest.raises(ServerError, match="/small holds 1 MB") as told:
        shared_memory.check_shared_memory(Path("/small"))
    assert "--shm-size=" in str(told.value.hint)
