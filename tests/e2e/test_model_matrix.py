"""`make up MODEL=`, however the model is named: each is built, served and answers over HTTP, gRPC and OpenAI.

By the real Makefile, builder and server, with tiny checkpoints. Run: pytest tests/e2e/test_model_matrix.py, and with `-m slow`
for the whole matrix, which takes some minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from fakes.gguf_files import llama_weights, write_gguf
from fakes.hub import REPOSITORY, Hub, of_folder, standing_in
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import tiny_checkpoint
from support.real_server import ROOT, free_port
from triune_builder.naming import meaning_of
from triune_builder.places import built
from triune_client import Client
from triune_client.grpc import GrpcClient

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not (ROOT / ".venv" / "installed").exists(), reason="`make` would install first; `make install` does"),
]
PORTS = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "OPENAI_PORT")
SIZES = ("PRECISION=fp32", "MAX_LENGTH=64", "MAX_SEQUENCES=2", "PREFILL_CHUNK=16")
PROMPT = "a b"
_LEFT_OUT = re.compile(r"TRIUNE_|MAKE|MFLAGS|HF_|.*proxy$", re.IGNORECASE)  # of the environment


@dataclass
class Door:
    """The Makefile of this checkout, with a home, a build folder, a hub and ports of its own."""

    folder: Path
    hub: Hub
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in PORTS})

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def build_dir(self) -> Path:
        return self.folder / "build here"

    def __call__(self, verb: str, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not _LEFT_OUT.match(name)} | {
            "HOME": str(self.home), "HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        folders = [f"BUILD_DIR={self.build_dir}", f"RUN_FOLDER={self.folder / 'run'}", "CONFIG=/dev/null"]
        ports = [f"{name}={port}" for name, port in self.ports.items()] if verb == "up" else []
        done = subprocess.run(
            ["make", verb, *folders, *ports, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    def answers(self) -> list[str]:
        """What the server says to one prompt, over each protocol."""
        http, grpc, openai = (self.ports[name] for name in ("HTTP_PORT", "GRPC_PORT", "OPENAI_PORT"))
        options = {"max_tokens": 8, "temperature": 0.0, "ignore_eos": True}
        with Client(f"http://127.0.0.1:{http}") as client, GrpcClient(f"127.0.0.1:{grpc}") as other:
            said = [client.generate(PROMPT, **options).text, other.generate(PROMPT, **options).text]  # type: ignore[arg-type]
        body = {"model": "triune", "prompt": PROMPT, **options}
        reply = httpx.post(f"http://127.0.0.1:{openai}/v1/completions", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        return [*said, reply.json()["choices"][0]["text"]]

    def names(self) -> list[str]:
        """What OpenAI's clients may call the model."""
        return [one["id"] for one in httpx.get(f"http://127.0.0.1:{self.ports['OPENAI_PORT']}/v1/models").json()["data"]]


def folder_at(door: Door, name: str, seed: int) -> Path:
    return write_folder(door.home / "models" / name, tiny_checkpoint(head_dim=16, seed=seed), "F32")


def gguf_at(door: Door, name: str) -> Path:
    (door.home / "models").mkdir(parents=True, exist_ok=True)
    return write_gguf(door.home / "models" / name, llama_weights())


# How a model may be named -> makes it and names it so.
WAYS: dict[str, Callable[[Door], str]] = {
    "a folder, absolute": lambda door: str(folder_at(door, "plain", 1)),
    "a folder, with a slash at its end": lambda door: f"{folder_at(door, 'slash', 2)}/",
    "a folder, relative": lambda door: os.path.relpath(folder_at(door, "relative", 3), ROOT),
    "a folder, from home": lambda door: f"~/{folder_at(door, 'of-home', 4).relative_to(door.home)}",
    "a folder with spaces and parentheses": lambda door: str(folder_at(door, "my model (v2)", 5)),
    "a folder in other letters": lambda door: str(folder_at(door, "模型 é", 6)),
    "a folder that a shell would read": lambda door: str(folder_at(door, 'it\'s $HOME; "x" & `y` #z', 7)),
    "a folder called as one before": lambda door: str(folder_at(door, "another/plain", 8)),
    "a link to a folder": lambda door: str(link_to(folder_at(door, "behind", 9), door.home / "link")),
    "a GGUF file, absolute": lambda door: str(gguf_at(door, "file.gguf")),
    "a GGUF file with a space, relative": lambda door: os.path.relpath(gguf_at(door, "my file.gguf"), ROOT),
    "a hub id": lambda door: REPOSITORY,
}
SHORT = ("a folder with spaces and parentheses", "a hub id")


def link_to(folder: Path, link: Path) -> Path:
    link.symlink_to(folder)
    return link


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    published = write_folder(tmp_path / "published", tiny_checkpoint(head_dim=16, seed=99), "F32")
    with standing_in(of_folder(published)) as hub:
        shutil.rmtree(published)
        made = Door(tmp_path / "of (this) test", hub)
        made.home.mkdir(parents=True)
        yield made
        made("down")


def serve_each(door: Door, ways: tuple[str, ...]) -> None:
    """Serve one after the other, each in the place of the one before, and make sure that it answers as itself."""
    seen: dict[str, str] = {}
    for way in ways:
        model = WAYS[way](door)
        door("up", f"MODEL={model}", *SIZES, *(["SWITCH=1"] if seen else []))
        over_http, over_grpc, over_openai = door.answers()
        assert over_http == over_grpc == over_openai, way
        assert over_http, way
        seen[way] = model
    folders = {meaning_of(model).folder_name for model in seen.values() if not model.startswith("~")}
    assert len(built(door.build_dir)) == len(seen) and len(folders) == len([m for m in seen.values() if not m.startswith("~")])


def test_a_path_with_spaces_and_a_hub_id_are_served_over_every_protocol(door: Door) -> None:
    serve_each(door, SHORT)


@pytest.mark.slow
def test_every_way_to_name_a_model_is_served_over_every_protocol(door: Door) -> None:
    serve_each(door, tuple(WAYS))
