"""What to build: the choices of one build, validated once. Reads no file and imports no tool."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triune_runtime.manifest import Limits

from .errors import BuildError
from .fingerprint import digest
from .targets.tensorrt import gpus

DEFAULT_MODEL = "smollm2-135m"
TARGETS = ("cpu", "tensorrt")
VERIFICATIONS = ("auto", "full", "layers", "none")
SPECULATIONS = ("off", "on")
PRECISIONS = ("fp32", "bf16", "fp16", "fp8", "int8", "int4", "w8a8")
DEFAULT_PRECISIONS = {"cpu": "w8a8", "tensorrt": "fp16"}
_LONGEST_NAME = 200  # bytes of a file's name; systems take 255, and ours add a little
_MAXIMA = {"max_sequences": 1024, "max_length": 1 << 20, "prefill_chunk": 1 << 16, "max_queue": 1 << 20}


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """One build. `model` is a name the builder knows, a folder, a .gguf file, or a hub id.

    Raises:
        BuildError: a choice that is not known, or a limit out of range.
    """

    model: str = DEFAULT_MODEL
    target: str = "cpu"
    precision: str = "w8a8"
    verify: str = "auto"
    speculation: str = "off"  # on: drafts of further tokens can be checked
    limits: Limits = dataclasses.field(default_factory=Limits)
    compute_capabilities: tuple[str, ...] = ()  # of the GPUs a TensorRT engine is for, e.g. 8.9
    weight_streaming: bool = False  # let a TensorRT engine's weights stay in host memory where the GPU's is too small

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise BuildError("the model's name is empty", f"name a model, e.g. {DEFAULT_MODEL}, or a folder")
        if "\0" in self.model or max(len(part.encode()) for part in self.model.split("/")) > _LONGEST_NAME:
            raise BuildError(f"{self.model[:40]!r}... cannot be the name of a file", f"name a model, e.g. {DEFAULT_MODEL}")
        _one_of("target", self.target, TARGETS)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("verify", self.verify, VERIFICATIONS)
        _one_of("speculation", self.speculation, SPECULATIONS)
        if self.target == "tensorrt" and self.verify in ("full", "layers"):
            raise BuildError(
                f"--verify {self.verify} runs the engine; of a TensorRT engine the parsed network is computed",
                "choose --verify auto, or none",
            )
        if self.target == "tensorrt":
            if self.speculation == "on":
                raise BuildError("--speculation on: TensorRT engines have no layer that drafts yet", "omit --speculation")
            gpus.find_precision(self.precision, self.compute_capabilities)
            gpus.flavour(self.compute_capabilities)
        if self.target != "tensorrt" and (self.compute_capabilities or self.weight_streaming):
            raise BuildError(
                f"--compute-capability and --weight-streaming are of target tensorrt, not of {self.target}",
                "leave them out, or choose --target tensorrt",
            )
        for name, value in dataclasses.asdict(self.limits).items():
            option = "--" + name.replace("_", "-")
            if not 1 <= value <= _MAXIMA[name]:
                raise BuildError(f"{option} is {value:,}; it can be 1 to {_MAXIMA[name]:,}", f"choose another {option}")
        if self.limits.max_length < 2:
            raise BuildError("--max-length is 1: no room for an answer", "choose at least 2")

    @property
    def slug(self) -> str:
        """The model's name as a folder name: of a path its last part, of a hub id both parts."""
        looks_like_path = Path(self.model).exists() or self.model.startswith((".", "/"))
        name = Path(self.model).resolve().name if looks_like_path else self.model
        return re.sub(r"[^A-Za-z0-9._-]+", "--", name.removesuffix(".gguf")).strip(".-") or "model"

    def folder(self, build_dir: Path) -> Path:
        """Where the results of this model and target lie."""
        return build_dir / self.slug / self.target

    def repository(self, build_dir: Path) -> Path:
        """What Triton mounts."""
        return self.folder(build_dir) / "repository"

    def check_length(self, config: Mapping[str, Any]) -> None:
        """Refuse sequences longer than config.json says the model is made for.

        Raises:
            BuildError: they are.
        """
        known, asked = config.get("max_position_embeddings"), self.limits.max_length
        if isinstance(known, int) and asked > known:
            raise BuildError(
                f"--max-length is {asked:,}; {self.model} is made for {known:,} tokens", f"choose --max-length {known} or less"
            )

    def hash(self, *, checkpoint: Mapping[str, str], code: str, tools: Mapping[str, str]) -> str:
        """Hash of all that decides the result.

        Args:
            checkpoint: name -> content hash of each file of the checkpoint.
            code: hash of the builder's, the runtime's and the model repository's sources.
            tools: package -> version.
        """
        choices = dataclasses.asdict(self) | {"model": self.slug}  # where the same files lie changes nothing
        return digest({"plan": choices, "checkpoint": dict(checkpoint), "code": code, "tools": dict(tools)})


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BuildError(f"unknown {what} {value!r}; known: {', '.join(known)}", f"choose a known {what}, e.g. {known[0]}")
