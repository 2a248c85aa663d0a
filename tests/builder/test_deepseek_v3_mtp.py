"""The layer of multi-token prediction as a graph of its own, against the NumPy reference and transformers.

Run: pytest tests/builder/test_deepseek_v3_mtp.py (the comparison with transformers needs torch and skips without)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.engines import made_up_maxima
from fakes.tiny_deepseek import tiny_checkpoint
from fakes.tiny_llama import FakeCheckpoint, FakeTensor
from triune_builder.errors import BuildError
from triune_builder.graph.export import GraphBundle, export
from triune_builder.quantize.apply import quantize
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.precisions import find_precision
from triune_builder.verify import reference
from triune_builder.verify.reference_deepseek import mtp_states
from triune_builder.verify.reference_parts import Scope, Texts
from triune_runtime.targets.cpu.session import load

Array = NDArray[np.float32]
LENGTH = 48
SIZES: dict[str, Any] = {"num_nextn_predict_layers": 1, "kv_lora_rank": 32, "v_head_dim": 16, "qk_nope_head_dim": 24}
TEXTS = np.random.default_rng(1).integers(0, 256, (2, 21))


class Graphs(NamedTuple):
    """A model and its MTP layer as they are served."""

    checkpoint: FakeCheckpoint
    bundle: GraphBundle
    model: Any
    mtp: Any


def build(folder: Path, precision: str = "fp32", **changes: Any) -> Graphs:
    checkpoint = tiny_checkpoint(**SIZES | changes)
    bundle = export(checkpoint, max_length=LENGTH, with_mtp=True)  # type: ignore[arg-type]  # a fake
    bundle = lower(quantize(bundle, find_precision(precision), made_up_maxima(checkpoint)).bundle)
    assert bundle.mtp is not None
    sessions = []
    for name, part in (("model", bundle), ("mtp", bundle.mtp)):
        (folder / name).mkdir()
        onnx_files.write(part, folder / name)
        sessions.append(load(folder / name / onnx_files.MODEL, threads=1))
    return Graphs(checkpoint, bundle, *sessions)


def run(session: Any, bundle: GraphBundle, chunks: list[int], **inputs: NDArray[Any]) -> dict[str, Array]:
    """Run `inputs` [batch, n, ...] chunk by chunk with one cache; the other outputs at all positions."""
    batch = len(inputs["input_ids"])
    cache = {c: np.zeros((batch, c.heads, LENGTH, c.dim), np.float32) for c in bundle.cache}
    found: dict[str, list[Array]] = {o.name: [] for o in session.get_outputs() if not o.name.startswith("present.")}
    start = 0
    for size in chunks:
        part = {name: np.ascontiguousarray(array[:, start : start + size]) for name, array in inputs.items()}
        start += size
        part |= {"total_lengths": np.full(batch, start, np.int32), "logit_positions": np.arange(size)}
        part |= {f"past.{c.name}": buffer for c, buffer in cache.items()}
        binding = session.io_binding()
        for name, array in part.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name in found:
            binding.bind_output(name)
        for c, buffer in cache.items():
            for output in c.output_names:
                binding.bind_output(output, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        session.run_with_iobinding(binding)
        for parts, value in zip(found.values(), binding.copy_outputs_to_cpu(), strict=False):  # the cache comes after them
            parts.append(value)
    return {name: np.concatenate(parts, 1) for name, parts in found.items()}


def expected(checkpoint: FakeCheckpoint) -> dict[str, Array]:
    """By the reference: the model's hidden states, and those and the logits of the MTP layer, [batch, n, ...]."""
    root, laid = Scope(checkpoint.weights), Texts.of(TEXTS[:, :-1].tolist())
    hidden = reference.final_states(checkpoint.config, root, TEXTS[:, :-1].tolist())
    after = mtp_states(checkpoint.config, root, hidden, TEXTS[:, 1:].reshape(-1), laid)
    logits = after @ root[reference.head_name(root)].T
    return {
        name: v.reshape(len(TEXTS), -1, v.shape[-1]) for name, v in (("hidden", hidden), ("after", after), ("logits", logits))
    }


def error(got: Array, wanted: Array) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": None, "tie_word_embeddings": True}], ids=["plain", "tied"])
def test_mtp_graph_equals_the_reference_at_prefill_chunks_and_decode(changes: dict[str, Any], tmp_path: Path) -> None:
    graphs = build(tmp_path, **changes)
    assert graphs.bundle.mtp is not None
    wanted = expected(graphs.checkpoint)
    for row, chunks in ((0, [20]), (1, [9, 8, 3]), (0, [16, 1, 1, 1, 1])):
        ids, followers = TEXTS[row : row + 1, :-1], TEXTS[row : row + 1, 1:]
        model = run(graphs.model, graphs.bundle, chunks, input_ids=ids)
        assert error(model["hidden"][0], wanted["hidden"][row]) < 1e-4
        mtp = run(graphs.mtp, graphs.bundle.mtp, chunks, input_ids=followers, hidden=model["hidden"])
        assert error(mtp["next_hidden"][0], wanted["after"][row]) < 1e-4
        assert error(mtp["logits"][0], wanted["logits"][row]) < 1e-4


def test_mtp_decodes_in_batches(tmp_path: Path) -> None:
    graphs = build(tmp_path)
    assert graphs.bundle.mtp is not None
    hidden = run(graphs.model, graphs.bundle, [1] * 20, input_ids=TEXTS[:, :-1])["hidden"]
    mtp = run(graphs.mtp, graphs.bundle.mtp, [1] * 20, input_ids=TEXTS[:, 1:], hidden=hidden)
    assert error(mtp["logits"], expected(graphs.checkpoint)["logits"]) < 1e-4


def test_giving_hidden_states_changes_no_logit(tmp_path: Path) -> None:
    graphs = build(tmp_path)
    (tmp_path / "alone").mkdir()
    alone = lower(export(graphs.checkpoint, max_length=LENGTH))  # type: ignore[arg-type]
    assert alone.mtp is None
    onnx_files.write(alone, tmp_path / "alone")
    session = load(tmp_path / "alone" / onnx_files.MODEL, threads=1)
    assert "hidden" not in {output.name for output in session.get_outputs()}
    feeds = {"input_ids": TEXTS[:1], "total_lengths": np.array([21], np.int32), "logit_positions": np.array([20])}
    feeds |= {f"past.{c.name}": np.zeros((1, 1, LENGTH, c.dim), np.float32) for c in alone.cache}
    (logits,) = session.run(["logits"], feeds)
    assert error(run(graphs.model, graphs.bundle, [21], input_ids=TEXTS[:1])["logits"][:, -1], logits[:, 0]) < 1e-5


@pytest.mark.parametrize("precision", ["int8", "int4", "w8a8"])
def test_mtp_is_quantized_too(precision: str, tmp_path: Path) -> None:
    everything = {"num_experts_per_tok": 8, "n_group": 1, "topk_group": 1}  # rounding may change choices, not sums of all
    graphs = build(tmp_path, precision, **everything)
    assert graphs.bundle.mtp is not None
    wanted = expected(graphs.checkpoint)
    mtp = run(graphs.mtp, graphs.bundle.mtp, [20], input_ids=TEXTS[:1, 1:], hidden=wanted["hidden"][:1])
    difference = mtp["logits"][0] - wanted["logits"][0]
    assert np.sqrt(np.mean(difference**2) / np.mean(wanted["logits"][0] ** 2)) < (0.5 if precision == "int4" else 0.15)


def test_mtp_weights_are_left_alone_where_no_graph_is_wanted_of_them() -> None:
    checkpoint = tiny_checkpoint(**SIZES)
    assert export(checkpoint, max_length=LENGTH).mtp is None  # type: ignore[arg-type]
    without = {n: t for n, t in checkpoint.weights.items() if not n.startswith("model.layers.3.")}
    bare = FakeCheckpoint(config=checkpoint.config, weights=without, tokenizer_json="")
    assert export(bare, max_length=LENGTH, with_mtp=True).mtp is None  # type: ignore[arg-type]


def test_missing_and_spare_weights_of_the_mtp_layer_are_named() -> None:
    checkpoint = tiny_checkpoint(**SIZES)
    fewer = {n: t for n, t in checkpoint.weights.items() if n != "model.layers.3.enorm.weight"}
    more = {**checkpoint.weights, "model.layers.3.odd.weight": FakeTensor(np.zeros(2, np.float32))}
    for weights, message in ((fewer, r"no weight model\.layers\.3\.enorm"), (more, r"read by nothing: model\.layers\.3\.odd")):
        odd = FakeCheckpoint(config=checkpoint.config, weights=weights, tokenizer_json="")
        with pytest.raises(BuildError, match=message):
            export(odd, max_length=LENGTH, with_mtp=True)  # type: ignore[arg-type]


def test_mtp_reference_equals_transformers() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    layers = pytest.importorskip("transformers.modeling_layers")
    if not hasattr(layers, "MtpModel"):
        pytest.skip("this transformers has no MTP layers")
    from fakes.torch_deepseek import load, rename_experts

    checkpoint = tiny_checkpoint(**SIZES)
    model = load(checkpoint)
    mtp = layers.MtpModel(model, 1).eval()
    prefix, state = "model.layers.3.", {}
    for name, tensor in rename_experts(checkpoint).items():
        leaf = name.removeprefix(prefix)
        if leaf == name or leaf.startswith(("embed_tokens", "shared_head.head")):
            continue
        own = {"shared_head.norm.weight": "post_norm.weight"}.get(leaf)
        inner = leaf if leaf.startswith(("enorm", "hnorm", "eh_proj")) else f"mtp_block.{leaf}"
        state[f"layers.0.{own or inner}"] = tensor
    missing, unexpected = mtp.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [n for n in missing if n.startswith("layers.")]
    assert transformers.__version__
    wanted = expected(checkpoint)
    with torch.no_grad():
        for row in range(len(TEXTS)):
            hidden = model(torch.tensor(TEXTS[row : row + 1, :-1]), output_hidden_states=True).hidden_states[-1]
            assert error(wanted["hidden"][row], hidden[0].numpy()) < 1e-4
            after = mtp.forward_layer(0, hidden, torch.arange(20)[None], None, input_ids=torch.tensor(TEXTS[row : row + 1, 1:]))
            assert error(wanted["after"][row], after[0].numpy()) < 1e-4
            assert error(wanted["logits"][row], model.lm_head(after)[0].numpy()) < 1e-4
