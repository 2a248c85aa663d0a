"""Damaged and hostile GGUF files: one sentence, bounded memory. Run: pytest tests/builder/test_checkpoint_hostile_gguf.py"""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.gguf_files import METADATA, TOKENIZER, TOKENS, llama_weights, write_gguf
from support.damaged_files import GB, bounded_memory, damaged, refused, survives

CASES = 600
PIECES = {"model": "llama", "scores": [0.0] * len(TOKENS), "tokens": list(TOKENS)}
MORE_KEYS = [
    *(f"tokenizer.ggml.{key}" for key in (*TOKENIZER, "unknown_token_id", "padding_token_id", "eot_token_id", "add_eos_token")),
    *(f"llama.rope.scaling.{key}" for key in ("type", "factor", "original_context_length", "attn_factor", "finetuned")),
    *(
        f"llama.{key}"
        for key in ("rope.scale_linear", "attention.key_length", "attention.value_length", "vocab_size", "expert_count")
    ),
    *(f"general.sampling.{key}" for key in ("temp", "top_k", "top_p", "min_p", "penalty_repeat")),
    *("split.count", "split.no", "tokenizer.chat_template", "general.name", "general.quantization_version"),
]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*fields: bytes, tensors: tuple[bytes, ...] = (), counts: tuple[int, int] | None = None) -> bytes:
    numbers = counts or (len(tensors), len(fields))
    return b"GGUF" + struct.pack("<IQQ", 3, *numbers) + b"".join(fields) + b"".join(tensors) + bytes(64)


def number(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def array(key: str, kind: int, count: int, content: bytes = b"") -> bytes:
    return text(key) + struct.pack("<IIQ", 9, kind, count) + content


def tensor(name: str, sizes: list[int], offset: int = 0, *, kind: int = 0, dimensions: int | None = None) -> bytes:
    count = len(sizes) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", count, *sizes, kind, offset)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header(number("general.alignment", 0)), "its general.alignment is 0; a power of two"),
        (header(number("general.alignment", 48)), "its general.alignment is 48; a power of two"),
        (header(text("general.alignment") + struct.pack("<I", 8) + text("32")), "its general.alignment is '32'"),
        (header(counts=(2**60, 0)), "it says that it has 1,152,921,504,606,846,976 tensors; at most 131,072"),
        (header(counts=(0, 2**60)), "it says that it has 1,152,921,504,606,846,976 fields; at most 16,384"),
        (header(counts=(9, 0)), "is there twice"),
        (header(counts=(0, 9)), "is there twice"),
        (header(array("a", 4, 2**60)), "the arrays in it have 1,152,921,504,606,846,976 elements"),
        (header(*(array(f"a{i}", 0, 2**20, bytes(2**20)) for i in range(5))), "the arrays in it have 5,242,880 elements"),
        (header(array("a", 8, 2**22)), "it ends inside its header"),
        (header(array("a", 9, 3)), "it has an array of arrays"),
        (header(array("a", 77, 3)), "77 is not a valid"),
        (header(text("a") + struct.pack("<IQ", 8, 2**63)), "it ends inside its header"),
        (header(number("a" * 300, 1)), "a name in it has 300 bytes"),
        (header(number("a", 1), number("a", 2)), "its key a is there twice"),
        (header(tensors=(tensor("a", [1]), tensor("a", [1]))), "its tensor a is there twice"),
        (header(tensors=(tensor("a", [], dimensions=10**5),)), "its tensor a has 100,000 dimensions"),
        (header(tensors=(tensor("a", [4, 2**61]),)), "tensor a has the sizes"),
        (header(tensors=(tensor("a", [0]),)), "tensor a has the sizes [0]"),
        (header(tensors=(tensor("a", [4], offset=5),)), "tensor a begins at byte 5 of the data, not a multiple of 32"),
        (header(tensors=(tensor("a", [2**40]),)), "is cut short"),
        (header(tensors=(tensor("a", [16]), tensor("b", [2], 32))) + bytes(64), "its tensors a and b share bytes"),
        (header(tensors=(tensor("a", [4], kind=99),)), "its tensor a is of the type with number 99, which is not known"),
        (header(tensors=(tensor("a", [33], kind=8),)), "not a multiple of 32"),
        (header(tensors=(tensor("a", [288], kind=12),)), "tensor a of Q4_K has rows of 288, not a multiple of 256"),
        (header(tensors=(tensor("a", [128, 2], kind=14),)), "tensor a of Q6_K has rows of 128, not a multiple of 256"),
        (header(tensors=(tensor("a", [256], kind=12),)), "is cut short"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(64), "it is big-endian; little-endian files are read"),
        (header(number("\x1b[2J", 1), number("\x1b[2J", 1)), r"its key \x1b[2J is there twice"),
    ],
    ids=range(29),
)
def test_a_gguf_header_that_cannot_be_is_refused_in_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    assert said in refused(tmp_path / "m.gguf")


def test_a_gguf_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.gguf").open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array("a", 8, 2**23))
        file.truncate(64 * GB)
    assert "is not a readable GGUF file" in refused(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {"llama.attention.head_count": 0}}, "llama.attention.head_count = 0; a whole number from 1 to"),
        ({"metadata": {"llama.attention.head_count_kv": 0}}, "llama.attention.head_count_kv = 0"),
        ({"metadata": {"llama.block_count": 2.0}}, "llama.block_count = 2.0; a whole number from 1 to 4096"),
        ({"metadata": {"llama.block_count": 2**32 - 1}}, "llama.block_count = 4294967295"),
        ({"metadata": {"llama.block_count": 4000}}, "says that it has 4,000 layers, and has 20 tensors"),
        ({"metadata": {"llama.embedding_length": "64"}}, "llama.embedding_length = '64'"),
        ({"metadata": {"llama.context_length": True}}, "llama.context_length = True"),
        ({"metadata": {"llama.rope.freq_base": 0.0}}, "llama.rope.freq_base = 0.0; a number above 0"),
        ({"metadata": {"llama.rope.freq_base": float("nan")}}, "llama.rope.freq_base = nan"),
        ({"metadata": {"llama.attention.layer_norm_rms_epsilon": "x"}}, "llama.attention.layer_norm_rms_epsilon = 'x'"),
        ({"metadata": {"llama.rope.scaling.type": 3}}, "llama.rope.scaling.type = 3; a text"),
        ({"metadata": {"llama.rope.scaling.factor": "4"}}, "llama.rope.scaling.factor = '4'"),
        ({"metadata": {"split.count": "two"}}, "is part 1 of 'two'"),
        ({"metadata": {"tokenizer.chat_template": 5}}, "tokenizer.chat_template is 5, not a text"),
        ({"metadata": {"general.sampling.temp": -1.0}}, "general.sampling.temp = -1.0; a number from 0 to 1000"),
        ({"metadata": {"general.sampling.top_p": "0.9"}}, "general.sampling.top_p = '0.9'"),
        ({"tokenizer": {"eos_token_id": "257"}}, "the GGUF tokenizer has eos_token_id = '257'; a whole number from 0 to 260"),
        ({"tokenizer": {"eot_token_id": 99999}}, "the GGUF tokenizer has eot_token_id = 99999"),
        ({"tokenizer": {"eos_token_id": 1.5}}, "the GGUF tokenizer has eos_token_id = 1.5"),
        ({"tokenizer": {"tokens": [1, 2]}}, "the GGUF tokenizer's tokens is not a list of str"),
        ({"tokenizer": {"tokens": "abc"}}, "the GGUF tokenizer's tokens is not a list of str"),
        ({"tokenizer": {"merges": [1, 2]}}, "the GGUF tokenizer's merges is not a list of str"),
        ({"tokenizer": {"token_type": ["a"]}}, "the GGUF tokenizer's token_type is not a list of int"),
        ({"tokenizer": PIECES | {"tokens": ["a" * 20_000, *PIECES["tokens"][1:]]}}, "has tokens of up to 20,000 letters"),
        ({"raw": {"rope_freqs.weight": np.ones(2**17, np.float32)}}, "rope_freqs.weight of"),
        (
            {
                "metadata": {
                    "llama.attention.key_length": 2**30,
                    "llama.attention.value_length": 2**30,
                    "llama.rope.dimension_count": 2**30,
                },
                "raw": {"rope_freqs.weight": np.ones(8, np.float32)},
            },
            "rope_freqs.weight [8] is not of heads of 1073741824 numbers",
        ),
        ({"tokenizer": {"add_bos_token": "yes"}}, "the GGUF tokenizer's add_bos_token is 'yes'"),
        ({"tokenizer": {"pre": 7}}, "GGUF pre-tokenizer 7 is not known"),
    ],
    ids=range(28),
)
def test_gguf_metadata_of_the_wrong_kind_is_named_with_its_value(tmp_path: Path, changes: Any, said: str) -> None:
    assert said in refused(write_gguf(tmp_path / "m.gguf", llama_weights(), **changes))


def test_a_pipe_is_no_gguf_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    assert "m.gguf is not a regular file" in refused(tmp_path / "m.gguf")


def test_files_with_damaged_headers_are_read_or_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", llama_weights(), dtype="Q4_0").read_bytes()
    dice, read = random.Random(7), 0
    with bounded_memory():
        for _ in range(CASES):
            (tmp_path / "m.gguf").write_bytes(damaged(whole, dice, dice.choice([100, 1200, 9000])))
            read += survives(tmp_path / "m.gguf")
    assert 0 < read < CASES


@pytest.mark.parametrize("key", [*(k for k in METADATA if k != "general.architecture"), *MORE_KEYS])
def test_any_value_of_any_key_is_read_or_refused(tmp_path: Path, key: str) -> None:
    weights = llama_weights()
    for value in (0, 1, 2**32 - 1, -0.0, 1.5, float("inf"), True, "", "x\x1b", ["a"], [1, 2], [1.5], None):
        name = key.removeprefix("tokenizer.ggml.")
        changes: dict[str, Any] = {"metadata": {key: value}} if name == key else {"tokenizer": {name: value}}
        survives(write_gguf(tmp_path / "m.gguf", weights, **changes))
