"""Run: pytest tests/clients/test_options.py"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

import pytest

from triune_client import Client, Options
from triune_client._declared import LISTS, SCALARS
from triune_client._options import CallParams, OptionParams, Settings
from triune_client.testing import MockTransport


def test_the_keyword_form_has_the_names_and_types_of_options() -> None:
    assert typing.get_type_hints(OptionParams) == typing.get_type_hints(Options)


def test_every_option_has_a_tensor() -> None:
    assert {f.name for f in dataclasses.fields(Options)} == {
        *SCALARS,
        *LISTS,
        "chat_template_kwargs",
        "logit_bias",
        "response_format",
        "tools",
        "tool_choice",
    }


def test_calls_take_all_options_and_all_settings() -> None:
    known = {f.name for f in dataclasses.fields(Options)} | {f.name for f in dataclasses.fields(Settings)}
    assert set(typing.get_type_hints(CallParams)) == known - {"options"} | {"request_id"}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("max_tokens", "3", TypeError), ("max_tokens", True, TypeError), ("max_tokens", 2**31, ValueError),
        ("temperature", "hot", TypeError), ("temperature", math.nan, ValueError), ("top_p", math.inf, ValueError),
        ("min_p", 1e39, ValueError), ("seed", -1, ValueError), ("seed", 2**64, ValueError), ("seed", 0.5, TypeError),
        ("n", 0, ValueError), ("n", True, TypeError), ("cache_salt", "", ValueError), ("cache_salt", 7, TypeError),
        ("ignore_eos", 1, TypeError), ("stop", [1], TypeError), ("bad_words", [b"a"], TypeError),
        ("logit_bias", {"7": 1.0}, TypeError), ("logit_bias", {7: math.nan}, ValueError),
        ("timeout_s", 0, ValueError), ("deadline_s", -1.0, ValueError), ("max_retries", -1, ValueError),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name_and_nothing_is_sent(name: str, value: Any, error: type[Exception]) -> None:
    transport = MockTransport("no")
    with pytest.raises(error, match=name):
        Client(transport=transport).stream("hi", **{name: value})
    assert transport.requests == []


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match=r"unknown option 'max_token'; did you mean 'max_tokens'"):
        Client(transport=MockTransport("")).generate("hi", max_token=3)


def test_a_lone_string_is_a_list_of_one() -> None:
    assert Options(stop="END").stop == ("END",)
    assert Options(stop=["a", "b"]).stop == ("a", "b")


def test_an_option_of_the_call_replaces_the_clients() -> None:
    transport = MockTransport("ok")
    client = Client(transport=transport, options=Options(temperature=0.5, seed=1))
    client.generate("hi", temperature=0.25)
    client.generate("hi", seed=None)
    assert (transport.requests[0]["temperature"], transport.requests[0]["seed"]) == (0.25, 1)
    assert "seed" not in transport.requests[1]


def test_with_options_leaves_the_original_as_it_was() -> None:
    transport = MockTransport("ok", model="other")
    client = Client(transport=transport)
    derived = client.with_options(max_tokens=7, timeout_s=3.0, model="other")
    assert (derived.settings.timeout_s, client.settings.timeout_s) == (3.0, 120.0)
    derived.close()  # closes nothing: the connections are the original's
    derived.generate("hi")
    assert transport.requests[0]["max_tokens"] == 7
    assert client.settings.options == Options()
