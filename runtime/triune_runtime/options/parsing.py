"""Inputs of a request -> options. Knows how the names that clients of TensorRT-LLM's and vLLM's Triton models send go together.

Each name is a row of `declared.py`: how to read its value, and what it sets. A name without a row is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from ..constraints.guide import Guide, of_tensorrt_llm
from ..errors import RequestError
from ..manifest import SamplingDefaults
from ..request import SamplingParams
from .declared import CLIENT_NAMES, GUIDE_PAIR, MOST_DRAFTS, NAMES, OPTIONS, RESERVED, TOKEN_INPUTS, VLLM_PROMPT
from .rows import Alias, Elsewhere, Only, Option, Prescribes, Refused
from .values import BIG, FLAG, MAX_STOP_IDS, Many, Reader, Text, Value, Whole, refuse, text
from .wire import Options


def parse(
    inputs: Mapping[str, list[Value]],
    *,
    defaults: SamplingDefaults,
    encode_word: Callable[[str], list[int]],
    fallback_seed: int,
    vocab_size: int = BIG,
    parameters: Mapping[str, str | int | float | bool] | None = None,
    batched: bool = False,
) -> Options:
    """The options in a request's tensors, its `sampling_parameters` JSON, and its request parameters, in this order.

    Args:
        inputs: tensors as flat lists: bytes or str for strings, numbers or bools otherwise.
        defaults: what the model's publisher recommends.
        encode_word: token ids of a word, for bad words and word biases.
        fallback_seed: the seed of a request that names none.
        vocab_size: of the model; token ids beyond it are refused.
        parameters: Triton's request parameters.
        batched: the tensors have a batch dimension, so the client is one of TensorRT-LLM's.

    Raises:
        RequestError: names the field, the value and what is expected.
    """
    given = _Given(batched=batched, vllm=bool(inputs.get(VLLM_PROMPT)))
    stops = any(FLAG.read(name, value) for name in ("cancel", "stop_request") for value in inputs.get(name, [])[:1])
    for name, values in inputs.items():
        row = NAMES.get(name)
        if not isinstance(row, Elsewhere) and not (stops and name in TOKEN_INPUTS):
            given.take(name, json_object(name, inputs) if name == "logit_bias" else _of_tensor(name, values))
    for name, value in json_object("sampling_parameters", inputs).items():
        given.take(name, value)
    for name, value in ({} if stops else parameters or {}).items():  # a stop signal says nothing else of interest
        if name not in RESERVED and not name.startswith("triton_") and name not in inputs:
            if name not in NAMES:
                raise refuse(f"parameter {name}", value, "no such parameter is known", "unknown_option")
            given.take(name, value)
    options = given.options(defaults, encode_word, fallback_seed, vocab_size)
    return dataclasses.replace(options, request_id=str((parameters or {}).get("id", "")))


def _of_tensor(name: str, values: list[Value]) -> Value:
    """What a tensor says: a list where one is expected, otherwise its one value."""
    option = _option(name)
    return values if _is_list(option) or isinstance(NAMES.get(name), Refused) else _single(name, values)


def _option(name: str) -> Option | None:
    """The option that a name or an alias of it stands for."""
    row = NAMES.get(name)
    return OPTIONS[row.of] if isinstance(row, Alias) else row if isinstance(row, Option) else None


def _may_be_empty(reader: Reader) -> bool:
    """Whether an empty text says nothing."""
    return isinstance(reader, Many) or (isinstance(reader, Text) and reader.may_be_empty)


def _is_list(option: Option | None) -> bool:
    return option is not None and isinstance(option.reader, Many)


def _single(name: str, values: list[Value]) -> Value:
    if len(values) > 1:
        raise refuse(name, values, "one value is expected")
    return values[0] if values else None


def json_object(name: str, inputs: Mapping[str, list[Value]]) -> dict[str, Any]:
    """The object in a tensor of JSON; empty without one.

    Raises:
        RequestError: it is none.
    """
    raw = _single(name, inputs.get(name, []))
    if raw is None or not text(name, raw).strip():
        return {}
    try:
        parsed = json.loads(text(name, raw))
    except ValueError as error:
        hint = f"send {name} as a JSON object"
        raise RequestError(f"{name} is not JSON: {error}", hint, code="invalid_value", param=name) from None
    if not isinstance(parsed, dict):
        raise refuse(name, parsed, "a JSON object is expected")
    return parsed


class _Given:
    """What a request has set so far; the first source that sets a thing wins, two names for it must agree."""

    def __init__(self, *, batched: bool, vllm: bool) -> None:
        self.batched, self.vllm = batched, vllm
        self.values: dict[str, Any] = {}  # by the option's name
        self.names: dict[str, str] = {}  # that were sent for them
        self.guides: dict[str, Guide] = {}

    def take(self, name: str, value: Value) -> None:
        row, option = NAMES.get(name), _option(name)
        if value is None or value == []:
            return
        if value in ("", b"") and (option is None or _may_be_empty(option.reader)):
            return
        if isinstance(row, Only):
            if not any(_same(value, allowed) for allowed in row.allowed):
                allowed = " or ".join(str(a) for a in row.allowed)
                raise refuse(name, value, f"only {allowed} is served", "unsupported")
        elif isinstance(row, Refused):
            raise RequestError(f"{name} is not served by this model", f"omit {name}", code="unsupported", param=name)
        elif isinstance(row, Prescribes):
            if (guide := row.guide(name, value)) is not None:
                self.guides[name] = guide
        elif option is None:
            raise refuse(name, value, "no such parameter is known", "unknown_option")
        elif name == "logit_bias":
            self.values[name] = self.values.get(name, {}) | option.reader.read(name, value)
        elif _is_list(option):
            self.values.setdefault(option.name, value if isinstance(value, list) else [value])
        else:
            own = row.reader if isinstance(row, Alias) else None
            self._set(option.name, name, (own or option.reader).read(name, value))

    def _set(self, target: str, name: str, value: Any) -> None:
        if target in self.values and self.values[target] != value and self.names[target] != name:
            one, other = (CLIENT_NAMES.get(each, each) for each in (name, self.names[target]))
            said = f"{one} is {value} but {other} is {self.values[target]}; they mean the same"
            raise RequestError(said, f"send only {one}", code="conflict", param=one)
        self.values.setdefault(target, value)
        self.names.setdefault(target, name)

    def options(
        self, defaults: SamplingDefaults, encode_word: Callable[[str], list[int]], seed: int, vocab_size: int
    ) -> Options:
        get = self.values.get
        guide_input, guide = self._guide()
        params = SamplingParams(**self._fields(sampling=True) | {
            "temperature": self._temperature(defaults),
            "top_k": max(get("top_k", defaults.top_k or 0), 0),
            "top_p": get("top_p", defaults.top_p) or 1.0,  # TensorRT-LLM's clients send 0 for "off"
            "min_p": get("min_p", defaults.min_p or 0.0),
            "repetition_penalty": get("repetition_penalty", defaults.repetition_penalty or 1.0),
            "logit_bias": self._biases(encode_word),
            "bad_words": tuple(tuple(encode_word(word)) for word in self._listed("bad_words")),
            "stop": self._listed("stop"),
            "stop_token_ids": self._stop_token_ids(vocab_size),
            "seed": get("seed", seed),
            "logprobs": get("top_logprobs", 0 if get("return_log_probs") else None),
            "max_drafts": self._max_drafts(),
            "guide": guide,
        })  # fmt: skip
        if params.max_tokens is not None and params.min_tokens > params.max_tokens:
            expected = f"at most max_tokens, which is {params.max_tokens}, is expected"
            raise refuse(self.names["min_tokens"], params.min_tokens, expected)
        fields = self._fields(sampling=False)
        options = Options(params=params, guide_input=guide_input, vllm=self.vllm, batched=self.batched, **fields)
        best_of = get("best_of", options.n)
        if best_of < options.n or (options.stream and best_of > options.n):
            more = best_of > options.n
            why = "and stream is true: it is known only at the end which are the best" if more else f"but n is {options.n}"
            hint = "send best_of equal to n, or omit it"
            raise RequestError(f"best_of is {best_of} {why}", hint, code="conflict", param="best_of")
        if best_of > options.n and params.logprobs is None:
            params = dataclasses.replace(params, logprobs=0)
        return dataclasses.replace(options, params=params, best_of=best_of, echo=self._echo(options))

    def _fields(self, *, sampling: bool) -> dict[str, Any]:
        """Those fields whose value is what was sent."""
        rows = (row for row in OPTIONS.values() if row.sampling == sampling and row.name in self.values)
        return {row.sets: self.values[row.name] for row in rows if row.sets is not None}

    def _listed(self, name: str) -> tuple[Any, ...]:
        return tuple(OPTIONS[name].reader.read(name, self.values.get(name, [])))

    def _stop_token_ids(self, vocab_size: int) -> tuple[int, ...]:
        listed = Many(Whole(0, vocab_size - 1), MAX_STOP_IDS).read("stop_token_ids", self.values.get("stop_token_ids", []))
        end_id = Whole(-1, vocab_size - 1).read("end_id", self.values.get("end_id", -1))
        return listed if end_id < 0 else (*listed, end_id)

    def _biases(self, encode_word: Callable[[str], list[int]]) -> tuple[tuple[int, float], ...]:
        biases: dict[int, float] = dict(self.values.get("logit_bias", {}))
        words, weights = self._listed("embedding_bias_words"), self.values.get("embedding_bias_weights", [])
        if words and len(words) != len(weights):
            raise refuse("embedding_bias_weights", weights, f"{len(words)} weights are expected, one a word")
        for word, weight in zip(words, self._listed("embedding_bias_weights") if words else (), strict=True):
            for token in encode_word(word):
                biases[token] = biases.get(token, 0.0) + weight
        return tuple(biases.items())

    def _echo(self, options: Options) -> bool:
        exclude = self.values.get("exclude_input_in_output", options.stream or not self.vllm)
        if options.stream and not exclude and not self.batched:
            said, why = "exclude_input_in_output is false and stream is true", "a stream carries the answer only"
            raise RequestError(said, why, code="conflict", param="exclude_input_in_output")
        exclude = exclude or options.stream  # clients of TensorRT-LLM send false with streams too, where it means nothing
        if options.separate_reasoning and not exclude:
            said, why = "exclude_input_in_output is false and separate_reasoning is true", "an echo is one whole text"
            raise RequestError(said, why, code="conflict", param="separate_reasoning")
        return not exclude

    def _max_drafts(self) -> int | None:
        """Where drafts are wanted but not how many, more than any engine checks at once."""
        wanted, most = self.values.get("speculation"), self.values.get("num_draft_tokens")
        if wanted is not None and most is not None and wanted != (most > 0):
            raise refuse("num_draft_tokens", most, f"speculation is {str(wanted).lower()}; the two must agree", "conflict")
        return most if most is not None or wanted is None else wanted * MOST_DRAFTS

    def _guide(self) -> tuple[str, Guide | None]:
        """What says what the answer must look like, and what that is."""
        kind, source = (self.values.get(name) for name in GUIDE_PAIR)
        if kind is not None:
            self.guides[GUIDE_PAIR[1]] = of_tensorrt_llm(kind, source)
        elif source is not None:
            said = f"{GUIDE_PAIR[1]} is given without {GUIDE_PAIR[0]}"
            raise RequestError(said, "send both", code="missing_value", param=GUIDE_PAIR[0])
        if len(self.guides) > 1:
            said = f"{' and '.join(self.guides)} all prescribe what the answer looks like"
            raise RequestError(said, "send one of them", code="conflict", param=next(iter(self.guides)))
        return next(iter(self.guides.items()), ("", None))

    def _temperature(self, defaults: SamplingDefaults) -> float:
        get = self.values.get
        if get("top_k") == 1 or get("temperature") == 0:
            return 0.0
        if "temperature" in self.values:
            return float(self.values["temperature"])
        if defaults.temperature is not None:
            return defaults.temperature
        draws = get("top_k", 0) > 1 or 0 < get("top_p", 1) < 1 or get("min_p", 0) > 0
        several = max(get("n", 1), get("best_of", 1)) > 1  # greedy ones would all be the same
        return 1.0 if draws or several else 0.0


def _same(value: Value, allowed: Any) -> bool:
    if isinstance(allowed, bool):
        return isinstance(value, (bool, str)) and str(value).lower() == str(allowed).lower()
    try:
        return not isinstance(value, bool) and float(value) == allowed
    except (TypeError, ValueError):
        return False
