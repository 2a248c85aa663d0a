"""What the fuzzers share: how many cases, tensors that are nearly right, and what every answer must keep to."""

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

CASES = int(os.environ.get("TRIUNE_FUZZ_CASES", "20"))  # of each fuzzer
PATIENCE_S = 30.0  # an answer that takes longer hangs
MODELS = ("triune", "ensemble", "generate", "tokenize", "tokenize_2d", "detokenize")
STREAMING = ("triune", "ensemble", "generate")
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

    @property
    def cases(self) -> int:
        return sum(sum(found.values()) for found in self.outcomes.values())


@dataclass(frozen=True)
class Input:
    """An input as a model's config declares it; -1 in a shape is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


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


TEXTS = st.one_of(
    st.sampled_from(["Hi", "What is 2 + 3?", "", " ", "\0", "é😀" * 9, "<think>", "</think>", "{", "x" * 3000, "\ufffd\ufeff"]),
    st.text(max_size=40),
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool", ""]), "content": TEXTS}), max_size=3
)
_FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _FINITE | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_BIAS = st.dictionaries(st.integers(-2, 400).map(str), st.floats(-200, 200), max_size=3)
_SAMPLING = st.dictionaries(
    st.sampled_from(["temperature", "top_k", "top_p", "max_tokens", "stop", "seed", "logprobs", "n", "nonsense"]),
    JSON,
    max_size=4,
)
_STRINGS = st.one_of(
    TEXTS, MESSAGES.map(json.dumps), _BIAS.map(json.dumps), _SAMPLING.map(json.dumps), JSON.map(json.dumps), st.just("{}")
)
# By datatype: values that may mean something first, then the ends of the range.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BYTES": _STRINGS,
    "INT32": st.integers(-2, 8) | st.sampled_from([2**31 - 1, -(2**31), 1000, 1024]),
    "UINT32": st.integers(0, 8) | st.just(2**32 - 1),
    "INT64": st.integers(-2, 8) | st.sampled_from([2**63 - 1, -(2**63)]),
    "UINT64": st.integers(0, 8) | st.just(2**64 - 1),
    "FP32": st.floats(-1, 3, width=32) | st.floats(width=32),
    "FP16": st.floats(width=16),
    "INT8": st.integers(-128, 127),
    "BOOL": st.booleans(),
}
# What an answer can be made of, by the name of the input: these get far into the server.
_OPTIONS = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 6)},
    optional={
        "temperature": st.floats(0, 2), "top_k": st.integers(0, 400), "top_p": st.floats(0, 1),
        "seed": st.integers(0, 2**64 - 1), "min_tokens": st.just(1), "logprobs": st.integers(0, 20),
        "stop": st.lists(st.text(min_size=1, max_size=3), max_size=3),
        "ignore_eos": st.booleans(), "logit_bias": st.lists(st.tuples(st.integers(0, 300), st.floats(-100, 100)), max_size=3),
    },
)  # fmt: skip
_TURNS = st.lists(st.sampled_from(["user", "assistant", "system"]), min_size=1, max_size=4).flatmap(
    lambda roles: st.tuples(*(st.fixed_dictionaries({"role": st.just(role), "content": TEXTS}) for role in roles))
)
SOUND: dict[str, st.SearchStrategy[Any]] = {
    "text_input": TEXTS.filter(bool),
    "messages": _TURNS.map(json.dumps),
    "options": _OPTIONS.map(lambda params: json.dumps({"params": params, "stream": True})),
    "temperature": st.floats(0, 2, width=32),
    "top_k": st.integers(0, 400),
    "top_p": st.floats(0, 1, width=32),
    "min_p": st.floats(0, 1, width=32),
    "repetition_penalty": st.floats(0.5, 2, width=32),
    "presence_penalty": st.floats(-2, 2, width=32),
    "frequency_penalty": st.floats(-2, 2, width=32),
    "seed": st.integers(0, 2**64 - 1),
    "random_seed": st.integers(0, 2**64 - 1),
    "stop": st.text(min_size=1, max_size=4),
    "stop_words": st.text(max_size=4),
    "bad_words": st.text(max_size=4),
    "logit_bias": st.dictionaries(st.integers(0, 300).map(str), st.floats(-100, 100), max_size=3).map(json.dumps),
    "top_logprobs": st.integers(0, 20),
    "return_log_probs": st.booleans(),
    "return_logprobs": st.booleans(),
    "return_finish_reason": st.booleans(),
    "return_num_input_tokens": st.booleans(),
    "ignore_eos": st.booleans(),
    "timeout_s": st.floats(0.25, 100, width=32),
    "sampling_parameters": _SAMPLING.map(json.dumps),
    "separate_reasoning": st.booleans(),
    "thinking_budget": st.integers(0, 8),
    "token_ids": st.integers(0, 300),
    "input_ids": st.integers(0, 300),
    "byte_range": st.integers(0, 3),
    "request_key": st.integers(0, 99),
}


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
        for one in draw(_sound_of(model)):
            values = SOUND[one.name]
            body[one.name] = draw(st.lists(values, min_size=1, max_size=4) if one.shape[-1] == -1 else values)
        return _kept_short(draw, model, body)
    for one in draw(_some_of(model)):
        values = VALUES.get(one.datatype, JSON)
        several = st.lists(values, max_size=4)
        usual = several if one.shape[-1] == -1 else values
        body[one.name] = draw(st.one_of(usual, usual, usual, several, JSON))
        if one.name == "options":
            given = body["options"] if isinstance(body["options"], list) else [body["options"]]
            body["options"] = [_bounded(value) if isinstance(value, str) else value for value in given]
    if draw(st.integers(0, 9)) == 9:
        body[draw(st.text(max_size=10))] = draw(JSON | st.just(float("nan")))  # NaN is JSON to some and not to others
    if draw(st.booleans()):
        body["id"] = draw(st.sampled_from(["a", "b", "é"]) | st.text(max_size=8))
    return _kept_short(draw, model, body)


def _bounded(options: str) -> str:
    """Options of the step `generate`, with a short answer where they leave its length open: it would fill the engine."""
    try:
        found = json.loads(options)
    except ValueError:
        return options
    if isinstance(found, dict) and isinstance(found.get("params", {}), dict):
        found["params"] = {"max_tokens": _LONGEST_ANSWER} | found.get("params", {})
    return json.dumps(found)


def _kept_short(draw: st.DrawFn, model: str, body: dict[str, Any]) -> dict[str, Any]:
    if model in ("triune", "ensemble"):
        if "max_tokens" not in body or draw(st.integers(0, 3)) < 3:
            body["max_tokens"] = draw(st.integers(1, _LONGEST_ANSWER))
        if "messages" not in body:
            body.setdefault("text_input", draw(TEXTS))
    return body


@st.composite
def tensors(draw: st.DrawFn, model: str) -> list[Tensor]:
    """Inputs of a model as raw tensors. Half of the lists are sound; the others have wrong types, shapes, numbers of bytes."""
    if draw(st.booleans()):
        sent = []
        for one in draw(_sound_of(model)):
            shape = tuple(draw(st.integers(1, 4)) if size == -1 else size for size in one.shape)
            values = draw(st.lists(SOUND[one.name], min_size=math.prod(shape), max_size=math.prod(shape)))
            sent.append(Tensor(one.name, one.datatype, shape, pack(one.datatype, values)))
        return _short(draw, model, sent)
    return _short(draw, model, [_tensor(draw, one) for one in draw(_some_of(model))])


def _short(draw: st.DrawFn, model: str, sent: list[Tensor]) -> list[Tensor]:
    if model in ("triune", "ensemble"):
        shape = (1,) if model == "triune" else (1, 1)
        if any(one.name == "max_tokens" for one in sent) and draw(st.integers(0, 3)) == 3:
            return sent
        sent = [one for one in sent if one.name != "max_tokens"]
        sent.append(Tensor("max_tokens", "INT32", shape, pack("INT32", [draw(st.integers(1, _LONGEST_ANSWER))])))
        if not any(one.name in ("text_input", "messages") for one in sent):
            sent.append(Tensor("text_input", "BYTES", shape, pack("BYTES", [draw(TEXTS)])))
    return sent


def _tensor(draw: st.DrawFn, one: Input) -> Tensor:
    odd = draw(st.integers(0, 11))  # most are sound
    datatype = draw(st.sampled_from(sorted(_PACKED))) if odd == 0 else one.datatype
    shape = tuple(draw(st.integers(0, 3)) if size == -1 else size for size in one.shape)
    if odd == 1:
        shape = tuple(draw(st.lists(st.sampled_from([-1, 0, 1, 2, 2**31, 2**62]), max_size=3)))
    count = max(0, min(math.prod(shape), 64))  # a shape may be a lie
    values = draw(st.lists(VALUES[datatype], min_size=count, max_size=count))
    if (one.name, datatype) == ("options", "BYTES"):
        values = [_bounded(value) for value in values]
    raw = pack(datatype, values)
    if odd == 2:
        raw = draw(st.one_of(st.just(raw[:-1]), st.just(raw + b"\0"), st.binary(max_size=16)))
    return Tensor(one.name, datatype, shape, raw)


def _some_of(model: str) -> st.SearchStrategy[list[Input]]:
    known = declared(model)
    if len(known) <= 4:  # a step's own inputs: mostly all of them
        return st.one_of(st.just(known), st.just(known), st.lists(st.sampled_from(known), unique=True))
    return st.lists(st.sampled_from(known), unique=True, max_size=5)


def _sound_of(model: str) -> st.SearchStrategy[list[Input]]:
    known = [one for one in declared(model) if one.name in SOUND]
    if len(known) <= 4:
        return st.just(known)
    prompts = [one for one in known if one.name in ("text_input", "messages")]
    others = [one for one in known if one not in prompts and one.name not in ("thinking_budget", "separate_reasoning")]
    some = st.lists(st.sampled_from(others), unique=True, max_size=4)
    return st.tuples(st.sampled_from(prompts), some).map(lambda found: [found[0], *found[1]])
