"""The table of names holds together, and whoever has fields of his own has those it promises.

Run: pytest tests/runtime/test_declared.py
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triune_client import Options as ClientOptions
from triune_gateway.endpoints.chat import ChatRequest
from triune_gateway.endpoints.completions import CompletionRequest
from triune_runtime.contracts.models import ENSEMBLES
from triune_runtime.contracts.outputs import OUTPUTS
from triune_runtime.errors import RequestError
from triune_runtime.manifest import SamplingDefaults
from triune_runtime.options.declared import FIELDS, GUIDE_PAIR, NAMES, OPTIONS, SECTIONS, TOKEN_INPUTS
from triune_runtime.options.parsing import parse
from triune_runtime.options.rows import Alias, Elsewhere, Name, Only, Option, Prescribes, Refused
from triune_runtime.options.values import Biases, Flag, Many, Reader, Real, Text, Whole
from triune_runtime.options.wire import Options
from triune_runtime.request import SamplingParams

VOCAB = 1000
SCALARS = [row for row in OPTIONS.values() if not isinstance(row.reader, (Many, Biases, Text))]
REFUSED = [row.name for row in NAMES.values() if isinstance(row, Refused)]
ONLY = [row for row in NAMES.values() if isinstance(row, Only)]


def read(inputs: dict[str, list[Any]]) -> Options:
    return parse(
        inputs, defaults=SamplingDefaults(), encode_word=lambda word: list(word.encode()), fallback_seed=1, vocab_size=VOCAB
    )


def values_of(reader: Reader) -> st.SearchStrategy[Any]:
    """What a client may send for a reader; lists as the elements of a tensor."""
    if isinstance(reader, Real):
        return st.floats(reader.low, reader.high)
    if isinstance(reader, Whole):
        return st.integers(reader.low, min(reader.high, 2**64 - 1))
    if isinstance(reader, Flag):
        return st.booleans()
    if isinstance(reader, Many):
        return st.lists(values_of(reader.each), min_size=1, max_size=3)
    if isinstance(reader, Biases):
        biases = st.dictionaries(st.integers(0, VOCAB - 1).map(str), st.floats(-1000, 1000), min_size=1, max_size=3)
        return biases.map(json.dumps)
    assert isinstance(reader, Text)
    return st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Inputs that do not contradict each other."""
    names = draw(st.lists(st.sampled_from([name for name in OPTIONS if name not in GUIDE_PAIR]), max_size=8, unique=True))
    sent = {name: draw(values_of(OPTIONS[name].reader)) for name in names}
    if "end_id" in sent:
        sent["end_id"] %= VOCAB
    if "stop_token_ids" in sent:
        sent["stop_token_ids"] = [token % VOCAB for token in sent["stop_token_ids"]]
    if "embedding_bias_words" in sent:
        words = [word for word in sent["embedding_bias_words"] if word]
        sent |= {"embedding_bias_words": words, "embedding_bias_weights": [1.5] * len(words)}
    if "best_of" in sent:
        sent["best_of"] = max(sent["best_of"], sent.get("n", 1))
        sent.pop("stream", None)
    if "min_tokens" in sent and "max_tokens" in sent:
        sent["min_tokens"] = min(sent["min_tokens"], sent["max_tokens"])
    if "stream" in sent or "separate_reasoning" in sent:
        sent.pop("exclude_input_in_output", None)
    if "num_draft_tokens" in sent:
        sent.pop("speculation", None)
    return {name: value if isinstance(value, list) else [value] for name, value in sent.items()}


@settings(max_examples=400, deadline=None)
@given(requests())
def test_tensors_become_options_that_json_brings_back_unchanged(inputs: dict[str, list[Any]]) -> None:
    options = read(inputs)
    assert Options.from_json(options.to_json()) == options


@pytest.mark.parametrize("row", [row for row in SCALARS if row.sets is not None], ids=lambda row: row.name)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_an_option_sets_its_field_to_what_its_reader_gives(row: Option, data: st.DataObject) -> None:
    assert row.sets is not None
    value = data.draw(values_of(row.reader))
    options = read({row.name: [value]})
    expected = 1.0 if row.name == "top_p" and value == 0 else row.reader.read(row.name, value)
    assert getattr(options.params if row.sampling else options, row.sets) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_declared_refused_is_refused_by_name(name: str) -> None:
    for inputs in ({name: [1]}, {"sampling_parameters": [json.dumps({name: 1})]}):
        with pytest.raises(RequestError, match=f"^{name} is not served"):
            read(inputs)


@pytest.mark.parametrize("row", ONLY, ids=lambda row: row.name)
def test_what_is_served_with_some_values_only_is_refused_with_others_by_name(row: Only) -> None:
    for value in row.allowed:
        read({row.name: [value]})
    with pytest.raises(RequestError, match=f"^{row.name} is 7; only "):
        read({row.name: [7]})


def outside(reader: Reader) -> list[Any]:
    """What a reader of single values must refuse."""
    wrong: list[Any] = ["maybe", {"a": 1}, 2**70, float("nan")]
    return wrong if isinstance(reader, Flag) else [*wrong, reader.low - 1, reader.high + 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "wrong"), [(row.name, wrong) for row in SCALARS for wrong in outside(row.reader)])
def test_a_value_that_an_option_does_not_take_is_refused_by_name(name: str, wrong: Any) -> None:
    for inputs in ({name: [wrong]}, {name: [1, 1]}):
        with pytest.raises(RequestError, match=f"^{name} is "):
            read(inputs)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("sent", ["1", "true", 1, True, 0.5, -5, 2**70, [], [["a"]], {}, None, "a"])
def test_a_value_that_travels_is_of_its_very_type_or_refused_by_name(name: str, sent: Any) -> None:
    field = FIELDS[name]
    refused = ""
    try:
        options = Options.from_json(json.dumps({"params": {name: sent}} if field.sampling else {name: sent}))
    except RequestError as error:
        refused = str(error)
    if refused:
        assert name in refused
        return
    found = getattr(options.params if field.sampling else options, name)
    kinds = {field.reader.annotation.partition("[")[0]} | ({"NoneType"} if field.default is None else set())
    assert type(found).__name__ in kinds, f"{name} is {found!r}"


def test_a_value_that_only_clients_may_send_is_refused_where_it_travels() -> None:
    for name, sent in {"top_k": -1, "n": 0, "timeout_s": -1}.items():
        text = json.dumps({"params": {name: sent}} if FIELDS[name].sampling else {name: sent})
        with pytest.raises(RequestError, match=f"^{name} is {sent}"):
            Options.from_json(text)


def test_every_name_is_declared_once_and_every_alias_stands_for_an_option() -> None:
    assert len(NAMES) == sum(len(rows) for rows in SECTIONS.values())
    for row in NAMES.values():
        if isinstance(row, Alias):
            assert row.of in OPTIONS, row.name
            assert not row.tensor or not OPTIONS[row.of].tensor or row.tensor == OPTIONS[row.of].tensor, row.name
            assert not row.tensor or row.dims == OPTIONS[row.of].dims, row.name
    assert {row.name for row in NAMES.values() if row.rows_only} == TOKEN_INPUTS


def test_every_row_is_of_a_kind_that_parsing_knows() -> None:
    kinds = (Option, Alias, Prescribes, Only, Refused, Elsewhere)
    assert all(isinstance(row, kinds) and type(row) is not Name for row in NAMES.values())


def test_the_fields_of_the_params_and_the_options_are_those_declared() -> None:
    for holder, sampling in ((SamplingParams, True), (Options, False)):
        declared = {name: field.default for name, field in FIELDS.items() if field.sampling == sampling}
        assert {f.name: f.default for f in dataclasses.fields(holder) if f.name != "params"} == declared


def test_our_client_has_the_options_that_are_declared_its() -> None:
    has = {field.name for field in dataclasses.fields(ClientOptions)}
    promised = {(row.sets or row.name) if isinstance(row, Option) else row.name for row in NAMES.values() if row.client}
    assert promised <= has
    made_json = {"chat_template_kwargs", "logit_bias", "response_format", "tools", "tool_choice"}
    assert has - promised == made_json, "made into JSON by the client"


def test_the_openai_compatible_api_has_the_fields_that_are_declared_its() -> None:
    has = {*ChatRequest.model_fields, *CompletionRequest.model_fields}
    promised = {row.name for row in NAMES.values() if row.openai}
    assert promised <= has
    unserved = {name for name, row in NAMES.items() if isinstance(row, Option) and name in has} - promised
    assert unserved == {"best_of"}, "fields that the table does not know of"


def test_a_response_field_is_an_output_of_every_ensemble_that_has_all() -> None:
    shown = {name for name, output in OUTPUTS.items() if not output.inner}
    whole = [set(ensemble.given()) for ensemble in ENSEMBLES if ensemble.outputs is None]
    assert whole and all(given == shown for given in whole)
