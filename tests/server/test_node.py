"""`triune node`, as a user types it, up to the first machine. Run: pytest tests/server/test_node.py"""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.repository import fake_engine
from fakes.vllm_engines import use_double, vllm_engine
from support.real_server import free_port
from triune_builder.places import repository_of
from triune_server.view import ENGINE_FOLDER

NODE = [str(Path(sys.executable).parent / "triune"), "node", "--model=smollm2-135m"]


def engine_folder(build_dir: Path, target: str) -> Path:
    folder = repository_of("smollm2-135m", target, build_dir) / ENGINE_FOLDER
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, which has an engine for two machines."""
    use_double(monkeypatch)
    folder = engine_folder(tmp_path, "vllm")
    manifest = vllm_engine(folder)
    dataclasses.replace(manifest, plan=manifest.plan | {"pipeline_parallel": 2, "nodes": 2}).save(folder)
    return tmp_path


def node(built: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*NODE, f"--build-dir={built}", *more], stderr=subprocess.PIPE, text=True)


def test_a_machine_asks_the_first_one_with_its_rank_and_engine_until_it_is_ended(built: Path) -> None:
    port = free_port(in_a_row=2)
    with socket.create_server(("127.0.0.1", port)) as first, socket.create_server(("127.0.0.1", port + 1)):
        first.settimeout(60)
        with node(built, "--target=vllm", f"--master=127.0.0.1:{first.getsockname()[1]}", "--rank=1") as process:
            try:
                connection, _ = first.accept()
                with connection, connection.makefile("rb") as lines:
                    told = json.loads(lines.readline())
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(30) == 0
            finally:
                process.kill()
    assert told["rank"] == 1 and told["arguments"]["pipeline_parallel_size"] == 2


def test_an_engine_can_be_named_by_its_repository(built: Path) -> None:
    repository = repository_of("smollm2-135m", "vllm", built)
    command = [*NODE[:2], f"--repository={repository}", "--master=127.0.0.1", "--rank=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("error: --rank is 2; expected 1: this engine is for 2 machines")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--target=vllm", "--rank=2"], "error: --rank is 2; expected 1: this engine is for 2 machines"),
        (["--target=cpu", "--rank=1"], "error: engines of target fake run on one machine"),
        (["--target=cuda", "--rank=1"], "error: no engine is built in"),
    ],
)
def test_what_has_no_part_in_an_engine_is_refused_before_it_waits(built: Path, more: list[str], said: str) -> None:
    fake_engine(engine_folder(built, "cpu"))
    process = node(built, "--master=127.0.0.1", *more)
    assert process.communicate(timeout=60)[1].startswith(said) and process.returncode == 1
