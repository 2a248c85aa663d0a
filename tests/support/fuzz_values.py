"""Values for the fuzzers' tensors: any of a type, and those of which an answer can be made, alone and in company."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

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

# What an answer must look like. Some are right, some are no schema, no regex and no grammar.
_LEAF_SCHEMAS = st.sampled_from(
    [
        {}, {"type": "integer"}, {"type": "string", "maxLength": 3}, {"type": "boolean"}, {"enum": ["a", 1, None]},
        {"const": "é"}, {"type": "number", "minimum": 0, "maximum": 9}, {"type": "string", "pattern": "[ab]+"},
        {"type": "nothing"}, {"$ref": "#/nope"}, {"type": "string", "format": "date"}, {"not": {}}, {"enum": []},
    ]
)  # fmt: skip
_SCHEMAS = st.recursive(
    _LEAF_SCHEMAS,
    lambda inner: (
        st.dictionaries(st.sampled_from(["a", "b", "é"]), inner, max_size=2).map(
            lambda found: {"type": "object", "properties": found, "required": sorted(found), "additionalProperties": False}
        )
        | inner.map(lambda one: {"type": "array", "items": one, "maxItems": 2})
        | st.lists(inner, min_size=1, max_size=2).map(lambda some: {"anyOf": some})
    ),
    max_leaves=4,
)
_REGEXES = st.sampled_from(["[ab]{1,4}", "yes|no", "\\d+", "", "(", "[^\\x00-\\x7f]", "a*", "(?=a)b", "[b-a]", "x{9999}"])
_GRAMMARS = st.sampled_from(
    ['start: "a" | "b"', 'root ::= "x" [0-9]+', "start: /[a-z]+/", "start: start", "nonsense", 'start: "a" nope', ""]
)
_CHOICES = st.lists(st.sampled_from(["yes", "no", "é😀", "", "a" * 40]), max_size=3)
GUIDES_OF_OPENAI = st.one_of(
    st.sampled_from([{"type": "json_object"}, {"type": "text"}, {"type": "json_schema"}, {}]),
    st.tuples(_SCHEMAS | JSON, st.booleans()).map(
        lambda found: {"type": "json_schema", "json_schema": {"schema": found[0], "strict": found[1]}}
    ),
    _REGEXES.map(lambda found: {"type": "regex", "regex": found}),
    _GRAMMARS.map(lambda found: {"type": "grammar", "grammar": found}),
    _CHOICES.map(lambda found: {"type": "choice", "choice": found}),
)
_GUIDES_OF_VLLM: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"json": _SCHEMAS | JSON}),
    st.fixed_dictionaries({"regex": _REGEXES}),
    st.fixed_dictionaries({"grammar": _GRAMMARS}),
    st.fixed_dictionaries({"choice": _CHOICES}),
    st.sampled_from([{"json_object": True}, {"json_object": False}, {}, {"regex": "a", "choice": ["b"]}]),
)
_PAIRS_OF_TENSORRT_LLM = st.one_of(
    st.just(("json", "")),
    st.tuples(st.just("json_schema"), _SCHEMAS.map(json.dumps)),
    st.tuples(st.just("regex"), _REGEXES),
    st.tuples(st.just("ebnf_grammar"), _GRAMMARS),
    st.tuples(st.just("structural_tag"), TEXTS),
)
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"enum": [1]}}}}}
_CHOSEN_TOOL = st.sampled_from(["auto", "none", "required", '{"type": "function", "function": {"name": "f"}}', "nope"])

_BIAS = st.dictionaries(st.integers(-2, 400).map(str), st.floats(-200, 200), max_size=3)
_SAMPLING = st.dictionaries(
    st.sampled_from(["temperature", "top_k", "top_p", "max_tokens", "stop", "seed", "logprobs", "n", "best_of", "nonsense"]),
    JSON,
    max_size=4,
)
_STRINGS = st.one_of(
    TEXTS,
    MESSAGES.map(json.dumps),
    _BIAS.map(json.dumps),
    _SAMPLING.map(json.dumps),
    JSON.map(json.dumps),
    st.sampled_from(["{}", "{}", "y" * 300_000]),
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
_GUIDES_OF_GENERATE = st.one_of(
    st.tuples(st.just("regex"), _REGEXES),
    st.tuples(st.just("grammar"), _GRAMMARS),
    st.tuples(st.just("json_schema"), _SCHEMAS.map(json.dumps)),
)
# What an answer can be made of, by the name of the input: these get far into the server.
_OPTIONS = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 6)},
    optional={
        "temperature": st.floats(0, 2), "top_k": st.integers(0, 400), "top_p": st.floats(0, 1),
        "seed": st.integers(0, 2**64 - 1), "min_tokens": st.just(1), "logprobs": st.integers(0, 20),
        "stop": st.lists(st.text(min_size=1, max_size=3), max_size=3), "guide": _GUIDES_OF_GENERATE,
        "ignore_eos": st.booleans(), "logit_bias": st.lists(st.tuples(st.integers(0, 300), st.floats(-100, 100)), max_size=3),
    },
)  # fmt: skip
_FORMS = st.fixed_dictionaries(
    {"stream": st.sampled_from([True, True, True, False])},
    optional={"n": st.integers(1, 3), "best_of": st.integers(1, 4)}
    | {name: st.booleans() for name in ("vllm", "batched", "timed", "separate_reasoning", "thinking_open")},
)
_SAMPLING_OF_VLLM = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 6) | st.integers(1, 6).map(str)},
    optional={
        "temperature": st.floats(0, 2) | st.sampled_from(["0", "0.7"]), "top_k": st.integers(-1, 400), "top_p": st.floats(0, 1),
        "min_p": st.floats(0, 1), "seed": st.integers(0, 2**64 - 1), "min_tokens": st.just(1), "ignore_eos": st.booleans(),
        "logprobs": st.integers(0, 20), "n": st.integers(1, 3) | st.just("2"), "best_of": st.integers(2, 4),
        "stop": st.text(min_size=1, max_size=3) | st.lists(st.text(max_size=3), max_size=3),
        "stop_token_ids": st.lists(st.integers(0, 300), max_size=3), "bad_words": st.lists(st.text(max_size=4), max_size=2),
        "logit_bias": st.dictionaries(st.integers(0, 300).map(str), st.floats(-100, 100), max_size=3),
        "presence_penalty": st.floats(-2, 2), "repetition_penalty": st.floats(0.5, 2),
        "guided_decoding": _GUIDES_OF_VLLM, "structured_outputs": _GUIDES_OF_VLLM, "response_format": GUIDES_OF_OPENAI,
        "skip_special_tokens": st.just(True), "use_beam_search": st.just(False), "thinking_budget": st.integers(0, 8),
    },
).flatmap(lambda found: st.sets(st.sampled_from(sorted(found)), max_size=5).map(
    lambda some: {name: value for name, value in found.items() if name in some | {"max_tokens"}}
))  # fmt: skip
_TURNS = st.lists(st.sampled_from(["user", "assistant", "system"]), min_size=1, max_size=4).flatmap(
    lambda roles: st.tuples(*(st.fixed_dictionaries({"role": st.just(role), "content": TEXTS}) for role in roles))
)
SOUND: dict[str, st.SearchStrategy[Any]] = {
    "text_input": TEXTS.filter(bool),
    "messages": _TURNS.map(json.dumps),
    "options": st.tuples(_OPTIONS, _FORMS).map(lambda found: json.dumps({"params": found[0], **found[1]})),
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
    "return_cumulative_logprob": st.booleans(),
    "return_finish_reason": st.booleans(),
    "return_stop_reason": st.booleans(),
    "return_num_input_tokens": st.booleans(),
    "return_num_output_tokens": st.booleans(),
    "return_perf_metrics": st.booleans(),
    "ignore_eos": st.booleans(),
    "timeout_s": st.floats(0.25, 100, width=32),
    "stream": st.booleans(),
    "exclude_input_in_output": st.booleans(),
    "sampling_parameters": _SAMPLING.map(json.dumps),
    "separate_reasoning": st.booleans(),
    "thinking_budget": st.integers(0, 8),
    "token_ids": st.integers(0, 300),
    "input_ids": st.integers(0, 300),
    "byte_range": st.integers(0, 3),
    "request_key": st.integers(0, 99),
}
# The LLM API's names for the same.
SOUND |= {
    f"sampling_param_{name}": SOUND[name]
    for name in ("temperature", "top_k", "top_p", "frequency_penalty", "presence_penalty", "seed")
}
SOUND |= {
    "streaming": st.booleans(),
    "sampling_param_stop": SOUND["stop_words"],
    "sampling_param_exclude_input_from_output": st.booleans(),
    "sampling_param_return_perf_metrics": st.booleans(),
}
VLLM_SOUND = {"sampling_parameters": _SAMPLING_OF_VLLM.map(json.dumps)}  # there it is what all options are in
# What says something only in company, by the inputs' names: groups of answers, structured output, tools, a signal to stop.
TOGETHER: list[st.SearchStrategy[dict[str, Any]]] = [
    st.fixed_dictionaries({"n": st.integers(1, 3)}),
    st.fixed_dictionaries({"num_return_sequences": st.integers(0, 3)}),
    st.fixed_dictionaries({"n": st.integers(1, 2), "best_of": st.integers(1, 4)}),
    st.fixed_dictionaries({"sampling_param_best_of": st.integers(1, 4)}),
    st.fixed_dictionaries({"response_format": GUIDES_OF_OPENAI.map(json.dumps)}),
    _PAIRS_OF_TENSORRT_LLM.map(lambda pair: {"guided_decoding_guide_type": pair[0], "guided_decoding_guide": pair[1]}),
    st.tuples(_PAIRS_OF_TENSORRT_LLM, st.integers(2, 3)).map(
        lambda found: {"guided_decoding_guide_type": found[0][0], "guided_decoding_guide": found[0][1], "n": found[1]}
    ),
    st.fixed_dictionaries({"messages": SOUND["messages"], "tools": st.just(json.dumps([_TOOL])), "tool_choice": _CHOSEN_TOOL}),
    st.fixed_dictionaries({"messages": SOUND["messages"], "thinking_budget": st.integers(0, 8), "n": st.integers(1, 2)}),
    st.fixed_dictionaries({"embedding_bias_words": TEXTS, "embedding_bias_weights": st.floats(-100, 100, width=32)}),
    st.fixed_dictionaries({"input_ids": SOUND["input_ids"], "request_output_len": st.integers(0, 4), "stop": st.booleans()}),
]
# Of the other half of the tensors, what is neither nonsense nor likely to be right.
NAMED = {
    "response_format": GUIDES_OF_OPENAI.map(json.dumps),
    "guided_decoding_guide_type": st.sampled_from(["json", "json_schema", "regex", "ebnf_grammar", ""]),
    "guided_decoding_guide": _REGEXES | _GRAMMARS | _SCHEMAS.map(json.dumps),
    "tools": st.just(json.dumps([_TOOL])) | JSON.map(json.dumps),
    "tool_choice": _CHOSEN_TOOL,
}
