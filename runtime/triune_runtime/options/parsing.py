"""Inputs of a request -> options. Knows every name that clients of TensorRT-LLM's and vLLM's Triton models send; no tensors.

Each name is a row of a table: how to read its value, and what it sets. A name that is not in the tables is refused.
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
from .names import (  # fmt: skip
    BIG,
    CLIENT_NAMES,
    GUIDE_PAIR,
    GUIDES,
    IGNORED,
    LISTS,
    MOST_DRAFTS,
    ONLY,
    REFUSED,
    RESERVED,
    SCALARS,
    TOKEN_INPUTS,
    VLLM_PROMPT,
)
from .values import MAX_STOP_IDS, MAX_STOPS, MAX_WORDS, Value, at_most, boolean, real, refuse, text, whole, word
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
    stops = any(boolean(name, value) for name in ("cancel", "stop_request") for value in inputs.get(name, [])[:1])
    for name, values in inputs.items():
        if name not in IGNORED and not (stops and name in TOKEN_INPUTS):
            given.take(name, values if name in LISTS | REFUSED else _single(name, values))
    for name, value in _json_object("sampling_parameters", inputs).items():
        given.take(name, value)
    for name, value in ({} if stops else parameters or {}).items():  # a stop signal says nothing else of interest
        known = any(name in table for table in (SCALARS, LISTS, ONLY, REFUSED, GUIDES, GUIDE_PAIR))
        if name not in RESERVED and not name.startswith("triton_") and name not in inputs:
            if not known and name not in IGNORED:
                raise refuse(f"parameter {name}", value, "no such parameter is known", "unknown_option")
            given.take(name, value)
    biases = _biases(_json_object("logit_bias", inputs) | given.bias, given, encode_word)
    options = given.options(defaults, encode_word, biases, fallback_seed, vocab_size)
    return dataclasses.replace(options, request_id=str((parameters or {}).get("id", "")))


def _single(name: str, values: list[Value]) -> Value:
    if len(values) > 1:
        raise refuse(name, values, "one value is expected")
    return values[0] if values else None


def _json_object(name: str, inputs: Mapping[str, list[Value]]) -> dict[str, Any]:
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
        self.values: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.bias: dict[str, Any] = {}
        self.guides: dict[str, Guide] = {}

    def take(self, name: str, value: Value) -> None:
        if value is None or value == [] or (value in ("", b"") and name not in SCALARS):
            return
        if name in ONLY:
            if not any(_same(value, allowed) for allowed in ONLY[name]):
                allowed = " or ".join(str(a) for a in ONLY[name])
                raise refuse(name, value, f"only {allowed} is served", "unsupported")
        elif name in REFUSED:
            raise RequestError(f"{name} is not served by this model", f"omit {name}", code="unsupported", param=name)
        elif name == "logit_bias":
            if not isinstance(value, dict):
                raise refuse(name, value, "an object of token id: bias is expected")
            self.bias = value
        elif name in LISTS:
            self.values.setdefault({"stop_words": "stop"}.get(name, name), value if isinstance(value, list) else [value])
        elif name in GUIDES:
            if (guide := GUIDES[name](name, value)) is not None:
                self.guides[name] = guide
        elif name in GUIDE_PAIR:
            self.values.setdefault(name, value)
        elif name in SCALARS:
            target, read = SCALARS[name]
            self._set(target, name, read(name, value))
        else:
            raise refuse(name, value, "no such parameter is known", "unknown_option")

    def _set(self, target: str, name: str, value: Any) -> None:
        if target in self.values and self.values[target] != value and self.names[target] != name:
            one, other = (CLIENT_NAMES.get(each, each) for each in (name, self.names[target]))
            said = f"{one} is {value} but {other} is {self.values[target]}; they mean the same"
            raise RequestError(said, f"send only {one}", code="conflict", param=one)
        self.values.setdefault(target, value)
        self.names.setdefault(target, name)

    def options(
        self,
        defaults: SamplingDefaults,
        encode_word: Callable[[str], list[int]],
        biases: tuple[tuple[int, float], ...],
        seed: int,
        vocab_size: int,
    ) -> Options:
        get = self.values.get
        top_k = get("top_k", defaults.top_k or 0)
        top_p = get("top_p", 1.0 if defaults.top_p is None else defaults.top_p)
        at_most("stop_token_ids", get("stop_token_ids", []), MAX_STOP_IDS)
        stop_ids = [whole(0, vocab_size - 1)("stop_token_ids", v) for v in get("stop_token_ids", [])]
        end_id = whole(-1, vocab_size - 1)("end_id", get("end_id", -1))
        logprobs = get("logprobs", 0 if get("return_log_probs") else None)
        max_tokens, min_tokens = get("max_tokens"), get("min_tokens", 0)
        if max_tokens is not None and min_tokens > max_tokens:
            raise refuse(self.names["min_tokens"], min_tokens, f"at most max_tokens, which is {max_tokens}, is expected")
        params = SamplingParams(
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            temperature=self._temperature(defaults, top_k, top_p),
            top_k=max(top_k, 0),
            top_p=top_p or 1.0,  # TensorRT-LLM's clients send 0 for "off"
            min_p=get("min_p", 0.0),
            repetition_penalty=get("repetition_penalty", defaults.repetition_penalty or 1.0),
            presence_penalty=get("presence_penalty", 0.0),
            frequency_penalty=get("frequency_penalty", 0.0),
            logit_bias=biases,
            bad_words=tuple(tuple(encode_word(w)) for w in _words("bad_words", get("bad_words", []), MAX_WORDS)),
            stop=tuple(_words("stop", get("stop", []), MAX_STOPS)),
            stop_token_ids=tuple(stop_ids if end_id < 0 else [*stop_ids, end_id]),
            ignore_eos=get("ignore_eos", False),
            seed=get("seed", seed),
            logprobs=logprobs,
            max_drafts=self._max_drafts(),
            thinking_budget=get("thinking_budget"),
            guide=self._guide(),
        )
        stream = get("stream", False)
        n = get("n", 1)
        best_of = get("best_of", n)
        if best_of < n or (stream and best_of > n):
            why = "and stream is true: it is known only at the end which are the best" if best_of > n else f"but n is {n}"
            hint = "send best_of equal to n, or omit it"
            raise RequestError(f"best_of is {best_of} {why}", hint, code="conflict", param="best_of")
        if best_of > n and logprobs is None:
            params = dataclasses.replace(params, logprobs=0)
        exclude = get("exclude_input_in_output", stream or not self.vllm)
        if stream and not exclude and not self.batched:
            said, why = "exclude_input_in_output is false and stream is true", "a stream carries the answer only"
            raise RequestError(said, why, code="conflict", param="exclude_input_in_output")
        exclude = exclude or stream  # clients of TensorRT-LLM send false with streams too, where it means nothing
        separate = get("separate_reasoning")
        if separate and not exclude:
            said, why = "exclude_input_in_output is false and separate_reasoning is true", "an echo is one whole text"
            raise RequestError(said, why, code="conflict", param="separate_reasoning")
        return Options(
            params=params,
            stream=stream,
            timeout_s=get("timeout_s"),
            echo=not exclude,
            cancel=get("cancel", False),
            n=n,
            best_of=best_of,
            timed=get("timed", False),
            vllm=self.vllm,
            batched=self.batched,
            enable_thinking=get("enable_thinking"),
            separate_reasoning=separate,
        )

    def _max_drafts(self) -> int | None:
        """Where drafts are wanted but not how many, more than any engine checks at once."""
        wanted, most = self.values.get("speculation"), self.values.get("num_draft_tokens")
        if wanted is not None and most is not None and wanted != (most > 0):
            raise refuse("num_draft_tokens", most, f"speculation is {str(wanted).lower()}; the two must agree", "conflict")
        return most if most is not None or wanted is None else wanted * MOST_DRAFTS

    def _guide(self) -> Guide | None:
        kind, source = (self.values.get(name) for name in GUIDE_PAIR)
        if kind is not None:
            self.guides[GUIDE_PAIR[0]] = of_tensorrt_llm(kind, source)
        elif source is not None:
            said = f"{GUIDE_PAIR[1]} is given without {GUIDE_PAIR[0]}"
            raise RequestError(said, "send both", code="missing_value", param=GUIDE_PAIR[0])
        if len(self.guides) > 1:
            said = f"{' and '.join(self.guides)} all prescribe what the answer looks like"
            raise RequestError(said, "send one of them", code="conflict", param=next(iter(self.guides)))
        return next(iter(self.guides.values()), None)

    def _temperature(self, defaults: SamplingDefaults, top_k: int, top_p: float) -> float:
        if self.values.get("top_k") == 1 or self.values.get("temperature") == 0:
            return 0.0
        if "temperature" in self.values:
            return float(self.values["temperature"])
        if defaults.temperature is not None:
            return defaults.temperature
        random = ("top_k" in self.values and top_k > 1) or ("top_p" in self.values and 0 < top_p < 1)
        return 1.0 if random or self.values.get("min_p", 0) > 0 else 0.0


def _same(value: Value, allowed: Any) -> bool:
    if isinstance(allowed, bool):
        return isinstance(value, (bool, str)) and str(value).lower() == str(allowed).lower()
    try:
        return not isinstance(value, bool) and float(value) == allowed
    except (TypeError, ValueError):
        return False


def _words(name: str, values: list[Value], most: int) -> list[str]:
    at_most(name, values, most)
    return [found for found in (word(name, v) for v in values) if found]


def _biases(by_id: Mapping[str, Any], given: _Given, encode_word: Callable[[str], list[int]]) -> tuple[tuple[int, float], ...]:
    biases: dict[int, float] = {}
    for token_id, bias in by_id.items():
        biases[whole(0, BIG)("logit_bias", token_id)] = real(-1000, 1000)("logit_bias", bias)
    words = _words("embedding_bias_words", given.values.get("embedding_bias_words", []), MAX_WORDS)
    weights = given.values.get("embedding_bias_weights", [])
    if words and len(words) != len(weights):
        raise refuse("embedding_bias_weights", weights, f"{len(words)} weights are expected, one a word")
    for found, weight in zip(words, weights, strict=False):
        for token in encode_word(found):
            biases[token] = biases.get(token, 0.0) + real(-1000, 1000)("embedding_bias_weights", weight)
    return tuple(biases.items())
