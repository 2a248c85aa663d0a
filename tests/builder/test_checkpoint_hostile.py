"""Damaged and hostile folders: one sentence, bounded memory. Run: pytest tests/builder/test_checkpoint_hostile.py"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from tokenizers import Tokenizer, models

from support.damaged_files import GB, bounded_memory, damaged, limited_to, refused, survives
from triune_builder.errors import quoted
from triune_builder.graph.keys import shown

INDEX = "model.safetensors.index.json"
CASES = 600


def write_model(folder: Path, weights: bytes | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text(Tokenizer(models.BPE()).to_str())
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors(entries: Any, data: int = 8) -> bytes:
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (safetensors({"a": entry(), "b": entry()}), "tensor 'b' shares bytes with another"),
        (safetensors({"a": entry(), "b": entry(offsets=(12, 20))}, 20), "tensor 'b' has bytes before it that are no tensor's"),
        (safetensors({"a": entry(offsets=(4, 12))}, 12), "tensor 'a' has bytes before it"),
        (safetensors({"a": entry(shape=(3,))}), "tensor 'a' F32 [3] should not have 8 bytes"),
        (safetensors({"a": entry(offsets=(8, 0))}), "tensor 'a' is {"),
        (safetensors({"a": entry(offsets=(-8, 0))}), "tensor 'a' is {"),
        (safetensors({"a": entry(offsets=(0.0, 8.0))}), "tensor 'a' is {"),
        (safetensors({"a": entry(shape=[1] * 10**5)}), "tensor 'a' is {"),
        (safetensors({"a": entry(shape=(2, True))}), "tensor 'a' is {"),
        (safetensors({"a": entry(shape=(0, 10**30), offsets=(0, 0))}, 0), "tensor 'a' is {"),
        (safetensors({"a": entry(shape=2)}), "tensor 'a' is {"),
        (safetensors({"a": entry(dtype=["F32"])}), "tensor 'a' is {"),
        (safetensors({"a": {}}), "is not a readable safetensors file"),
        (safetensors({"a": 5}), "is not a readable safetensors file"),
        (safetensors([]), "is not a readable safetensors file"),
        (safetensors(b'{"a": 1, "a": 2}'), "its header has 'a' twice"),
        (safetensors(b"[" * 10**5), "is not a readable safetensors file"),
        (safetensors(b'{"a": [' + b"{}," * 2_000_000 + b"1]}"), "its values may take 560,000"),
        (safetensors(b"{" + b", ".join(b'"%d": 1' % i for i in range(200_000)) + b', "9": 2}'), "its header has '9' twice"),
        (safetensors({"\x1b[31m": entry(shape=(3,))}), r"tensor '\x1b[31m' F32"),
        (struct.pack("<Q", 2**63) + bytes(9), "its header should have 9,223,372,036,854,775,808 bytes"),
    ],
    ids=range(21),
)
def test_a_safetensors_header_that_cannot_be_is_refused_in_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(write_model(tmp_path / "m", content))


def test_a_safetensors_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", struct.pack("<Q", 8 * GB))
    os.truncate(folder / "model.safetensors", 9 * GB)
    assert "its header has 8,589,934,592 bytes; at most 100,000,000 are read" in refused(folder)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("../../model.safetensors", "names the file '../../model.safetensors'"),
        ("/etc/passwd", "names the file '/etc/passwd'"),
        ("..", "names the file '..'"),
        (5, "names the file 5"),
        (["a"], "names the file ['a']"),
        ("a\\b.safetensors", "names the file"),
        ("a\n.safetensors", r"names the file 'a\n.safetensors'"),
        (None, "names the file None"),
    ],
)
def test_a_shard_lies_beside_its_index(tmp_path: Path, place: Any, said: str) -> None:
    folder = write_model(tmp_path / "m", safetensors({"a": entry()}))
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": place}}))
    assert said in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", INDEX])
def test_values_that_take_far_more_memory_than_their_file_are_not_made(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "m", safetensors({"a": entry()}))
    (folder / name).write_text('{"a": [' + "{}," * 2_000_000 + "1]}")
    with limited_to(64 << 20):  # the text's own 6 MB a few times, not its values' 560
        assert f"{name} is not valid JSON: its values may take 560,000" in refused(folder)


def test_a_value_nested_deeper_than_python_shows_one_is_told_of() -> None:
    value: list[Any] = []
    for _ in range(10_000):
        value = [value]
    assert quoted(value) == shown(value) == "a value of a thousand levels"


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("depth", range(900, 1000, 9))
def test_a_value_that_can_just_be_read_and_not_be_shown_is_refused(tmp_path: Path, name: str, depth: int) -> None:
    folder = write_model(tmp_path / "m", safetensors({"a": entry()}))
    (folder / name).write_text('{"model_type": "llama", "eos_token_id": ' + "[" * depth + "]" * depth + "}")
    assert "eos_token_id" in (said := refused(folder)) or "is not valid JSON" in said


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 10**5, '{"weight_map": 3}'])
def test_an_index_without_places_is_refused(tmp_path: Path, content: str) -> None:
    folder = write_model(tmp_path / "m", safetensors({"a": entry()}))
    (folder / INDEX).write_text(content)
    assert INDEX in refused(folder)


EVERY_FILE = ["config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja",
              "model.safetensors", INDEX, "special_tokens_map.json", "verification.json"]  # fmt: skip


def replace(path: Path, put: Callable[[Path], object]) -> None:
    path.unlink(missing_ok=True)
    put(path)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_pipes_devices_folders_and_links_to_nothing_are_no_files_of_a_model(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "m", safetensors({"a": entry()}))
    pipe, device, inner = os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir
    for put in (pipe, device, inner):
        replace(folder / name, put)
        assert f"{name} is not a regular file" in refused(folder)
        if put is inner:
            (folder / name).rmdir()
    replace(folder / name, lambda path: path.symlink_to("../blobs/gone"))
    assert f"{name} is a link to ../blobs/gone, which does not exist" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", INDEX])
def test_a_file_far_larger_than_such_files_are_is_not_read(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "m", safetensors({"a": entry()}))
    (folder / name).touch()
    os.truncate(folder / name, 64 * GB)
    assert f"{name} has 68,719,476,736 bytes; at most" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_nested_without_end_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "m", safetensors({"a": entry()}))
    (folder / name).write_text('{"a":' * 10**5 + "1" + "}" * 10**5)
    assert f"{name} is not valid JSON" in refused(folder)


def test_files_with_damaged_headers_are_read_or_refused(tmp_path: Path) -> None:
    whole = save({"model.embed_tokens.weight": np.zeros((4, 3), np.float32), "b": np.zeros(5, np.float16)})
    folder = write_model(tmp_path / "m", whole)
    assert survives(folder)
    dice, read = random.Random(8), 0
    with bounded_memory():
        for _ in range(CASES):
            (folder / "model.safetensors").write_bytes(damaged(whole, dice, 220))
            read += survives(folder)
    assert 0 < read < CASES
