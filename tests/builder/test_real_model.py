"""The whole of SmolLM2 against PyTorch and transformers. Run: pytest tests/builder/test_real_model.py

Both read the same GGUF file; the reference's loading (dequantized by the `gguf` package, rows put right here) shares no code
with the builder's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.real_prompts import PROMPTS
from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.graph.export import export
from triune_builder.quantize.apply import quantize
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.precisions import find_precision
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Runner, Work
from triune_runtime.targets import make_runner

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
TOKENS = 64


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint("smollm2-135m", cache=ROOT / "build" / ".cache" / "checkpoints")


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Any:
    """transformers' Llama with the float weights of the GGUF file."""
    from gguf import GGUFReader, dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, rms_norm_eps=1e-5, rope_theta=100000.0, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    inner = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    }  # fmt: skip
    state = {}
    for tensor in GGUFReader(checkpoint.files[0]).tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = tensor.name.split(".")[-2]
        if kind in ("attn_q", "attn_k"):  # llama.cpp interleaves the halves of each head
            heads = {"attn_q": 9, "attn_k": 3}[kind]
            values = values.reshape(heads, 32, 2, 576).swapaxes(1, 2).reshape(values.shape)
        top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
        name = top[kind] if kind in top else f"model.layers.{tensor.name.split('.')[1]}.{inner[kind]}"
        state[f"{name}.weight"] = torch.tensor(values)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(state, strict=True)
    return model


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """The fp32 engine, lowered and run as it would be served."""
    folder = tmp_path_factory.mktemp("fp32")
    bundle = export(checkpoint, max_length=256)
    quantize(bundle, find_precision("fp32"))
    onnx_files.write(lower(bundle), folder)
    manifest = EngineManifest(
        model="smollm2-135m", architecture="llama", target="cpu", precision="fp32", engine=onnx_files.MODEL,
        vocab_size=bundle.vocab_size, cache=bundle.cache, stop_token_ids=(), limits=Limits(max_sequences=16, max_length=256),
    )  # fmt: skip
    return make_runner(manifest, folder)


@pytest.fixture(scope="module")
def prompts(checkpoint: Checkpoint) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    return [tokenizer.encode(p).ids for p in PROMPTS]


def test_fp32_logits_equal_torch_at_prefill_chunk_and_decode(reference: Any, engine: Runner, prompts: list[list[int]]) -> None:
    worst = 0.0
    for ids in (prompts[3] + prompts[9], prompts[12] + prompts[0] + prompts[16]):
        with torch.no_grad():
            expected = reference(torch.tensor([ids])).logits[0].numpy()
        half = len(ids) // 2
        work = [Work(0, 0, tuple(ids[:half])), Work(0, half, tuple(ids[half:-3]))]
        work += [Work(0, at, (ids[at],)) for at in range(len(ids) - 3, len(ids))]
        for item in work:
            got = engine.run([item])[0]
            wanted = expected[item.start + len(item.tokens) - 1]
            worst = max(worst, float(np.abs(got - wanted).max() / np.abs(wanted).max()))
    print(f"largest relative error of the logits: {worst:.1e}")
    assert worst < 1e-4


def test_fp32_greedy_tokens_equal_torch_for_64_tokens_on_20_prompts(
    reference: Any, engine: Runner, prompts: list[list[int]]
) -> None:
    """Ten at a time. Torch reads each text once, whole: its logits say what it chooses after every beginning of the text, and
    it makes the same tokens by itself if and only if each of them is its choice where it stands.
    """
    for beside in (prompts[:10], prompts[10:]):
        made: list[list[int]] = [[] for _ in beside]
        logits = [engine.run([Work(slot, 0, tuple(ids))])[0] for slot, ids in enumerate(beside)]
        for step in range(TOKENS):
            for tokens, of_slot in zip(made, logits, strict=True):
                tokens.append(int(of_slot.argmax()))
            logits = engine.run([Work(s, len(ids) + step, (made[s][-1],)) for s, ids in enumerate(beside)])
        for ids, tokens in zip(beside, made, strict=True):
            with torch.no_grad():
                expected = reference(torch.tensor([ids + tokens])).logits[0].argmax(-1)[len(ids) - 1 : -1].tolist()
            assert len(tokens) == TOKENS and tokens == expected, ids
