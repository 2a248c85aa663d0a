"""Run: pytest tests/runtime/test_ort_session.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from triune_runtime.errors import ManifestError
from triune_runtime.targets.cpu import session
from triune_runtime.targets.cpu.session import load, untouched


@pytest.mark.parametrize("vnni", [session.has_vnni(), False])
def test_products_of_uint8_and_int8_do_not_saturate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vnni: bool) -> None:
    """The largest codes there are: without VNNI a kernel that adds pairs in 16 bits gives another sum."""
    monkeypatch.setattr(session, "has_vnni", lambda: vnni)
    size = 256
    rows = np.full((3, size), 255, np.uint8)
    weight = np.where(np.arange(8) % 2, 127, -127).astype(np.int8)[None].repeat(size, 0)
    node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "one", "one"], ["y"], domain="com.microsoft")
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 8])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32(1), "one")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "product.onnx")
    (found,) = load(tmp_path / "product.onnx", threads=1).run(None, {"x": rows})
    assert np.array_equal(found, rows.astype(np.int64) @ weight.astype(np.int64))


def test_a_cache_that_the_system_has_no_room_for_is_refused_with_the_remedy() -> None:
    with pytest.raises(ManifestError, match=r"no 1\.15e\+09 GB .* 2 sequences of 2,251,799,813,685,248 tokens.*--max-length"):
        untouched((2, 4, 1 << 51, 16), "float32")


def test_a_file_that_is_no_graph_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ManifestError, match=r"cannot load .*model\.onnx.*hint: build the engine again"):
        load(tmp_path / "model.onnx", threads=1)
