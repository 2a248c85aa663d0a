"""Hugging Face folders. Run: pytest tests/builder/test_checkpoint_folder.py"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file
from tokenizers import AddedToken, Tokenizer, models

from triune_builder.checkpoint import open_checkpoint
from triune_builder.checkpoint.safetensors_files import read_file
from triune_builder.errors import BuildError

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([1.5, -2.0], np.float16)
INDEX = "model.safetensors.index.json"
TWO_TEMPLATES = b'{"chat_template": [{"name": "x", "template": ""}, {"name": "y", "template": ""}]}'


def tokenizer_text() -> str:
    tokenizer = Tokenizer(models.BPE({"a": 0, "<s>": 1, "</s>": 2, "<|im_end|>": 3}, []))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "</s>", "<|im_end|>")])
    return tokenizer.to_str()


def write_folder(folder: Path, *, sharded: bool = False, **files: Any) -> Path:
    """A model of two tensors; `files` replaces or (None) leaves out a JSON file by its stem."""
    folder.mkdir(exist_ok=True)
    contents = {
        "config": {"model_type": "llama", "eos_token_id": 2, "bos_token_id": 1},
        "tokenizer_config": {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "chat_template": "T"},
        "generation_config": {"eos_token_id": [2, 7], "temperature": 0.6},
    } | files
    for stem, value in contents.items():
        if value is not None:
            (folder / f"{stem}.json").write_text(json.dumps(value), "utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_text(), "utf-8")
    if sharded:
        save_file({"a": A}, folder / "model-00001-of-00002.safetensors")
        save_file({"b": B}, folder / "model-00002-of-00002.safetensors")
        places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    else:
        save_file({"a": A, "b": B}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def opened(folder: Path) -> Any:
    return open_checkpoint(str(folder), cache=folder)


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_are_found_and_located(tmp_path: Path, sharded: bool) -> None:
    checkpoint = opened(write_folder(tmp_path / "m", sharded=sharded))
    assert checkpoint.name == "m" and checkpoint.weights.keys() == {"a", "b"}
    assert np.array_equal(checkpoint.weights["a"].float32(), A)
    assert checkpoint.weights["b"].float32().tolist() == [1.5, -2.0] and checkpoint.weights["b"].blocks() is None
    path, offset, nbytes = checkpoint.weights["b"].location()
    assert path.read_bytes()[offset : offset + nbytes] == B.tobytes()
    names = {f.name for f in checkpoint.files}
    assert names >= {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    assert (INDEX in names) == sharded and sum(n.endswith(".safetensors") for n in names) == 1 + sharded


def test_tokens_and_template_are_read(tmp_path: Path) -> None:
    checkpoint = opened(write_folder(tmp_path / "m"))
    assert checkpoint.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    assert checkpoint.stop_token_ids == (2, 7, 3) and checkpoint.bos_token_id == 1  # 3 ends a turn
    assert checkpoint.chat_template == "T" and checkpoint.generation_config["temperature"] == 0.6


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -0.15625, 3.0e38, 0.0], np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + raw)
    got = read_file(tmp_path / "w.safetensors")["w"].float32()
    assert np.array_equal(got.view(np.uint32), values.view(np.uint32) & np.uint32(0xFFFF0000))


def test_a_template_file_wins_and_a_list_gives_its_default(tmp_path: Path) -> None:
    named = [{"name": "tool", "template": "X"}, {"name": "default", "template": "D"}]
    folder = write_folder(tmp_path / "m", tokenizer_config={"chat_template": named})
    assert opened(folder).chat_template == "D"
    (folder / "chat_template.jinja").write_text("J")
    checkpoint = opened(folder)
    assert checkpoint.chat_template == "J" and folder / "chat_template.jinja" in checkpoint.files


def test_the_template_for_tools_is_found_in_the_list_and_in_its_folder(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "U"}, {"name": "rag", "template": "R"}]
    folder = write_folder(tmp_path / "m", tokenizer_config={"chat_template": named})
    assert (opened(folder).chat_template, opened(folder).tool_template) == ("D", "U")
    (folder / "additional_chat_templates").mkdir()
    tool_file = folder / "additional_chat_templates" / "tool_use.jinja"
    tool_file.write_text("F")
    (folder / "chat_template.jinja").write_text("J")
    checkpoint = opened(folder)
    assert (checkpoint.chat_template, checkpoint.tool_template) == ("J", "F") and tool_file in checkpoint.files


def test_an_older_template_file_counts_where_there_is_no_other(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", tokenizer_config=None, chat_template={"chat_template": "O"})
    assert opened(folder).chat_template == "O"
    assert opened(write_folder(tmp_path / "n", chat_template={"chat_template": "O"})).chat_template == "T"


def test_special_tokens_of_the_publisher_s_own_are_variables_too(tmp_path: Path) -> None:
    config = {
        "bos_token": None, "image_token": "<image>", "sep_token": {"content": "<sep>"}, "add_bos_token": True,
        "extra_special_tokens": {"audio_token": "<audio>"}, "chat_template": "T",
    }  # fmt: skip
    folder = write_folder(tmp_path / "m", tokenizer_config=config, special_tokens_map={"bos_token": "<s>", "sep_token": "|"})
    own = {"image_token": "<image>", "audio_token": "<audio>"}
    assert opened(folder).special_tokens == own | {"bos_token": "<s>", "sep_token": "|"}
    listed = config | {"added_tokens_decoder": {}}
    folder = write_folder(tmp_path / "n", tokenizer_config=listed, special_tokens_map={"sep_token": "|"})
    assert opened(folder).special_tokens == own | {"sep_token": "<sep>"}


def test_only_config_tokenizer_and_weights_are_needed(tmp_path: Path) -> None:
    checkpoint = opened(write_folder(tmp_path / "m", tokenizer_config=None, generation_config=None))
    assert checkpoint.chat_template is None and checkpoint.special_tokens == {} and checkpoint.stop_token_ids == (2, 3)


def test_the_rotary_buffer_of_older_checkpoints_is_not_a_weight(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    save_file({"a": A, "model.layers.0.self_attn.rotary_emb.inv_freq": B}, folder / "model.safetensors")
    assert opened(folder).weights.keys() == {"a"}


def remove(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def write(name: str, data: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, nbytes: int) -> Any:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-nbytes])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("tokenizer.json"), r"has no tokenizer\.json"),
        (write("tokenizer.json", b"[]"), r"tokenizer\.json is not a readable tokenizer"),
        (write("config.json", b"{"), r"config\.json is not valid JSON"),
        (write("config.json", b"[]"), r"config\.json holds a list"),
        (write("generation_config.json", b"\xff\xfe"), r"generation_config\.json cannot be read"),
        (remove("model-00002-of-00002.safetensors"), "lacks 1 of 2 shards: model-00002"),
        (write("other.safetensors", save({"z": A})), r"does not name: other\.safetensors"),
        (write("model-00002-of-00002.safetensors", save({"c": B})), "disagree about b, c"),
        (cut("model-00001-of-00002.safetensors", 1), r"should have \d+ bytes by its header, and has"),
        (cut("model-00001-of-00002.safetensors", 60), "is not a readable safetensors file"),
        (write("model-00001-of-00002.safetensors", b""), "is not a readable safetensors file"),
        (write("model-00001-of-00002.safetensors", save({"a": A.astype(np.int64)})), "type I64"),
        (write(INDEX, b"{}"), "not a readable index"),
        (remove(INDEX), "has 2 safetensors files"),
        (write("tokenizer_config.json", TWO_TEMPLATES), "x, y; none is default"),
    ],
)  # fmt: skip
def test_damage_is_named_with_a_remedy(tmp_path: Path, damage: Any, message: str) -> None:
    folder = write_folder(tmp_path / "m", sharded=True)
    damage(folder)
    with pytest.raises(BuildError, match=message) as error:
        opened(folder)
    assert error.value.hint


def test_weights_in_another_format_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BuildError, match=r"no safetensors file; it has pytorch_model\.bin"):
        opened(folder)
