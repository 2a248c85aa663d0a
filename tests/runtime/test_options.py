"""Every name that clients send sets what it should, and what is not served is refused.

Run: pytest tests/runtime/test_options.py
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triune_runtime.errors import RequestError
from triune_runtime.manifest import SamplingDefaults
from triune_runtime.options.parsing import parse
from triune_runtime.options.wire import Options

NOTHING = SamplingDefaults()
R1 = SamplingDefaults(temperature=0.6, top_p=0.95)


def read(defaults: SamplingDefaults = NOTHING, parameters: dict[str, Any] | None = None, **inputs: Any) -> Options:
    lists = {name: value if isinstance(value, list) else [value] for name, value in inputs.items()}
    return parse(
        lists,
        defaults=defaults,
        encode_word=lambda w: list(w.encode()),
        fallback_seed=99,
        vocab_size=1000,
        parameters=parameters,
    )


def sampling(**values: Any) -> list[str]:
    return [json.dumps(values)]


@pytest.mark.parametrize(
    ("inputs", "field", "expected"),
    [
        ({}, "temperature", 0.0),
        ({}, "seed", 99),
        ({}, "max_tokens", None),
        ({"max_tokens": 5}, "max_tokens", 5),
        ({"min_length": 3}, "min_tokens", 3),
        ({"min_tokens": 3, "min_length": 3}, "min_tokens", 3),
        ({"random_seed": 2**64 - 1}, "seed", 2**64 - 1),
        ({"temperature": 0.0}, "temperature", 0.0),
        ({"top_p": 0.9}, "temperature", 1.0),  # asks for randomness without a temperature
        ({"top_k": 40}, "temperature", 1.0),
        ({"top_p": 0.0, "top_k": 1, "temperature": 1.0}, "temperature", 0.0),  # old clients' greedy
        ({"top_p": 0.0}, "top_p", 1.0),
        ({"top_k": 0}, "top_k", 0),
        ({"top_k": -1}, "top_k", 0),
        ({"stop_words": [b""]}, "stop", ()),
        ({"bad_words": [b""]}, "bad_words", ()),
        ({"stop": [b"a", "b"]}, "stop", ("a", "b")),
        ({"stop_words": ["中"]}, "stop", ("中",)),
        ({"bad_words": ["ab"]}, "bad_words", ((97, 98),)),
        ({"end_id": 7}, "stop_token_ids", (7,)),
        ({"end_id": -1}, "stop_token_ids", ()),
        ({"logit_bias": '{"5": -2.5}'}, "logit_bias", ((5, -2.5),)),
        ({"embedding_bias_words": ["a"], "embedding_bias_weights": [2.0]}, "logit_bias", ((97, 2.0),)),
        ({"return_log_probs": True}, "logprobs", 0),
        ({"top_logprobs": 4, "return_log_probs": True}, "logprobs", 4),
        ({"beam_width": 1, "length_penalty": 1.0, "num_return_sequences": 1}, "temperature", 0.0),
        ({"sampling_parameters": sampling(max_tokens="100", temperature="0.5")}, "max_tokens", 100),  # numbers as strings
        ({"sampling_parameters": sampling(max_tokens="100", temperature="0.5")}, "temperature", 0.5),
        ({"sampling_parameters": sampling(stop="x", n=1, best_of=None)}, "stop", ("x",)),
        ({"sampling_parameters": sampling(logit_bias={"3": 1})}, "logit_bias", ((3, 1.0),)),
        ({"sampling_parameters": [""]}, "temperature", 0.0),
        ({"max_tokens": 5, "sampling_parameters": sampling(max_tokens=9)}, "max_tokens", 5),  # the tensor is nearer
    ],
)
def test_a_name_sets_its_field(inputs: dict[str, Any], field: str, expected: Any) -> None:
    assert getattr(read(**inputs).params, field) == expected


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, (1, 1)),
        ({"num_return_sequences": 0}, (1, 1)),
        ({"num_return_sequences": 3}, (3, 3)),
        ({"sampling_parameters": sampling(n="2", best_of="5")}, (2, 5)),
        ({"best_of": 4}, (1, 4)),
        ({"n": 2, "stream": True}, (2, 2)),
    ],
)
def test_as_many_answers_are_made_and_given_as_are_asked_for(inputs: dict[str, Any], expected: tuple[int, int]) -> None:
    options = read(**inputs)
    assert (options.n, options.best_of) == expected
    assert (options.params.logprobs is not None) == (expected[0] < expected[1])  # how the best are told
    assert Options.from_json(options.to_json()) == options


def test_a_request_to_stop_another_may_carry_token_ids() -> None:
    sent: dict[str, Any] = {"input_ids": [1, 2], "input_lengths": 2, "request_output_len": 5}
    assert read(stop_request=True, parameters={"Streaming": True}, **sent).cancel  # as llama-index sends it
    with pytest.raises(RequestError, match="parameter Streaming is True"):
        read(parameters={"Streaming": True})


def test_what_is_as_large_as_may_be_is_read() -> None:
    params = read(stop=["x" * 256] * 64, bad_words=["y" * 256] * 1024, end_id=999, min_tokens=5, max_tokens=5).params
    assert (len(params.stop), len(params.bad_words), params.stop_token_ids, params.min_tokens) == (64, 1024, (999,), 5)


def test_thinking_is_asked_for_in_tensors_and_in_json() -> None:
    assert read(enable_thinking=False).enable_thinking is False
    assert read().enable_thinking is None
    options = read(sampling_parameters=sampling(enable_thinking=True, thinking_budget="64", separate_reasoning=True))
    assert (options.enable_thinking, options.params.thinking_budget, options.separate_reasoning) == (True, 64, True)


def test_the_publishers_defaults_hold_until_the_request_says_otherwise() -> None:
    assert (read(R1).params.temperature, read(R1).params.top_p) == (0.6, 0.95)
    assert read(R1, temperature=0.0).params.temperature == 0.0
    assert read(R1, top_k=1).params.temperature == 0.0


def test_several_answers_differ_unless_the_client_or_the_publisher_says_greedy() -> None:
    assert read(n=2).params.temperature == 1.0 and read(best_of=2).params.temperature == 1.0
    assert read(n=1).params.temperature == 0.0 and read(n=2, temperature=0.0).params.temperature == 0.0
    assert read(R1, n=2).params.temperature == 0.6 and read(n=2, top_k=1).params.temperature == 0.0


def test_the_publishers_min_p_is_used_where_the_client_says_none() -> None:
    publisher = SamplingDefaults(temperature=0.6, min_p=0.05)
    assert read(publisher).params.min_p == 0.05 and read(publisher, min_p=0.0).params.min_p == 0.0
    assert read(publisher, min_p=0.2).params.min_p == 0.2 and read().params.min_p == 0.0


def test_a_salt_is_said_as_a_tensor_in_json_or_as_a_parameter_and_an_empty_one_is_none() -> None:
    assert read(cache_salt="a").cache_salt == read(sampling_parameters=sampling(cache_salt="a")).cache_salt == "a"
    assert read(parameters={"cache_salt": "a"}).cache_salt == "a" and read().cache_salt == ""
    in_json = {"sampling_parameters": sampling(cache_salt="")}
    for asked in ({"cache_salt": ""}, {"cache_salt": b""}, in_json, {"cache_salt": "x" * 1025}):
        with pytest.raises(RequestError, match="cache_salt is '"):
            read(**asked)
    with pytest.raises(RequestError, match="cache_salt is ''"):
        Options.from_json('{"cache_salt": ""}')


def test_request_parameters_count_where_no_tensor_of_their_name_does() -> None:
    assert read(parameters={"max_tokens": 7}).params.max_tokens == 7
    assert read(parameters={"max_tokens": 7}, max_tokens=5).params.max_tokens == 5
    assert read(parameters={"id": "x", "triton_final": True, "priority": 3, "timeout": 5}).request_id == "x"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"top_p": 7.0}, "top_p is 7.0"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": [1, 2]}, r"max_tokens is \[1, 2\]"),
        ({"min_tokens": 2, "min_length": 3}, "min_length is 3 but min_tokens is 2"),
        ({"seed": 1, "random_seed": 2}, "they mean the same"),
        (
            {"cancel": False, "stop_request": True},
            "stop is True but cancel is False; they mean the same; hint: send only stop$",
        ),
        ({"beam_width": 4}, "beam_width is 4; only 0 or 1"),
        ({"num_return_sequences": 129}, "num_return_sequences is 129"),
        ({"n": 3, "num_return_sequences": 2}, "they mean the same"),
        ({"n": 3, "best_of": 2}, "best_of is 2 but n is 3"),
        ({"best_of": 2, "stream": True}, "best_of is 2 and stream is true"),
        ({"input_ids": [1, 2]}, "input_ids is not served"),
        ({"input_ids": [1, 2], "stop_request": False}, "input_ids is not served"),
        ({"beam_width": 2}, "beam_width is 2"),
        ({"prompt_embedding_table": [[0.0]]}, "prompt_embedding_table is not served"),
        ({"image": "x"}, "image is not served"),
        ({"embedding_request": "{}"}, "embedding_request is not served"),
        ({"return_generation_logits": True}, "return_generation_logits is True"),
        ({"length_penalty": 0.5}, "length_penalty is 0.5"),
        ({"return_context_logits": True}, "return_context_logits is True"),
        ({"lora_task_id": 1}, "lora_task_id is not served"),
        ({"guided_decoding_guide": "{}"}, "guided_decoding_guide is given without guided_decoding_guide_type"),
        ({"stop": [b"\xff"]}, "stop is not valid UTF-8"),
        ({"logit_bias": "[1]"}, "logit_bias is"),
        ({"logit_bias": '{"x": 1}'}, "logit_bias is 'x'"),
        ({"embedding_bias_words": ["a", "b"], "embedding_bias_weights": [1.0]}, "2 weights are expected"),
        ({"sampling_parameters": ["{"]}, "sampling_parameters is not JSON"),
        ({"sampling_parameters": sampling(max_tokens="many")}, "max_tokens is 'many'"),
        ({"sampling_parameters": sampling(max_tokens=1.5)}, "max_tokens is 1.5"),
        ({"sampling_parameters": sampling(temprature=1)}, "temprature is 1; no such parameter"),
        ({"sampling_parameters": sampling(n=0)}, "n is 0"),
        ({"sampling_parameters": sampling(use_beam_search=True)}, "use_beam_search is True; only False"),
        ({"sampling_parameters": sampling(lora_name="x")}, "lora_name is not served"),
        ({"stream": True, "exclude_input_in_output": False}, "exclude_input_in_output is false"),
        ({"top_logprobs": 21}, "top_logprobs is 21"),
        ({"thinking_budget": -1}, "thinking_budget is -1"),
        ({"enable_thinking": "maybe"}, "enable_thinking is 'maybe'"),
        ({"end_id": 1000}, "end_id is 1000; a whole number from -1 to 999"),
        ({"sampling_parameters": sampling(stop_token_ids=[7, 1000])}, "stop_token_ids is 1000"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens is 6; at most max_tokens, which is 5"),
        ({"min_length": 6, "max_tokens": 5}, "min_length is 6; at most max_tokens, which is 5"),
        ({"stop": ["x"] * 65}, "stop has 65 entries; at most 64"),
        ({"stop_words": ["x" * 257]}, "stop is 'xxx.* at most 256 bytes"),
        ({"stop_words": ["中" * 86]}, "at most 256 bytes"),
        ({"bad_words": ["x"] * 1025}, "bad_words has 1,025 entries"),
        ({"bad_words": ["x" * 257]}, "bad_words is 'xxx"),
        ({"embedding_bias_words": ["x"] * 1025, "embedding_bias_weights": [1.0] * 1025}, "embedding_bias_words has 1,025"),
        ({"sampling_parameters": sampling(stop_token_ids=[1] * 1025)}, "stop_token_ids has 1,025 entries"),
    ],
)
def test_a_bad_value_is_refused_by_name(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read(**inputs)


def test_an_unknown_request_parameter_is_refused() -> None:
    with pytest.raises(RequestError, match="parameter temprature"):
        read(parameters={"temprature": 1})


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from(
    """
    bad_words beam_width embedding_bias_weights embedding_bias_words enable_thinking end_id logit_bias lora_weights max_tokens
    min_length odd sampling_parameters seed separate_reasoning stop stream temperature text_input thinking_budget top_k top_p
    """.split()
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(names, st.lists(values, max_size=3), max_size=5))
def test_whatever_is_sent_is_read_or_refused(inputs: dict[str, list[Any]]) -> None:
    try:
        options = read(**inputs)
    except RequestError:
        return
    assert Options.from_json(options.to_json()) == options


@settings(max_examples=200, deadline=None)
@given(st.text() | values.map(lambda v: json.dumps(v, default=str)) | st.dictionaries(names, values).map(
    lambda d: json.dumps({"params": d}, default=str)))  # fmt: skip
def test_options_sent_to_generate_directly_are_read_or_refused(text: str) -> None:
    try:
        Options.from_json(text)
    except RequestError:
        return


def test_options_cross_the_ensemble_unchanged() -> None:
    options = read(
        max_tokens=9, stop=["a", "😀"], bad_words=["xy"], logit_bias='{"4": 1.5}', seed=2**64 - 1, stream=True, timeout_s=2.5
    )
    assert Options.from_json(options.to_json()) == options


def test_drafts_are_asked_for_by_either_name_and_the_two_must_agree() -> None:
    wanted = {
        (): None, (("speculation", False),): 0, (("num_draft_tokens", 0),): 0, (("num_draft_tokens", 3),): 3,
        (("speculation", True), ("num_draft_tokens", 2)): 2, (("speculation", False), ("num_draft_tokens", 0)): 0,
    }  # fmt: skip
    for given_names, drafts in wanted.items():
        options = read(**dict(given_names))
        assert options.params.max_drafts == drafts
        assert Options.from_json(options.to_json()) == options
    assert (read(speculation=True).params.max_drafts or 0) >= 16, "as many as the engine checks"
    for both in ({"speculation": False, "num_draft_tokens": 2}, {"speculation": True, "num_draft_tokens": 0}):
        with pytest.raises(RequestError, match=r"num_draft_tokens is \d; speculation is (true|false); the two must agree"):
            read(**both)
    with pytest.raises(RequestError, match="num_draft_tokens is -1"):
        read(num_draft_tokens=-1)
