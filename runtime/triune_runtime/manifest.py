"""engine.json: the one contract between the builder, which writes it, and the runtime, which runs what it says."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import ManifestError

FORMAT = 2
FILE_NAME = "engine.json"
ENGINE_ELSEWHERE = "engine.path"  # a file where that would be: its folder, seen from that of all models
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "int8": 1}  # types of a cache's numbers


@dataclass(frozen=True, kw_only=True)
class CacheTensor:
    """One tensor of a sequence's KV cache; a slot holds it as [heads, positions, dim]."""

    name: str  # graph input `past.NAME`, graph output `present.NAME`
    heads: int
    dim: int
    dtype: str = "float32"  # one of DTYPE_BYTES
    window: int | None = None  # only the latest so many positions are read again; None: all
    outputs: int = 1  # graph outputs that append the same numbers to its buffer: `present.NAME`, `present.NAME.2`, ...

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a dtype that no cache has.
        """
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"{self.name} has dtype {self.dtype!r}; known: {', '.join(DTYPE_BYTES)}")

    @property
    def output_names(self) -> tuple[str, ...]:
        """The graph outputs that are bound to its buffer."""
        return (f"present.{self.name}", *(f"present.{self.name}.{i + 2}" for i in range(self.outputs - 1)))

    def positions(self, max_length: int) -> int:
        """Positions that a slot's buffer has for sequences of up to `max_length` tokens.

        A window's buffer has an eighth more than the window, so that the oldest need not be dropped token by token.
        """
        if self.window is None:
            return max_length
        return max(self.window, min(self.window + max(16, self.window // 8), max_length))

    @property
    def bytes_per_position(self) -> int:
        return self.heads * self.dim * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the engine was declared for; the runtime refuses more."""

    max_sequences: int = 16  # sequences that hold a KV slot at once
    max_length: int = 2048  # tokens of one sequence, prompt and answer together
    prefill_chunk: int = 256  # prompts are cut at multiples of this
    max_queue: int = 256  # requests that may wait for a slot
    max_step_tokens: int | None = None  # prompt tokens computed in one step, of all sequences together; None: prefill_chunk
    chunks_per_s: float = 75.0  # pieces of answers handed out a second, of all streams together, besides first and last ones

    @property
    def step_tokens(self) -> int:
        """Prompt tokens computed in one step, of all sequences together."""
        return max(self.max_step_tokens or 0, self.prefill_chunk)


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """What the model's publisher recommends (generation_config.json); None where it says nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, kw_only=True)
class ReasoningMarkers:
    """How a model that thinks before it answers marks its thinking."""

    start: str  # e.g. <think>
    end: str
    closing_ids: tuple[int, ...]  # tokens that end the thinking as the model itself does: `end` and line breaks around it


def checked_name(output: str, number: int) -> str:
    """The cache output `output` of token `number` in a graph that checks drafts, where each token has its own."""
    return f"{output}.token.{number}" if number else output


@dataclass(frozen=True, kw_only=True)
class MtpEngine:
    """The layer of multi-token prediction, a graph beside the engine's."""

    engine: str  # file name of the graph
    hidden_size: int  # numbers that it reads of each position
    cache: tuple[CacheTensor, ...]


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """How an engine checks drafts of the tokens that may come next."""

    engine: str  # file name of a graph that runs `tokens` tokens of one sequence with the bits of one after the other
    tokens: int  # a token and the drafts behind it
    mtp: MtpEngine | None = None  # None: the checkpoint has no such layer


@dataclass(frozen=True, kw_only=True)
class EngineManifest:
    """Everything the runtime must know of an engine. Paths are relative to the folder of engine.json."""

    model: str
    architecture: str
    target: str
    precision: str
    engine: str  # file name of the graph, e.g. model.onnx
    vocab_size: int
    cache: tuple[CacheTensor, ...]
    stop_token_ids: tuple[int, ...]  # end-of-sequence and end-of-turn tokens
    bos_token_id: int | None = None
    tokenizer: str = "tokenizer.json"
    chat_template: str | None = None  # Jinja source, not a path
    tool_template: str | None = None  # used in place of it where a request has tools
    special_tokens: dict[str, str] = field(default_factory=dict)  # bos_token, eos_token, ... for the template
    defaults: SamplingDefaults = SamplingDefaults()
    reasoning: ReasoningMarkers | None = None  # None: the model does not think
    speculation: Speculation | None = None  # None: no drafts can be checked
    limits: Limits = Limits()
    plan: dict[str, Any] = field(default_factory=dict)  # JSON that the target alone reads, e.g. what its engines need to run
    built_with: dict[str, str] = field(default_factory=dict)  # tool -> version
    verified: str = "full"  # how, one of its target's proofs; "none": not at all, as the user asked
    inputs_hash: str = ""  # of everything that went into the build
    format: int = FORMAT

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token of one sequence takes, all layers together, while no window has passed it."""
        return sum(c.bytes_per_position for c in self.cache)

    def kv_bytes(self, tokens: int) -> int:
        """The most bytes of KV cache that one sequence of that many tokens holds: beyond its window a layer takes no more."""
        length = min(tokens, self.limits.max_length)
        return sum(size * min(length, positions) for positions, size in self._kv_sizes.items())

    @cached_property
    def _kv_sizes(self) -> dict[int, int]:
        """Positions of a buffer -> bytes that one position takes in all buffers of so many: models have hundreds of buffers."""
        sizes = dict[int, int]()
        for tensor in self.cache:
            positions = tensor.positions(self.limits.max_length)
            sizes[positions] = sizes.get(positions, 0) + tensor.bytes_per_position
        return sizes

    def save(self, folder: Path) -> None:
        """Write engine.json into `folder`."""
        (folder / FILE_NAME).write_text(json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> EngineManifest:
        """Read engine.json of `folder`.

        Raises:
            ManifestError: the file is missing, not JSON, of another format, or has unknown or missing keys.
        """
        path = folder / FILE_NAME
        try:
            raw = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise ManifestError(f"no {FILE_NAME} in {folder}", "run `make engine`, then serve its repository") from None
        except ValueError as error:
            raise ManifestError(f"{path} is not JSON: {error}", "build the engine again") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise ManifestError(f"{path} has format {found!r}, this runtime reads {FORMAT}", "build the engine again")
        try:
            if not isinstance(raw.get("plan", {}), dict):
                raise TypeError(f"plan is {raw['plan']!r}")
            raw["cache"] = tuple(CacheTensor(**c) for c in raw["cache"])
            raw["stop_token_ids"] = tuple(raw["stop_token_ids"])
            raw["defaults"] = SamplingDefaults(**raw["defaults"])
            raw["limits"] = Limits(**raw["limits"])
            if raw.get("reasoning") is not None:
                closing_ids = tuple(raw["reasoning"]["closing_ids"])
                raw["reasoning"] = ReasoningMarkers(**(raw["reasoning"] | {"closing_ids": closing_ids}))
            if raw.get("speculation") is not None:
                raw["speculation"] = speculation_from(raw["speculation"])
            return cls(**raw)
        except (KeyError, TypeError, ValueError) as error:
            raise ManifestError(f"{path} does not fit this runtime: {error}", "build the engine again") from error


def speculation_from(raw: dict[str, Any]) -> Speculation:
    """The inverse of `dataclasses.asdict`."""
    mtp = raw["mtp"] and MtpEngine(**(raw["mtp"] | {"cache": tuple(CacheTensor(**c) for c in raw["mtp"]["cache"])}))
    return Speculation(**(raw | {"mtp": mtp}))


def replace_limits(manifest: EngineManifest, **changes: Any) -> EngineManifest:
    """A manifest with other limits, e.g. fewer slots on a small machine."""
    return dataclasses.replace(manifest, limits=dataclasses.replace(manifest.limits, **changes))


def engine_folder(model_folder: str) -> Path:
    """The folder of engine.json, seen from any model of the repository: its neighbour `generate`, version 1, or the one that a
    file there names.

    Where several engines are served side by side, the steps of one are called NAME__tokenize, NAME__generate, ..., and what
    answers with one response NAME_infer.
    """
    repository, model = Path(model_folder).parent, Path(model_folder).name
    name, separator, _ = model.rpartition("__")
    if (repository / f"{model.removesuffix('_infer')}__generate").exists():
        name, separator = model.removesuffix("_infer"), "__"
    folder = repository / f"{name}{separator}generate" / "1"
    elsewhere = folder / ENGINE_ELSEWHERE
    if not elsewhere.exists():
        return folder
    # As it is called, not resolved: what lies behind may have a name that the server's Python cannot say.
    return Path(os.path.normpath(repository / elsewhere.read_text("utf-8")))
