"""python -m bench.attention: one layer's attention over a cache in float32 and in int8, form by form in turn."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from triune_runtime.targets.cpu.session import bind_input, bind_output

HEADS, KV_HEADS, DIM, SLOTS = 9, 3, 64, 16  # SmolLM2-135M
STEP = 4 / 127  # of a number in int8: what is attended to here reaches 4 deviations
TILES = "ORT_GQA_DISABLE_FLASH_ATTENTION"
QKV = (HEADS + 2 * KV_HEADS) * DIM
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to keep a cache and to attend to it."""

    scales: str | None = None  # of int8: PER_TENSOR or PER_CHANNEL; None: float32
    float_prompts: bool = False  # int8 only: several tokens attend in float32 to what int8 holds
    tiles: bool = True  # as ONNX Runtime does it where nothing is said


FORMS = {
    "float32": Form(),
    "int8": Form(scales="PER_TENSOR"),
    "int8 a channel": Form(scales="PER_CHANNEL"),
    "int8, float prompts": Form(scales="PER_CHANNEL", float_prompts=True),
    "float32, no tiles": Form(tiles=False),
    "int8, no tiles": Form(scales="PER_TENSOR", tiles=False),
}


@dataclass
class _Graph:
    """Nodes and constants of a graph being made."""

    form: Form
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def op(self, kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> NodeProto:
        return helper.make_node(kind, inputs, outputs, **attributes)

    def attention(self, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
        sizes = {"num_heads": HEADS, "kv_num_heads": KV_HEADS}
        return helper.make_node("GroupQueryAttention", inputs, outputs, domain="com.microsoft", **sizes, **attributes)

    def layer(self, n: int) -> None:
        """Layer number `n`: qkv.N and past.N.KEY to y.N and present.N.KEY."""
        past, ends = [f"past.{n}.k", f"past.{n}.v"], [f"y.{n}", f"present.{n}.k", f"present.{n}.v"]
        inputs = [f"qkv.{n}", "", "", *past, "last", "longest", "cos", "sin"]
        if self.form.scales is None:
            self.nodes.append(self.attention(inputs, ends, do_rotary=1))
            return
        kind = self.form.scales
        inputs += ["", "", "", "scale", "scale"]
        quantized = {"do_rotary": 1, "k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": 8}
        if not self.form.float_prompts:
            self.nodes.append(self.attention(inputs, ends, **quantized))
            return
        one, many = ([f"{name}.{end}" for end in ends] for name in ("one", "many"))
        bodies = {
            "else_branch": ([self.attention(inputs, one, **quantized)], one),
            "then_branch": (self._prompt(n, many), many),
        }
        branches = {
            name: helper.make_graph(body, f"{name}.{n}", [], [helper.make_empty_tensor_value_info(end) for end in found])
            for name, (body, found) in bodies.items()
        }
        self.nodes.append(self.op("If", ["is_prompt"], *ends, **branches))

    def _prompt(self, n: int, ends: Sequence[str]) -> list[NodeProto]:
        """Rotate, round to int8, write behind what the cache holds, attend in float32 to all of it."""
        at, op = f"many.{n}", self.op
        body = [op("Split", [f"qkv.{n}", "split"], f"{at}.q", f"{at}.k", f"{at}.v", axis=-1)]
        for part, heads in (("q", HEADS), ("k", KV_HEADS)):
            rotated = {"domain": "com.microsoft", "num_heads": heads}
            body.append(op("RotaryEmbedding", [f"{at}.{part}", "positions", "cos", "sin"], f"{at}.{part}.turned", **rotated))
        for part, source, end in (("k", f"{at}.k.turned", ends[1]), ("v", f"{at}.v", ends[2])):
            name = f"{at}.{part}"
            body += [
                op("Reshape", [source, "by_head"], f"{name}.heads"),
                op("Transpose", [f"{name}.heads"], f"{name}.rows", perm=[0, 2, 1, 3]),
                op("Div", [f"{name}.rows", "steps"], f"{name}.steps"),
                op("Round", [f"{name}.steps"], f"{name}.whole"),
                op("Clip", [f"{name}.whole", "lowest", "highest"], f"{name}.codes"),
                op("Cast", [f"{name}.codes"], f"{name}.int8", to=TensorProto.INT8),
                op("ScatterND", [f"past.{n}.{part}", "places", f"{name}.int8"], end),  # in place, where both are one buffer
                op("Slice", [f"past.{n}.{part}", "none", "start", "length_axis"], f"{name}.held"),
                op("Cast", [f"{name}.held"], f"{name}.wide", to=TensorProto.FLOAT),
                op("Mul", [f"{name}.wide", "steps"], f"{name}.past"),
                op("Mul", [f"{name}.codes", "steps"], f"{name}.fresh"),
                op("Transpose", [f"{name}.fresh"], f"{name}.by_token", perm=[0, 2, 1, 3]),
                op("Reshape", [f"{name}.by_token", "together"], f"{name}.new"),
            ]
        inputs = [f"{at}.q.turned", f"{at}.k.new", f"{at}.v.new", f"{at}.k.past", f"{at}.v.past", "last", "longest"]
        body.append(self.attention(inputs, [ends[0], f"{at}.k.all", f"{at}.v.all"]))
        return body

    def begin(self, length: int) -> None:
        """What all layers read."""
        angles = np.arange(length)[:, None] * 1e4 ** (-np.arange(0, DIM, 2) / DIM)
        self.constants |= {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}
        self.constants["one.int32"] = np.array(1, np.int32)
        self.nodes.append(self.op("Sub", ["total_lengths", "one.int32"], "last"))
        self.nodes.append(self.op("ReduceMax", ["total_lengths"], "longest", keepdims=0))
        if self.form.scales is not None:
            count = 1 if self.form.scales == "PER_TENSOR" else KV_HEADS * DIM
            self.constants["scale"] = np.full(count, STEP, np.float32)
        if self.form.float_prompts:
            self._begin_prompts()

    def _begin_prompts(self) -> None:
        steps = np.full((1, KV_HEADS, 1, DIM), STEP, np.float32)
        self.constants |= {name: np.array(value, np.int64) for name, value in (
            ("split", [HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM]), ("by_head", [0, 0, KV_HEADS, DIM]),
            ("together", [0, 0, KV_HEADS * DIM]), ("none", [0]), ("length_axis", [2]), ("one", 1), ("ones", [1]),
            ("kv_heads", [KV_HEADS]), ("across", [1, 1, -1, 1]), ("first", np.zeros((1, 1, 1, 1))),
            ("heads", np.arange(KV_HEADS).reshape(1, -1, 1, 1)),
        )} | {"steps": steps, "lowest": np.float32(-127), "highest": np.float32(127)}  # fmt: skip
        op = self.op
        self.nodes += [
            op("Shape", ["qkv.0"], "tokens", start=1, end=2), op("Squeeze", ["tokens"], "count"),
            op("Greater", ["count", "one"], "is_prompt"), op("Cast", ["longest"], "total", to=TensorProto.INT64),
            op("Reshape", ["total", "ones"], "stop"), op("Sub", ["stop", "tokens"], "start"),
            op("Squeeze", ["start"], "begin"), op("Range", ["begin", "total", "one"], "range"),
            op("Unsqueeze", ["range", "none"], "positions"), op("Reshape", ["range", "across"], "column"),
            op("Concat", ["ones", "kv_heads", "tokens", "ones"], "shape", axis=0),
            *(op("Expand", [name, "shape"], f"{name}.places") for name in ("first", "heads", "column")),
            op("Concat", ["first.places", "heads.places", "column.places"], "places", axis=3),
        ]  # fmt: skip


def model(form: Form, layers: int, length: int) -> ModelProto:
    """The graph of some layers' attention."""
    graph = _Graph(form)
    graph.begin(length)
    kept = TensorProto.FLOAT if form.scales is None else TensorProto.INT8
    inputs, outputs = [helper.make_tensor_value_info("total_lengths", TensorProto.INT32, ["batch"])], []

    def value(name: str, kind: int, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    for n in range(layers):
        graph.layer(n)
        inputs.append(value(f"qkv.{n}", TensorProto.FLOAT, "batch", "tokens", QKV))
        outputs.append(value(f"y.{n}", TensorProto.FLOAT, "batch", "tokens", HEADS * DIM))
        for key in "kv":
            inputs.append(value(f"past.{n}.{key}", kept, "batch", KV_HEADS, length, DIM))
            outputs.append(value(f"present.{n}.{key}", kept, "batch", KV_HEADS, length, DIM))
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in graph.constants.items()]
    made = helper.make_graph(graph.nodes, "attention", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, ir_version=10, opset_imports=opsets)


class Bench:
    """One form's session, its cache and its runs."""

    def __init__(self, form: Form, layers: int, length: int, threads: int) -> None:
        # Alone on its thread, what others take of the processor does not count.
        self._clock = time.thread_time if threads == 1 else time.perf_counter
        self._layers, dtype = layers, np.float32 if form.scales is None else np.int8
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_mem_pattern = False
        os.environ[TILES] = "0" if form.tiles else "1"
        self._session = onnxruntime.InferenceSession(model(form, layers, length).SerializeToString(), options)
        shape = (SLOTS, KV_HEADS, length, DIM)
        held = np.random.default_rng(0).uniform(-2, 2, (1, *shape[1:])) / (1 if form.scales is None else STEP)
        self._cache = {f"{n}.{key}": held.astype(dtype).repeat(SLOTS, 0) for n in range(layers) for key in "kv"}
        self._kept: list[Any] = []  # what bindings point to

    def bind(self, work: Work) -> onnxruntime.IOBinding:
        """A binding of the first slots, as many as `work` has sequences; the last layer's attention goes to `work.found`."""
        binding, batch = self._session.io_binding(), len(work.totals)
        bind_input(binding, "total_lengths", work.totals)
        for n in range(self._layers):
            work.found = found = np.empty((batch, work.tokens, HEADS * DIM), np.float32)
            bind_input(binding, f"qkv.{n}", work.qkv)
            bind_output(binding, f"y.{n}", found)
            self._kept += [found, work]
        for name, array in self._cache.items():
            bind_input(binding, f"past.{name}", array[:batch])
            bind_output(binding, f"present.{name}", array[:batch])
        return binding

    def same_bits(self, held: int) -> bool:
        """Whether a sequence with so many tokens in the cache has the same bits alone and among others that are alike."""
        alone, among = Work(1, 1, held), Work(SLOTS, 1, held)
        among.qkv[:], among.totals[:] = alone.qkv, alone.totals
        for work in (alone, among):
            self._session.run_with_iobinding(self.bind(work))
        return bool(np.array_equal(alone.found[0], among.found[0]))

    def seconds(self, binding: onnxruntime.IOBinding) -> float:
        """Of one layer."""
        began = self._clock()
        self._session.run_with_iobinding(binding)
        return (self._clock() - began) / self._layers


class Work:
    """New tokens of some sequences."""

    def __init__(self, sequences: int, tokens: int, held: int) -> None:
        random = np.random.default_rng(sequences)
        spread = random.integers(-held // 8, held // 8 + 1, sequences) if sequences > 1 else 0
        self.tokens, self.totals = tokens, np.full(sequences, held + tokens, np.int32) + np.asarray(spread, np.int32)
        self.qkv = random.standard_normal((sequences, tokens, QKV), np.float32)
        self.found = np.empty(0, np.float32)


WORK = {
    **{f"{n} at {held:,}": (n, 1, held) for held in (150, 1000) for n in (1, 8, 16)},
    "prompt of 150": (1, 150, 0),
    "256 behind 768": (1, 256, 768),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.attention", description=__doc__)
    parser.add_argument("--layers", type=int, default=8, help="so many caches are gone through")
    parser.add_argument("--length", type=int, default=2048, help="positions of a slot")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=15, help="at least 1")
    asked = parser.parse_args()
    benches = {name: Bench(form, asked.layers, asked.length, asked.threads) for name, form in FORMS.items()}
    work = {name: Work(*sizes) for name, sizes in WORK.items()}
    bound = {(b, w): benches[b].bind(work[w]) for w in WORK for b in FORMS}
    found: dict[tuple[str, str], list[float]] = {pair: [] for pair in bound}
    for _ in range(asked.rounds):
        for (name, item), binding in bound.items():
            found[name, item].append(benches[name].seconds(binding))
    table = Table(title="microseconds of one layer, median (its share of float32's in the same round)")
    for column in ("", *FORMS):
        table.add_column(column, justify="right")
    for item in WORK:
        first = found[next(iter(FORMS)), item]
        cells = []
        for name in FORMS:
            shares = [x / y for x, y in zip(found[name, item], first, strict=True)]
            cells.append(f"{statistics.median(found[name, item]) * 1e6:,.0f} ({statistics.median(shares):.2f})")
        table.add_row(item, *cells)
    Console().print(table)
    for name in FORMS:
        bits = [f"{held:,} tokens: {benches[name].same_bits(held)}" for held in (100, 600, 1200)]
        print(f"{name}: the same bits alone and among {SLOTS} with {', '.join(bits)}")


if __name__ == "__main__":
    main()
