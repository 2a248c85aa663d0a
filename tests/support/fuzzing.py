"""What the fuzzers share: how many cases, and tensors that are nearly right for each model of the repository."""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from triune_runtime.contracts.models import ENSEMBLES, ONE_RESPONSE

from .fuzz_values import JSON, NAMED, SOUND, TEXTS, TOGETHER, VALUES, VLLM_SOUND

CASES = int(os.environ.get("TRIUNE_FUZZ_CASES", "20"))  # of each fuzzer
PATIENCE_S = 30.0  # an answer that takes longer hangs
ONE_ANSWER = tuple(one.name for one in ONE_RESPONSE)
STEPS = ("tokenize", "tokenize_2d", "detokenize")
STREAMING = (*(one.name for one in ENSEMBLES), "generate")
MODELS = (*STREAMING, *ONE_ANSWER, *STEPS)
_LENGTHS = {  # where a model is told how long an answer may be
    **dict.fromkeys(ONE_ANSWER, "max_tokens"),
    **{
        one.name: name
        for one in ENSEMBLES
        for section in one.taken().values()
        for name, row in section.items()
        if row.name == "max_tokens"
    },
}
_REPOSITORY = Path(__file__).parents[2] / "model_repository"
_PACKED = {"INT32": "i", "UINT32": "I", "INT64": "q", "UINT64": "Q", "FP32": "f", "BOOL": "?", "FP16": "e", "INT8": "b"}
_LONGEST_ANSWER = 6  # tokens: a fuzzer wants many answers, not long ones

CASES_OF_EACH = settings(
    max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, database=None,
    derandomize="TRIUNE_FUZZ_CASES" not in os.environ,  # the same cases in every run of `make test`, others in `make fuzz`
)  # fmt: skip


@dataclass
class Tally:
    """What became of the cases, by fuzzer and outcome."""

    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)

    def count(self, fuzzer: str, outcome: object) -> None:
        of_fuzzer = self.outcomes.setdefault(fuzzer, {})
        of_fuzzer[str(outcome)] = of_fuzzer.get(str(outcome), 0) + 1


@dataclass(frozen=True)
class Input:
    """An input as a model's config declares it; -1 in a shape is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def has_rows(self) -> bool:
        return len(self.shape) > 1 and self.shape[0] == -1


@dataclass(frozen=True)
class Tensor:
    """An input as it is sent: what it says about itself, and bytes that may say otherwise."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes


def declared(model: str) -> list[Input]:
    """The inputs of a model of the repository."""
    config = text_format.Parse((_REPOSITORY / model / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())
    types = model_config_pb2.DataType
    return [
        Input(one.name, types.Name(one.data_type).removeprefix("TYPE_").replace("STRING", "BYTES"), tuple(one.dims))
        for one in config.input
    ]


def pack(datatype: str, values: list[Any]) -> bytes:
    """A tensor's raw bytes."""
    if datatype == "BYTES":
        encoded = [value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass") for value in values]
        return b"".join(struct.pack("<I", len(one)) + one for one in encoded)
    return struct.pack(f"<{len(values)}{_PACKED[datatype]}", *values)


@st.composite
def inputs_as_json(draw: st.DrawFn, model: str) -> dict[str, Any]:
    """A body of `generate`: inputs by name. Half of the bodies are sound; in the others each is of its type or of any."""
    body: dict[str, Any] = {}
    if draw(st.booleans()):
        rows = _rows(draw)
        for one, values in draw(_sound_of(model)):
            if one.shape[-1] == -1:
                body[one.name] = draw(st.lists(values, min_size=1, max_size=4))
            elif one.has_rows and rows > 1 and (one.name in ("text_input", "messages") or draw(st.booleans())):
                body[one.name] = draw(st.lists(values, min_size=rows, max_size=rows))
            else:
                body[one.name] = draw(values)
    else:
        for one in draw(_some_of(model)):
            values = _any_value(one.name, one.datatype)
            several = st.lists(values, max_size=4)
            usual = several if one.shape[-1] == -1 else values
            body[one.name] = draw(st.one_of(usual, usual, usual, several, JSON))
        if draw(st.integers(0, 9)) == 9:  # inputs by another way
            body["parameters"] = {one.name: draw(_any_value(one.name, one.datatype)) for one in draw(_some_of(model))}
        if draw(st.integers(0, 9)) == 9:
            body[draw(st.text(max_size=10))] = draw(JSON | st.just(float("nan")))  # NaN is JSON to some and not to others
    if draw(st.booleans()):
        body["id"] = draw(st.sampled_from(["a", "b", "é"]) | st.text(max_size=8))
    return _kept_short(draw, model, body)


def _kept_short(draw: st.DrawFn, model: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body with a short answer, where it leaves that open or mostly: a long one would fill the engine."""
    for name in ("options", "sampling_parameters"):
        if name in body and model in ("generate", "vllm_model"):
            given = body[name] if isinstance(body[name], list) else [body[name]]
            bounded = [_bounded(name, value) if isinstance(value, str) else value for value in given]
            body[name] = bounded if isinstance(body[name], list) or name == "options" else bounded[0]
    if model in _LENGTHS:
        length = _LENGTHS[model]
        if length not in body or draw(st.integers(0, 3)) < 3:
            body[length] = draw(st.integers(1, _LONGEST_ANSWER))
    elif model == "vllm_model" and "sampling_parameters" not in body:
        if draw(st.booleans()):
            body["parameters"] = body.get("parameters", {}) | {"max_tokens": draw(st.integers(1, _LONGEST_ANSWER))}
        else:
            body["sampling_parameters"] = json.dumps({"max_tokens": _LONGEST_ANSWER})
    if model not in ("generate", *STEPS) and "messages" not in body:
        body.setdefault("text_input", draw(TEXTS))
    return body


def _bounded(name: str, source: str) -> str:
    """JSON of options with a short answer where they leave its length open."""
    try:
        found = json.loads(source) if source.strip() else {}
    except ValueError:
        return source
    holder = found.setdefault("params", {}) if isinstance(found, dict) and name == "options" else found
    if isinstance(holder, dict) and holder.get("max_tokens") is None:
        holder["max_tokens"] = _LONGEST_ANSWER
    return json.dumps(found)


@st.composite
def tensors(draw: st.DrawFn, model: str) -> list[Tensor]:
    """Inputs of a model as raw tensors. Half of the lists are sound; the others have wrong types, shapes, numbers of bytes."""
    if draw(st.booleans()):
        sent = []
        rows = _rows(draw)
        for one, values in draw(_sound_of(model)):
            shape = [draw(st.integers(1, 4)) if size == -1 else size for size in one.shape]
            if one.has_rows:  # an input of one row counts for all
                shape[0] = rows if one.name in ("text_input", "messages") or draw(st.booleans()) else 1
            drawn = draw(st.lists(values, min_size=math.prod(shape), max_size=math.prod(shape)))
            sent.append(_packed(model, one.name, one.datatype, tuple(shape), drawn))
        return _short(draw, model, sent)
    return _short(draw, model, [_tensor(draw, model, one) for one in draw(_some_of(model))])


def _rows(draw: st.DrawFn) -> int:
    return draw(st.sampled_from([1, 1, 1, 2, 3]))


def _packed(model: str, name: str, datatype: str, shape: tuple[int, ...], values: list[Any]) -> Tensor:
    if datatype == "BYTES" and (name == "options" or (name, model) == ("sampling_parameters", "vllm_model")):
        values = [_bounded(name, value) if isinstance(value, str) else value for value in values]
    return Tensor(name, datatype, shape, pack(datatype, values))


def _short(draw: st.DrawFn, model: str, sent: list[Tensor]) -> list[Tensor]:
    if model in ("generate", *STEPS):
        return sent
    inputs = {one.name: one for one in declared(model)}
    shape = (1, 1) if inputs["text_input"].has_rows else (1,)
    length = _LENGTHS.get(model)
    if length is None:
        if not any(one.name == "sampling_parameters" for one in sent):
            limit = json.dumps({"max_tokens": _LONGEST_ANSWER})
            sent.append(Tensor("sampling_parameters", "BYTES", shape, pack("BYTES", [limit])))
    elif not any(one.name == length for one in sent) or draw(st.integers(0, 3)) < 3:
        sent = [one for one in sent if one.name != length]
        sent.append(Tensor(length, "INT32", shape, pack("INT32", [draw(st.integers(1, _LONGEST_ANSWER))])))
    if not any(one.name in ("text_input", "messages") for one in sent):
        sent.append(Tensor("text_input", "BYTES", shape, pack("BYTES", [draw(TEXTS)])))
    return sent


def _tensor(draw: st.DrawFn, model: str, one: Input) -> Tensor:
    odd = draw(st.integers(0, 11))  # most are sound
    datatype = draw(st.sampled_from(sorted(_PACKED))) if odd == 0 else one.datatype
    shape = tuple(draw(st.integers(0, 3)) if size == -1 else size for size in one.shape)
    if odd == 1:
        shape = tuple(draw(st.lists(st.sampled_from([-1, 0, 1, 2, 2**31, 2**62]), max_size=3).filter(_survived)))
    count = max(0, min(math.prod(shape), 64))  # a shape may be a lie
    values = _any_value(one.name, datatype)
    if datatype == "BYTES":
        values |= st.binary(max_size=8)  # which JSON cannot carry
    tensor = _packed(model, one.name, datatype, shape, draw(st.lists(values, min_size=count, max_size=count)))
    if odd == 2:
        raw = tensor.raw
        raw = draw(st.one_of(st.just(raw[:-1]), st.just(raw + b"\0"), st.binary(max_size=16)))
        return Tensor(one.name, datatype, shape, raw)
    return tensor


def _survived(shape: list[int]) -> bool:
    """Whether Triton 24.10 outlives a shape: not if it is huge and yet of no bytes, as 2^62 by 0 is; see docs/fuzzing.md."""
    return max(shape, default=0) <= 2 or math.prod(shape) * 8 % 2**64 != 0


def _any_value(name: str, datatype: str) -> st.SearchStrategy[Any]:
    values = VALUES.get(datatype, JSON)
    return values | NAMED[name] if name in NAMED and datatype == "BYTES" else values


def _some_of(model: str) -> st.SearchStrategy[list[Input]]:
    known = declared(model)
    if len(known) <= 4:  # a step's own inputs: mostly all of them
        return st.one_of(st.just(known), st.just(known), st.lists(st.sampled_from(known), unique=True))
    return st.lists(st.sampled_from(known), unique=True, max_size=5)


@st.composite
def _sound_of(draw: st.DrawFn, model: str) -> list[tuple[Input, st.SearchStrategy[Any]]]:
    """Inputs that go together, each with its values: a prompt, some that stand alone, and what makes sense in company only."""
    inputs = {one.name: one for one in declared(model)}
    values = SOUND | (VLLM_SOUND if model == "vllm_model" else {})
    if len(inputs) <= 4:
        return [(one, values[one.name]) for one in inputs.values()]
    alone = sorted(
        inputs.keys() & values.keys() - {"text_input", "messages", "thinking_budget", "separate_reasoning", "input_ids"}
    )
    alone = [name for name in alone if (name, inputs[name].datatype) != ("stop", "BOOL")]  # TensorRT-LLM's signal
    found = {name: values[name] for name in draw(st.lists(st.sampled_from(alone), unique=True, max_size=4))}
    if draw(st.integers(0, 3)) < 3:
        company = draw(st.sampled_from(TOGETHER).flatmap(lambda some: some))
        if company.keys() <= inputs.keys() and (company.get("stop") is None or inputs["stop"].datatype == "BOOL"):
            found |= {name: st.just(value) for name, value in company.items()}
    if "messages" not in found:
        prompts = [name for name in ("text_input", "messages") if name in inputs]
        prompt = draw(st.sampled_from(prompts))
        found[prompt] = values[prompt]
    return [(inputs[name], strategy) for name, strategy in found.items()]
