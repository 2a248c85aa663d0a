"""Requests that a server must refuse, each with the status and the reason it must give."""

from __future__ import annotations

import json
from typing import Any

GENERATE = "/v2/models/triune/generate"
GOOD = {"text_input": "The capital of France is", "max_tokens": 2}
SERVER_ERROR = (400, 500)  # Triton 2.51 answers 500 where it cannot read the JSON, newer ones 400


def with_good(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields).encode()


def chat(messages: str) -> bytes:
    return json.dumps({"messages": messages, "max_tokens": 2}).encode()


# name: (body, statuses, what the error says)
OVER_HTTP: dict[str, tuple[bytes, tuple[int, ...], str]] = {
    # no JSON, or not ours
    "empty body": (b"", SERVER_ERROR, "document is empty"),
    "no JSON": (b"hello", SERVER_ERROR, "Invalid value"),
    "half a JSON": (b'{"text_input": "a"', SERVER_ERROR, "Missing a comma"),
    "a JSON list": (b"[1]", SERVER_ERROR, "non-object"),
    "deep JSON": (b'{"text_input":' + b"[" * 100_000, SERVER_ERROR, "parse"),
    "an input twice": (b'{"text_input":"a","text_input":"b"}', (400,), "already exists"),
    "parameters are a list": (with_good(parameters=[1]), SERVER_ERROR, "parameters"),
    "a nested parameter": (with_good(parameters={"a": {"b": 1}}), (400,), "invalid type"),
    "an id that is a number": (with_good(id=3), SERVER_ERROR, "'id'"),
    "an unknown input": (with_good(temprature=1.0), (400,), "temprature is 1.0; no such parameter"),
    "an unknown parameter": (with_good(parameters={"nope": 1}), (400,), "nope is 1; no such parameter"),
    # the prompt
    "nothing": (b"{}", (400,), "needs text_input or messages; this one has neither"),
    "text and messages": (with_good(messages="[]"), (400,), "this one has both"),
    "empty text": (with_good(text_input=""), (400,), "the prompt has no tokens"),
    "text is a number": (with_good(text_input=7), SERVER_ERROR, "non-string"),
    "text is null": (with_good(text_input=None), SERVER_ERROR, "non-string"),
    "two texts": (with_good(text_input=["a", "b"]), (400,), "proper shape"),
    "text is no UTF-8": (b'{"text_input":"a\xff\xfe"}', (400,), "text_input is not valid UTF-8"),
    "a text of 1 MB": (with_good(text_input="a" * 1_000_000), (400,), "has 1,000,000 bytes"),
    "prompt and answer beyond the context": (
        with_good(text_input="a b c d " * 100, max_tokens=8000),
        (400,),
        "prompt has 401 tokens and max_tokens is 8,000, but this engine holds",
    ),
    "half a surrogate pair": (b'{"text_input":"\\ud800"}', SERVER_ERROR, "surrogate"),
    "a prompt beyond the context": (with_good(text_input="a b c d " * 5_000), (400,), "this engine holds"),
    "a prompt of 5 MB": (with_good(text_input="a" * 5_000_000), (400,), "has 5,000,000 bytes"),
    # chat
    "messages are no JSON": (chat("hi"), (400,), "messages is not JSON"),
    "messages are an object": (chat("{}"), (400,), "a list of at least one message"),
    "no message": (chat("[]"), (400,), "a list of at least one message"),
    "a message without role": (chat('[{"content": "x"}]'), (400,), "messages[0] has role null"),
    "a message without content": (chat('[{"role": "user"}]'), (400,), "messages[0] has content null"),
    "a picture": (chat('[{"role": "user", "content": [{"type": "image_url"}]}]'), (400,), "only parts of type text"),
    "deep messages": (chat("[" * 100_000), (400,), "nested too deeply"),
    "messages are no UTF-8": (b'{"messages":"[\xff]"}', (400,), "messages is not valid UTF-8"),
    "half a surrogate pair in a message": (
        chat('[{"role": "user", "content": "\\ud800"}]'),
        (400,),
        "messages is not valid UTF-8",
    ),
    "a role that is a number": (chat('[{"role": 1, "content": "x"}]'), (400,), "messages[0] has role 1"),
    "a message that is a text": (chat('["hi"]'), (400,), "messages[0] must be an object"),
    "too many messages": (chat(json.dumps([{"role": "user", "content": "a"}] * 5_000)), (400,), "this engine holds"),
    "messages not as text": (b'{"messages": [{"role": "user", "content": "x"}]}', SERVER_ERROR, "non-string"),
    # numbers
    "temperature NaN": (b'{"text_input":"a","temperature":NaN}', (400,), "temperature is nan"),
    "temperature infinite": (b'{"text_input":"a","temperature":1e999}', SERVER_ERROR, "too big"),
    "temperature negative": (with_good(temperature=-1), (400,), "temperature is -1"),
    "temperature a text": (with_good(temperature="hot"), SERVER_ERROR, "non-number"),
    "max_tokens 0": (with_good(max_tokens=0), (400,), "max_tokens is 0"),
    "max_tokens negative": (with_good(max_tokens=-1), (400,), "max_tokens is -1"),
    "max_tokens broken": (with_good(max_tokens=1.5), SERVER_ERROR, "non-signed-integer"),
    "max_tokens beyond the context": (with_good(max_tokens=100_000), (400,), "max_tokens is 100,000"),
    "max_tokens beyond 32 bits": (with_good(max_tokens=2**31), SERVER_ERROR, "max_tokens"),
    "max_tokens twice": (with_good(max_tokens=[1, 2]), (400,), "proper shape"),
    "max_tokens empty": (with_good(max_tokens=[]), (400,), "proper shape"),
    "min_tokens negative": (with_good(min_tokens=-1), (400,), "min_tokens is -1"),
    "top_p above 1": (with_good(top_p=2), (400,), "top_p is 2"),
    "top_k negative": (with_good(top_k=-5), (400,), "top_k is -5"),
    "min_p above 1": (with_good(min_p=2), (400,), "min_p is 2"),
    "repetition_penalty 0": (with_good(repetition_penalty=0), (400,), "repetition_penalty is 0"),
    "presence_penalty huge": (with_good(presence_penalty=1e6), (400,), "presence_penalty is 1000000"),
    "frequency_penalty huge": (with_good(frequency_penalty=-1e6), (400,), "frequency_penalty is -1000000"),
    "seed negative": (with_good(seed=-1), SERVER_ERROR, "non-unsigned-integer"),
    "two seeds": (with_good(seed=1, random_seed=2), (400,), "they mean the same"),
    "timeout_s 0": (with_good(timeout_s=0), (400,), "timeout_s is 0"),
    "timeout negative": (with_good(parameters={"timeout": -1}), (400,), "timeout is -1"),
    "timeout a text": (with_good(parameters={"timeout": "x"}), (400,), "timeout is 'x'"),
    "top_logprobs 100": (with_good(top_logprobs=100), (400,), "top_logprobs is 100"),
    "top_logprobs 21": (with_good(top_logprobs=21), (400,), "top_logprobs is 21; a whole number from 0 to 20"),
    "end_id negative": (with_good(end_id=-7), (400,), "end_id is -7"),
    "timeout huge": (with_good(parameters={"timeout": 2**62}), (400,), "timeout is 4611686018427387904"),
    "stream a text": (with_good(stream="yes"), SERVER_ERROR, "non-boolean"),
    # lists and JSON inside JSON
    "a stop that is a number": (with_good(stop=[1]), SERVER_ERROR, "non-string"),
    "a stop that is no UTF-8": (b'{"text_input":"a","stop":["\xff"]}', (400,), "stop is not valid UTF-8"),
    "a stop of half a surrogate pair": (
        with_good(sampling_parameters='{"stop": ["\\ud800"]}'),
        (400,),
        "stop is not valid UTF-8",
    ),
    "a bad word of half a surrogate pair": (
        with_good(sampling_parameters='{"bad_words": ["\\ud800"]}'),
        (400,),
        "bad_words is not valid UTF-8",
    ),
    "a parameter that is no UTF-8": (b'{"text_input":"a","parameters":{"x":"\xff"}}', (400,), "not valid UTF-8"),
    "an id that is no UTF-8": (b'{"text_input":"a","id":"\xff"}', (400,), "not valid UTF-8"),
    "logit_bias no JSON": (with_good(logit_bias="x"), (400,), "logit_bias is not JSON"),
    "logit_bias a list": (with_good(logit_bias="[1]"), (400,), "a JSON object is expected"),
    "logit_bias of no token": (with_good(logit_bias='{"9999999": 1}'), (400,), "token id 9999999"),
    "logit_bias of the token after the last": (with_good(logit_bias='{"49152": 1}'), (400,), "token id 49152, the vocabulary"),
    "logit_bias of a negative token": (with_good(logit_bias='{"-1": 1}'), (400,), "logit_bias is '-1'"),
    "logit_bias of no number": (with_good(logit_bias='{"1": null}'), (400,), "logit_bias is None"),
    "logit_bias too large": (with_good(logit_bias='{"1": 1e9}'), (400,), "logit_bias is 1000000000"),
    "logit_bias NaN": (with_good(logit_bias='{"1": NaN}'), (400,), "logit_bias is nan"),
    "weights without words": (with_good(embedding_bias_words=["a"]), (400,), "one a word"),
    "sampling_parameters no JSON": (with_good(sampling_parameters="{"), (400,), "sampling_parameters is not JSON"),
    "sampling_parameters unknown": (with_good(sampling_parameters='{"nope": 1}'), (400,), "nope is 1"),
    "sampling_parameters wrong": (with_good(sampling_parameters='{"temperature": "hot"}'), (400,), "temperature is 'hot'"),
    "sampling_parameters a list": (with_good(sampling_parameters="[1]"), (400,), "a JSON object is expected"),
    "a number of 400 digits": (
        with_good(sampling_parameters='{"temperature": 1' + "0" * 400 + "}"),
        (400,),
        "temperature is 1000",
    ),
    "a number of 5,000 digits": (with_good(sampling_parameters='{"top_k": 1' + "0" * 5000 + "}"), (400,), "not JSON"),
    "deep sampling_parameters": (with_good(sampling_parameters='{"a":' * 100_000), (400,), "nested too deeply"),
    # not served
    "beams": (with_good(beam_width=4), (400,), "beam_width is 4; only 0 or 1"),
    "many answers": (with_good(num_return_sequences=100), (400,), "100 sequences are asked for"),
    "a length penalty": (with_good(length_penalty=2.0), (400,), "length_penalty is 2"),
    "LoRA": (with_good(lora_task_id=1), (400,), "lora_task_id is not served"),
    "a decoder's text": (with_good(decoder_text_input="x"), (400,), "decoder_text_input is not served"),
    "pictures": (with_good(image=["x"]), (400,), "image is not served"),
    "logits": (with_good(return_context_logits=True), (400,), "return_context_logits"),
    "an echo in a stream": (with_good(stream=True, exclude_input_in_output=False), (400,), "a stream carries the answer only"),
    "LoRA by name": (with_good(sampling_parameters='{"lora_name": "x"}'), (400,), "lora_name is not served"),
    "LoRA's table": (with_good(lora_config=[1, 2, 3]), (400,), "lora_config is not served"),
    "a cancel of nothing": (b'{"cancel": true}', (400,), "no id"),
}
