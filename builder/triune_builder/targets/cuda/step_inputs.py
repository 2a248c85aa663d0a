"""The inputs of a CUDA engine that say which tokens a step computes and where their keys and values lie."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from triune_runtime.manifest import CacheTensor

from ...graph.rewrite import Rewriter

_INT32, _INT64 = ir.DataType.INT32, ir.DataType.INT64


class StepInputs:
    """What takes the place of `total_lengths` and `logit_positions`: triune_runtime/targets/cuda/plan.py says what they are."""

    def __init__(self, rewriter: Rewriter) -> None:
        """Turn the inputs of a graph over [batch, n] into those of one over the packed tokens of all sequences."""
        self.cu_seqlens = ir.val("cu_seqlens", _INT32, ["ends"])
        self.past_seqlens = ir.val("past_seqlens", _INT32, ["sequences"])
        self.block_table = ir.val("block_table", _INT32, ["sequences", "most_blocks"])
        self.metadata = ir.val("attention_metadata", _INT32, [3])
        self.logits_at = ir.val("logits_at", _INT64, ["rows"])
        self._graph = rewriter.graph
        inputs = {value.name: value for value in self._graph.inputs}
        inputs["input_ids"].shape = ir.Shape(["tokens"])
        positions = inputs["logit_positions"]
        for node, index in list(positions.uses()):
            assert node.op_type == "Gather" and index == 1, f"{node.op_type} reads logit_positions"
            node.attributes["axis"] = ir.AttrInt64("axis", 0)
        positions.replace_all_uses_with(self.logits_at)

    @property
    def lengths(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Inputs 5 to 7 of PagedAttention."""
        return self.cu_seqlens, self.past_seqlens, self.block_table

    def close(self, cache: Sequence[CacheTensor], cache_type: ir.DataType, vocab_size: int) -> None:
        """Put the inputs in place, give those of the cache their final form, and let float32 logits be the only output."""
        graph = self._graph
        inputs = {value.name: value for value in graph.inputs}
        assert not inputs["total_lengths"].uses(), "something still reads total_lengths"
        pools = [inputs[f"past.{tensor.name}"] for tensor in cache]
        for pool, tensor in zip(pools, cache, strict=True):
            pool.type = ir.TensorType(cache_type)
            pool.shape = ir.Shape(["blocks", "block_tokens", tensor.heads, tensor.dim])
        graph.inputs.clear()
        graph.inputs.extend([inputs["input_ids"], *self.lengths, self.metadata, self.logits_at, *pools])
        (logits,) = graph.outputs
        producer = logits.producer()
        assert producer is not None
        cast = ir.node("Cast", [logits], attributes={"to": ir.DataType.FLOAT}, name="logits.float")
        graph.insert_after(producer, cast)
        logits.name, logits.type, logits.shape = "logits.half", None, None
        wide = cast.outputs[0]
        wide.name, wide.type, wide.shape = "logits", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["rows", vocab_size])
        graph.outputs.clear()
        graph.outputs.append(wide)


def only_logits(rewriter: Rewriter) -> None:
    """Drop the outputs of the grown cache: attention writes it in place."""
    graph = rewriter.graph
    (logits,) = (value for value in graph.outputs if value.name == "logits")
    graph.outputs.clear()
    graph.outputs.append(logits)
