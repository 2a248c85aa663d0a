"""The interpreter's rules compute what ONNX Runtime's own kernels compute, where the CPU has them, and it takes the graphs.

Run: pytest tests/builder/test_cuda_ops.py
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from fakes.cuda_graphs import ARCHITECTURES, lowered, tiny
from triune_builder.targets.cuda.interpreter import RULES
from triune_builder.targets.cuda.interpreter_ops import Node
from triune_builder.targets.cuda.interpreter_paged import paged_attention
from triune_builder.targets.cuda.precisions import PRECISIONS
from triune_runtime.targets.cuda.ops.library import OpsLibrary, build, library_path
from triune_runtime.targets.cuda.plan import CudaPlan

CONTRIB = "com.microsoft"
RANDOM = np.random.default_rng(4)
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8, "int32": TensorProto.INT32}


def floats(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def kernel(kind: str, domain: str, inputs: list[Any], outputs: int, **attributes: Any) -> list[NDArray[Any]]:
    """What ONNX Runtime's kernel for the CPU makes of it; None among `inputs` is left out."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    node = helper.make_node(kind, names, [f"y{i}" for i in range(outputs)], domain=domain, **attributes)
    given = {name: np.asarray(x) for name, x in zip(names, inputs, strict=True) if name}
    values = [helper.make_tensor_value_info(name, TYPES[x.dtype.name], x.shape) for name, x in given.items()]
    found = [ValueInfoProto(name=f"y{i}") for i in range(outputs)]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(helper.make_graph([node], "op", values, found), ir_version=10, opset_imports=opsets)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run([f"y{i}" for i in range(outputs)], given))


def node_of(kind: str, inputs: list[Any], outputs: int, attributes: dict[str, Any]) -> Node:
    return Node(
        kind=kind, name="op", attributes=attributes, inputs=tuple(map(str, range(len(inputs)))),
        outputs=tuple(map(str, range(outputs))), keeps=False, kinds=("float",) * len(inputs),
    )  # fmt: skip


CODES = {bits: RANDOM.integers(0, 256, (8, 2, 4 * bits)).astype(np.uint8) for bits in (4, 8)}
CASES: dict[str, tuple[str, str, list[Any], int, dict[str, Any]]] = {
    "gated norm": ("GatedRMSNorm", CONTRIB, [floats(3, 64), floats(32), floats(3, 64)], 1,
                   {"activation": "silu", "epsilon": 0.5}),
    "gate": ("GatedRMSNorm", CONTRIB, [floats(3, 64), np.full(32, 2.0**40, np.float32), floats(3, 64)], 1,
             {"activation": "silu", "epsilon": 2.0**80}),
    "skip": ("SkipSimplifiedLayerNormalization", CONTRIB, [floats(3, 64), floats(3, 64), floats(64)], 4, {"epsilon": 0.1}),
    "norm": ("SimplifiedLayerNormalization", "", [floats(3, 64), floats(64)], 1, {"axis": -1, "epsilon": 0.1, "stash_type": 1}),
    "silu": ("QuickGelu", CONTRIB, [floats(3, 64)], 1, {"alpha": 1.0}),
    "product": ("FusedMatMul", CONTRIB, [floats(3, 64), floats(5, 64)], 1, {"transB": 1}),
    "four bits": ("MatMulNBits", CONTRIB, [floats(3, 64), CODES[4], floats(8, 2)], 1,
                  {"N": 8, "K": 64, "bits": 4, "block_size": 32}),
    "eight bits": ("MatMulNBits", CONTRIB, [floats(3, 64), CODES[8], floats(8, 2)],
                   1, {"N": 8, "K": 64, "bits": 8, "block_size": 32}),
    "best": ("TopK", "", [np.round(floats(3, 16)), np.array([5])], 2, {"axis": -1}),
    "parts": ("Split", "", [floats(3, 12), np.array([2, 6, 4])], 3, {"axis": -1}),
    "halves": ("Split", "", [floats(3, 12)], 2, {"axis": -1, "num_outputs": 2}),
    "rows": ("Reshape", "", [floats(3, 12), np.array([0, 4, -1])], 1, {}),
    "sum": ("ReduceSum", "", [floats(3, 4, 5), np.array([1])], 1, {"keepdims": 0}),
    "shares": ("Softmax", "", [floats(3, 12)], 1, {"axis": -1}),
    "taken": ("Gather", "", [floats(7, 4), np.array([6, 0, 6])], 1, {"axis": 0}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_rule_is_the_kernel(name: str) -> None:
    kind, domain, inputs, outputs, attributes = CASES[name]
    found = RULES[kind](node_of(kind, inputs, outputs, attributes), inputs)
    for mine, theirs in zip(found, kernel(kind, domain, inputs, outputs, **attributes), strict=True):
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("window", [0, 3, 4])
def test_paged_attention_is_grouped_query_attention_over_blocks(window: int) -> None:
    heads, kv_heads, size, past, new = 6, 2, 16, 19, 5
    width, total = (heads + 2 * kv_heads) * size, past + new
    angles = RANDOM.uniform(0, 6, (total, size // 2))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    said = {"num_heads": heads, "kv_num_heads": kv_heads, "do_rotary": 1, "scale": 0.3}
    said |= {"local_window_size": window} if window else {}
    texts = floats(total, width)
    pools = [np.full((5, 16, kv_heads, size), 9, np.float32) for _ in range(2)]
    found = None
    for start, stop in ((0, past), (past, total)):
        lengths = [np.array([0, stop - start]), np.array([start]), np.array([[3, 1]]), cos, sin]
        inputs: list[Any] = [texts[start:stop], None, None, *pools, *lengths]
        (found,) = paged_attention(node_of("PagedAttention", inputs, 1, said), inputs)
    caches = [np.zeros((1, kv_heads, 0, size), np.float32) for _ in range(2)]
    expected: NDArray[Any] = np.empty(0)
    for start, stop in ((0, past), (past, total)):
        last, length = np.array([stop - 1], np.int32), np.array(stop, np.int32)
        inputs = [texts[None, start:stop], None, None, *caches, last, length, cos, sin]
        expected, *caches = kernel("GroupQueryAttention", CONTRIB, inputs, 3, **said)
    assert found is not None
    np.testing.assert_allclose(found, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pools[0][[3, 1]].reshape(-1, kv_heads, size)[:total], caches[0][0].transpose(1, 0, 2), atol=1e-5)


@pytest.fixture(scope="module", params=[False, True], ids=["", "custom ops"])
def own_ops(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The library that registers custom ops, for the CPU."""
    if not request.param:
        return None
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    path = library_path(tmp_path_factory.mktemp("ops"))
    build(path)
    OpsLibrary(path, 0, "CPUExecutionProvider").use({"swiglu": 0, "rotate": 0}, "float16")
    return path


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnx_runtime_takes_the_graph_and_lacks_the_gpus_kernels_alone(
    architecture: str, precision: str, own_ops: Path | None, tmp_path: Path
) -> None:
    engine = lowered(tiny(architecture), precision, tmp_path)
    options = onnxruntime.SessionOptions()
    if own_ops is not None:
        options.register_custom_ops_library(str(own_ops))
    graph = CudaPlan.of(engine.manifest).custom_ops if own_ops is not None else engine.manifest.engine
    with pytest.raises(NoKernel, match=r"implementation for (PagedAttention|FusedMatMul)\(1\)"):
        onnxruntime.InferenceSession(str(tmp_path / graph), options, providers=["CPUExecutionProvider"])
