"""GGUF files: header, names, configuration, what is refused. Run: pytest tests/builder/test_checkpoint_gguf.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType

from fakes.gguf_files import BASE, DIM, HEADS, INNER, KV_HEADS, LAYERS, METADATA, TOKENS, WIDTH, llama_weights, write_gguf
from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.checkpoint.gguf_architectures import read_config
from triune_builder.checkpoint.gguf_header import read_header
from triune_builder.errors import BuildError


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(str(path), cache=path.parent)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_a_file_of_each_type_gives_the_weights_back_under_hugging_face_names(tmp_path: Path, dtype: str) -> None:
    weights = llama_weights()
    checkpoint = opened(write_gguf(tmp_path / "m.gguf", weights, dtype=dtype))
    assert checkpoint.weights.keys() == weights.keys()
    for name, values in weights.items():
        kind = GGMLQuantizationType[dtype if values.ndim == 2 else "F32"]
        expected = gguf.dequantize(gguf.quantize(values, kind), kind)
        assert checkpoint.weights[name].shape == values.shape
        assert np.array_equal(checkpoint.weights[name].float32(), expected), name


def test_configuration_tokens_and_files_are_those_of_the_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", llama_weights(), metadata={"tokenizer.chat_template": "{{ messages }}"})
    checkpoint = opened(path)
    assert checkpoint.name == "m" and checkpoint.files == (path,)
    assert checkpoint.config == {
        "model_type": "llama", "hidden_act": "silu", "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": DIM, "intermediate_size": INNER,
        "vocab_size": len(TOKENS), "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "rope_scaling": None,
        "max_position_embeddings": 512, "tie_word_embeddings": True, "bos_token_id": BASE + 1, "eos_token_id": BASE + 2,
    }  # fmt: skip
    assert checkpoint.special_tokens == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert checkpoint.stop_token_ids == (BASE + 2, BASE) and checkpoint.bos_token_id == BASE + 1
    assert checkpoint.chat_template == "{{ messages }}"
    assert json.loads(checkpoint.tokenizer_json)["model"]["type"] == "BPE"


def test_an_output_projection_and_biases_are_read(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    more = {"lm_head.weight": random.standard_normal((len(TOKENS), WIDTH)).astype(np.float32),
            "model.layers.0.self_attn.q_proj.bias": random.standard_normal(HEADS * DIM).astype(np.float32)}  # fmt: skip
    checkpoint = opened(write_gguf(tmp_path / "m.gguf", llama_weights() | more))
    assert checkpoint.config["tie_word_embeddings"] is False
    for name, values in more.items():
        assert np.array_equal(checkpoint.weights[name].float32(), values), name


def test_the_header_agrees_with_the_gguf_packages_reader(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", llama_weights(), dtype="Q4_1", alignment=64)
    header, reader = read_header(path), gguf.GGUFReader(path)
    theirs = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert header.metadata == theirs
    assert [(t.name, t.shape, t.dtype, t.offset, t.nbytes) for t in header.tensors] == [
        (t.name, tuple(reversed(t.shape.tolist())), t.tensor_type.name, t.data_offset, t.n_bytes) for t in reader.tensors
    ]


def test_a_file_cut_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", llama_weights()).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in [0, 3, 4, 11, 23, 40, 1000, 5000, len(whole) // 2, len(whole) - 200]:
        path.write_bytes(whole[:size])
        with pytest.raises(BuildError, match=r"cut\.gguf is (not a readable GGUF|cut short)"):
            opened(path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(BuildError, match="starts with b'PK"):
        opened(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"llama.expert_count": 8}}, r"llama\.expert_count = 8"),
        ({"metadata": {"llama.logit_scale": 0.5}}, r"llama\.logit_scale = 0\.5"),
        ({"metadata": {"llama.rope.dimension_count": 8}}, "dimension_count is 8, but a head has 16"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "'yarn'"),
        ({"metadata": {"llama.attention.head_count": [4, 2]}}, "num_attention_heads differs from layer to layer"),
        ({"metadata": {"llama.block_count": None}}, r"lacks llama\.block_count"),
        ({"metadata": {"split.count": 3, "split.no": 1}}, "part 2 of 3"),
        ({"raw": {"blk.0.ffn_gate_exps.weight": np.zeros((4, 4), np.float32)}}, "ffn_gate_exps"),
        ({"raw": {"extra.weight": np.zeros((2, 2), np.int32)}}, r"type I32 \(number 26\)"),
        ({"raw": {"rope_freqs.weight": np.full(DIM // 2, 3, np.float32)}}, "rope_freqs"),
        ({"raw": {"rope_freqs.weight": np.zeros(DIM // 2, np.float32)}}, "rope_freqs"),
        ({"raw": {"rope_freqs.weight": np.full(DIM // 2, np.inf, np.float32)}}, "rope_freqs"),
        ({"raw": {"rope_freqs.weight": np.full(DIM // 2, np.nan, np.float32)}}, "rope_freqs"),
        ({"tokenizer": {"model": "bert"}}, "tokenizer model 'bert'"),
        ({"tokenizer": {"pre": "default"}}, "pre-tokenizer 'default'"),
        ({"tokenizer": {"merges": ["h zz"]}}, "'h zz'"),
        ({"tokenizer": {"bos_token_id": 9999}}, r"bos_token_id = 9999; a whole number from 0 to 260"),
        ({"tokenizer": {"tokens": ["a", "a"], "token_type": [1, 1]}}, "2 tokens, 1 of them different"),
    ],
)
def test_what_is_not_understood_is_refused_with_a_remedy(
    tmp_path: Path, changes: dict[str, Any], message: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(BuildError, match=message) as error:
        opened(write_gguf(tmp_path / "m.gguf", llama_weights(), **changes))
    assert error.value.hint and not list(recwarn)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(BuildError, match="'mamba' is not read; known: deepseek2, llama"):
        read_config({"general.architecture": "mamba"}, vocab_size=1, tied=True, rope_factors=None)


def config_of(factors: np.ndarray | None = None, **metadata: Any) -> dict[str, Any]:
    return read_config(METADATA | metadata, vocab_size=10, tied=True, rope_factors=None if factors is None else lambda: factors)


def test_linear_rope_scaling_is_read() -> None:
    config = config_of(**{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0})
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    assert config_of(**{"llama.rope.scale_linear": 2.0})["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert config_of(**{"llama.rope.scaling.type": "none"})["rope_scaling"] is None


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_scaling_is_recovered_from_its_divisors(factor: float) -> None:
    divisors = []
    for i in range(0, 128, 2):  # as Meta publishes it: by wavelength, in three ranges
        wavelength = 2 * np.pi * 500_000.0 ** (i / 128)
        smooth = (8192 / wavelength - 1) / 3
        divisors.append(1.0 if wavelength < 8192 / 4 else factor if wavelength > 8192 else 1 / ((1 - smooth) / factor + smooth))
    dims = {"llama.rope.freq_base": 500_000.0, "llama.attention.key_length": 128, "llama.rope.dimension_count": 128}
    assert config_of(np.array(divisors, np.float32), **dims)["rope_scaling"] == {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
