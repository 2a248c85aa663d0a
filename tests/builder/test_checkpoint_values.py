"""Token ids and recommended values in a model's folder. Run: pytest tests/builder/test_checkpoint_values.py"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, processors

from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.checkpoint.sampling import of_generation_config
from triune_builder.errors import BuildError
from triune_runtime.manifest import SamplingDefaults
from triune_runtime.options.parsing import parse

ROWS = 6  # of the embedding table
BASE = {"a": 0, "b": 1, "</s>": 2, "<s>": 3}
FILES: dict[str, Any] = {
    "config": {"model_type": "llama", "eos_token_id": 2},
    "tokenizer_config": {"eos_token": "</s>"},
}


def write(folder: Path, *, added: tuple[str, ...] = (), rows: int = ROWS, inserted: bool = False, **files: Any) -> Path:
    """A model's folder whose tokenizer has four tokens, the last two special, and `added` behind them."""
    folder.mkdir(exist_ok=True)
    for stem, value in (FILES | files).items():
        (folder / f"{stem}.json").write_text(json.dumps(value), "utf-8")
    tokenizer = Tokenizer(models.BPE(BASE, []))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("</s>", "<s>", *added)])
    if inserted:
        last = added[-1]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{last} $A", special_tokens=[(last, tokenizer.token_to_id(last))]
        )
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    save_file({"model.embed_tokens.weight": np.zeros((rows, 2), np.float32)}, folder / "model.safetensors")
    return folder


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(str(folder), cache=folder)


NO_IDS = ["2", True, 2.0, -1, ROWS, 10**30, [2, "3"], [2, None], [[2]], [2, 99], {"id": 2}, math.nan, ""]


@pytest.mark.parametrize("value", NO_IDS, ids=repr)
@pytest.mark.parametrize("stem", ["config", "generation_config"])
def test_an_end_that_is_no_token_of_the_model_is_refused_by_file_key_and_value(tmp_path: Path, stem: str, value: Any) -> None:
    folder = write(tmp_path / "m", **{stem: FILES.get(stem, {}) | {"eos_token_id": value}})
    wrong = next((v for v in value if v != 2), None) if isinstance(value, list) else value
    with pytest.raises(BuildError) as caught:
        opened(folder)
    assert f"{stem}.json has eos_token_id = {wrong!r}" in str(caught.value)
    assert f"a whole number from 0 to {ROWS - 1} is expected" in str(caught.value) and f"{stem}.json" in str(caught.value.hint)


@pytest.mark.parametrize("value", ["3", False, 3.5, -1, ROWS, [3]], ids=repr)
def test_a_beginning_that_is_no_token_of_the_model_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BuildError, match=r"config\.json has bos_token_id = "):
        opened(write(tmp_path / "m", config=FILES["config"] | {"bos_token_id": value}))


@pytest.mark.parametrize(("value", "right"), [(-1, True), (0, True), (None, True), (-2, False), (ROWS, False), ("0", False)])
def test_padding_may_be_nothing_or_a_token_of_the_model(tmp_path: Path, value: Any, right: bool) -> None:
    folder = write(tmp_path / "m", config=FILES["config"] | {"pad_token_id": value})
    if right:
        assert opened(folder).stop_token_ids == (2,)
    else:
        with pytest.raises(BuildError, match=r"config\.json has pad_token_id = "):
            opened(folder)


def ends_of_transformers(folder: Path) -> set[int]:
    """Where `generate` of transformers stops."""
    transformers = pytest.importorskip("transformers")
    if (folder / "generation_config.json").exists():
        found = transformers.GenerationConfig.from_pretrained(folder)
    else:
        found = transformers.GenerationConfig.from_model_config(transformers.AutoConfig.from_pretrained(folder))
    ends = found.eos_token_id
    return set() if ends is None else set(ends) if isinstance(ends, list) else {ends}


@pytest.mark.parametrize(
    ("config", "generation"),
    [(0, None), ([0, 1], None), (0, 1), ([0, 4], [1]), (None, [0, 1]), (4, {"temperature": 0.5}), ([], None), (None, None)],
)
def test_answers_end_where_transformers_ends_them_and_at_the_tokenizers_own_end(
    tmp_path: Path, config: Any, generation: Any
) -> None:
    more: dict[str, Any] = {} if generation is None else {
        "generation_config": generation if isinstance(generation, dict) else {"eos_token_id": generation}
    }  # fmt: skip
    folder = write(tmp_path / "m", config={"model_type": "llama", "eos_token_id": config}, **more)
    expected = ends_of_transformers(folder)
    if isinstance(generation, dict):  # there it would never end; here config.json has the say where the other says nothing
        assert expected == set()
        expected = {config}
    assert set(opened(folder).stop_token_ids) == expected | {2}


def test_a_checkpoint_that_names_no_end_says_so(tmp_path: Path) -> None:
    silent = opened(write(tmp_path / "m", config={"model_type": "llama"}, tokenizer_config={}))
    assert silent.stop_token_ids == () and any("names no token that ends an answer" in note for note in silent.notes)
    assert opened(write(tmp_path / "m")).notes == ()


def test_added_tokens_without_an_embedding_are_left_out_and_their_text_is_cut_as_any_other(tmp_path: Path) -> None:
    checkpoint = opened(write(tmp_path / "m", added=("<x>", "<y>", "ab", "ba"), rows=6))
    (note,) = checkpoint.notes
    assert "tokenizer.json has 2 added tokens without an embedding (ids 6 to 7, such as 'ab'; the embedding table has 6" in note
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    assert tokenizer.encode("ab<x>ba<y>").ids == [0, 1, 4, 1, 0, 5]


def test_embeddings_without_tokens_are_padding(tmp_path: Path) -> None:
    checkpoint = opened(write(tmp_path / "m", rows=64))
    assert checkpoint.notes == () and Tokenizer.from_str(checkpoint.tokenizer_json).get_vocab_size() == len(BASE)


def test_a_tokenizer_of_another_model_is_refused_by_its_numbers(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", rows=3)
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["added_tokens"] = raw["added_tokens"][:1]
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(BuildError, match=r"has 1 tokens without an embedding: ids 3 to 3.*the embedding table has 3 rows"):
        opened(folder)


def test_a_token_without_an_embedding_that_every_text_gets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="its post_processor puts token 6 into every text"):
        opened(write(tmp_path / "m", added=("<x>", "<y>", "<z>"), inserted=True))


def test_an_unknown_id_that_every_text_gets_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", added=("<x>",), rows=8, inserted=True)
    raw = json.loads((folder / "tokenizer.json").read_text())
    (entry,) = raw["post_processor"]["special_tokens"].values()
    entry["ids"] = [999]
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(
        BuildError, match="puts token 999 into every text by its post_processor; the embedding table has 8 rows"
    ):
        opened(folder)


def test_an_end_without_an_embedding_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", added=("<x>", "<y>", "<end>"), tokenizer_config={"eos_token": "<end>"})
    with pytest.raises(BuildError, match=r"tokenizer_config\.json has eos_token = 6; a whole number from 0 to 5"):
        opened(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "0.6"), ("temperature", -1), ("temperature", math.nan), ("temperature", math.inf), ("temperature", [1]),
        ("temperature", True), ("top_p", 1.5), ("top_p", 0), ("top_p", -0.1), ("top_k", 0.5), ("top_k", -2), ("top_k", "50"),
        ("top_k", 10**400), ("min_p", 2), ("repetition_penalty", 0), ("repetition_penalty", -1.1), ("do_sample", "false"),
        ("do_sample", 1),
    ],
)  # fmt: skip
def test_a_recommended_value_that_no_request_could_have_is_refused_by_key(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(BuildError) as caught:
        opened(write(tmp_path / "m", generation_config={key: value}))
    assert f"generation_config.json has {key} = " in str(caught.value) and "is expected" in str(caught.value)
    assert "remove the key" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, {}),
        ({"temperature": 0.6, "top_p": 0.95, "top_k": 20}, {"temperature": 0.6, "top_p": 0.95, "top_k": 20}),
        ({"do_sample": True, "temperature": 0.6, "min_p": 0.05}, {"temperature": 0.6, "min_p": 0.05}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"do_sample": True, "top_k": 50.0}, {"temperature": 1.0, "top_k": 50}),
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9, "top_k": 5, "min_p": 0.1}, {}),
        ({"do_sample": False, "repetition_penalty": 1.1, "temperature": None}, {"repetition_penalty": 1.1}),
        ({"temperature": 0, "max_new_tokens": 5, "transformers_version": "4.1"}, {"temperature": 0.0}),
    ],
)
def test_recommended_values_mean_what_do_sample_says(said: dict[str, Any], meant: dict[str, Any]) -> None:
    assert of_generation_config(said) == meant


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: st.one_of(st.none(), st.integers(-3, 200), st.floats(allow_nan=True), st.floats(0, 1), st.text(max_size=3))
            for key in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        }
        | {"do_sample": st.one_of(st.none(), st.booleans())},
    )
)
def test_what_the_build_accepts_every_client_can_use(said: dict[str, Any]) -> None:
    try:
        defaults = SamplingDefaults(**of_generation_config(said))
    except BuildError:
        return
    params = parse({}, defaults=defaults, encode_word=lambda word: [], fallback_seed=1).params
    same = {
        key: [value] for key in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        if (value := getattr(defaults, key)) is not None
    }  # fmt: skip
    sent = parse(same, defaults=SamplingDefaults(), encode_word=lambda word: [], fallback_seed=1).params
    assert dataclasses.replace(sent, temperature=params.temperature) == params
    assert params.temperature == (defaults.temperature or 0.0)
