"""The library of custom ops, compiled by the C compiler that is here, in ONNX Runtime for the CPU: what a kernel is told.

Run: pytest tests/runtime/test_cuda_own_ops_library.py (needs a C compiler)
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from triune_runtime.errors import TriuneError
from triune_runtime.targets.cuda.ops.library import OpsLibrary, build, library_path

DOMAIN = "triune.ops"
NUMPY: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
ONNX = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "int32": TensorProto.INT32}
SWIGLU, ROTATE, FAILING = 11, 12, 13  # handles of kernels
SWIGLU_TYPES = (ctypes.c_uint64,) * 3 + (ctypes.c_int64,) * 3
ROTATE_TYPES = (ctypes.c_uint64,) * 11 + (ctypes.c_int32,) * 5 + (ctypes.c_float,)
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


class Launches:
    """In the place of cuLaunchKernel."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, tuple[int, ...], list[Any]]] = []
        self.do: Callable[[int, list[Any]], None] = lambda kernel, arguments: None
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *(ctypes.c_uint,) * 7, *(ctypes.c_void_p,) * 3)
        self._function = kind(self._launch)

    @property
    def address(self) -> int:
        return ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def _launch(self, kernel: int, *rest: Any) -> int:
        types = SWIGLU_TYPES if kernel in (SWIGLU, FAILING) else ROTATE_TYPES
        places = (ctypes.c_uint64 * len(types)).from_address(rest[8])
        arguments = [kind.from_address(place).value for kind, place in zip(types, places, strict=True)]
        self.seen.append((kernel, rest[:7], arguments))
        self.do(kernel, arguments)
        return 719 if kernel == FAILING else 0


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = library_path(tmp_path_factory.mktemp("ops"))
    build(path)
    return path


@pytest.fixture
def launches(path: Path) -> Launches:
    found = Launches()
    library = OpsLibrary(path, found.address, "CPUExecutionProvider")
    for dtype in NUMPY:
        library.use({"swiglu": SWIGLU, "rotate": ROTATE}, dtype)
    return found


def session(path: Path, node: Any, inputs: dict[str, tuple[str, list[Any]]], then: Any, functions: Any = ()) -> Any:
    values = [helper.make_tensor_value_info(name, ONNX[kind], shape) for name, (kind, shape) in inputs.items()]
    kind = next(iter(inputs.values()))[0]
    graph = helper.make_graph([node, then], "g", values, [helper.make_tensor_value_info("z", ONNX[kind], None)])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, ir_version=10, opset_imports=opsets, functions=list(functions))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.register_custom_ops_library(str(path))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def at(address: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    kind = np.dtype(NUMPY.get(dtype, dtype))
    size = int(np.prod(shape)) * kind.itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(kind).reshape(shape)


def run(made: Any, **given: NDArray[Any]) -> NDArray[Any]:
    """With values of any type, which NumPy's own arrays cannot be for bfloat16."""
    kinds = {"bfloat16": 16, "float16": 10, "int32": 6}
    feeds = {}
    for name, array in given.items():
        kind = array.dtype.name
        raw = array.view(np.uint16) if kind == "bfloat16" else array
        feeds[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, kinds[kind])
    (found,) = made.run_with_ort_values(["z"], feeds)
    return found


def swiglu(path: Path, dtype: str, rows: Any = "rows") -> Any:
    node = helper.make_node("SwiGLU", ["gate", "up"], ["y"], domain=DOMAIN)
    shapes = {"gate": (dtype, [rows, 3, 5]), "up": (dtype, ["rows_too", 3, 5])}
    return session(path, node, shapes, helper.make_node("Identity", ["y"], ["z"]))


@pytest.mark.parametrize("dtype", NUMPY)
def test_swiglu_is_launched_over_all_numbers_of_both_and_its_output_read_by_the_next_op(
    path: Path, launches: Launches, dtype: str
) -> None:
    made = swiglu(path, dtype)
    for rows in (1, 40):
        gate, up = (np.random.default_rng(rows).normal(size=(2, rows, 3, 5))).astype(NUMPY[dtype])

        def add(kernel: int, arguments: list[Any], shape: tuple[int, ...] = (rows, 3, 5)) -> None:
            one, two, y = (at(address, shape, dtype) for address in arguments[:3])
            y[:] = one - two

        launches.do = add
        found = run(made, gate=gate, up=up)
        kernel, sizes, arguments = launches.seen.pop()
        assert (kernel, arguments[3:]) == (SWIGLU, [15 * rows, 5, 5])
        assert sizes == (-(-15 * rows // 8 // 256) or 1, 1, 1, 256, 1, 1, 0) and not launches.seen
        there = at(found.data_ptr(), (rows, 3, 5), dtype)
        assert (there == gate - up).all()


def test_swiglu_of_one_tensor_gates_the_second_halves_of_its_rows_by_the_first(path: Path, launches: Launches) -> None:
    node = helper.make_node("SwiGLU", ["both"], ["y"], domain=DOMAIN)
    made = session(path, node, {"both": ("bfloat16", ["rows", "more"])}, helper.make_node("Identity", ["y"], ["z"]))
    assert run(made, both=np.zeros((4, 10), NUMPY["bfloat16"])).shape() == [4, 5]
    ((_, _, (gate, up, _, *sizes)),) = launches.seen
    assert up - gate == 5 * 2 and sizes == [20, 5, 10]
    with pytest.raises(Exception, match="SwiGLU takes two tensors of one shape or both in one"):
        run(made, both=np.zeros((4, 9), NUMPY["bfloat16"]))


def test_no_rows_launch_nothing(path: Path, launches: Launches) -> None:
    empty = np.zeros((0, 3, 5), np.float16)
    assert run(swiglu(path, "float16"), gate=empty, up=empty).shape() == [0, 3, 5] and not launches.seen


def test_tensors_of_two_shapes_and_launches_that_fail_are_errors_of_the_run(path: Path, launches: Launches) -> None:
    made, two = swiglu(path, "float16"), np.zeros((2, 3, 5), np.float16)
    with pytest.raises(Exception, match="SwiGLU takes two tensors of one shape"):
        run(made, gate=two, up=two[:1])
    OpsLibrary(path, launches.address, "CPUExecutionProvider").use({"swiglu": FAILING, "rotate": ROTATE}, "float16")
    with pytest.raises(Exception, match=r"launching a kernel .* failed: CUDA driver error 719"):
        run(made, gate=two, up=two)


def rotary(path: Path, dtype: str, heads: int, kv_heads: int, dim: int, *more: str) -> Any:
    names = ["packed", "cos", "sin", "ends", "past", *(name if name in more else "" for name in ("bias", "q_norm", "k_norm"))]
    while not names[-1]:
        names.pop()
    width = (heads + 2 * kv_heads) * dim
    shapes: dict[str, tuple[str, list[Any]]] = {
        "packed": (dtype, ["tokens", width]), "cos": (dtype, [9, "half"]), "sin": (dtype, [9, dim // 2]),
        "ends": ("int32", ["ends"]), "past": ("int32", ["sequences"]),
    }  # fmt: skip
    shapes |= {name: (dtype, [width if name == "bias" else dim]) for name in more}
    node = helper.make_node(
        "RotaryQKV", names, ["q", "k", "v"], domain=DOMAIN, num_heads=heads, kv_num_heads=kv_heads, epsilon=0.25
    )
    return session(path, node, shapes, helper.make_node("Concat", ["v", "q", "k"], ["z"], axis=1))


def feeds(dtype: str, heads: int, kv_heads: int, dim: int, *more: str) -> dict[str, NDArray[Any]]:
    width, kind, random = (heads + 2 * kv_heads) * dim, NUMPY[dtype], np.random.default_rng(dim)
    shapes = {"packed": (5, width), "cos": (9, dim // 2), "sin": (9, dim // 2)}
    shapes |= {name: (width if name == "bias" else dim,) for name in more}
    given = {name: random.normal(size=shape).astype(kind) for name, shape in shapes.items()}
    return given | {"ends": np.array([0, 2, 5], np.int32), "past": np.array([3, 0], np.int32)}


@pytest.mark.parametrize("more", [(), ("bias",), ("q_norm", "k_norm"), ("bias", "q_norm", "k_norm")], ids=len)
@pytest.mark.parametrize("dtype", NUMPY)
def test_rotary_qkv_tells_its_kernel_every_tensor_and_size(
    path: Path, launches: Launches, dtype: str, more: tuple[str, ...]
) -> None:
    heads, kv_heads, dim = 4, 2, 32
    given = feeds(dtype, heads, kv_heads, dim, *more)

    def copy(kernel: int, arguments: list[Any]) -> None:
        order = ("packed", "bias", "q_norm", "k_norm", "cos", "sin", "ends", "past")
        for name, address in zip(order, arguments, strict=False):
            assert bool(address) == (name in given), name
            if name in given:
                assert (at(address, given[name].shape, given[name].dtype.name) == given[name]).all(), name
        for number, (address, size) in enumerate(zip(arguments[8:11], (128, 64, 64), strict=True)):
            at(address, (5, size), dtype)[:] = number

    launches.do = copy
    found = run(rotary(path, dtype, heads, kv_heads, dim, *more), **given)
    there = at(found.data_ptr(), (5, 256), dtype).astype(int)
    assert (there == [2] * 64 + [0] * 128 + [1] * 64).all()
    ((kernel, sizes, arguments),) = launches.seen
    assert kernel == ROTATE and arguments[11:] == [5, 2, heads, kv_heads, dim, 0.25] and sizes[0] == 1  # 5 x 8 x 2 threads


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cos", np.zeros((9, 15), np.float16)),
        ("ends", np.zeros(2, np.int32)),
        ("past", np.zeros(1, np.int32)),
    ],
)
def test_rotary_qkv_takes_no_shapes_that_do_not_fit(path: Path, launches: Launches, name: str, value: NDArray[Any]) -> None:
    given = feeds("float16", 4, 2, 32)
    with pytest.raises(Exception, match="RotaryQKV is given shapes or types that it does not take"):
        run(rotary(path, "float16", 4, 2, 32), **given | {name: value})
    assert not launches.seen


def test_norms_want_heads_whose_threads_share_a_warp(path: Path, launches: Launches) -> None:
    run(rotary(path, "float16", 3, 1, 48, "bias"), **feeds("float16", 3, 1, 48, "bias"))
    with pytest.raises(Exception, match="RotaryQKV is given shapes"):
        run(rotary(path, "float16", 3, 1, 48, "q_norm", "k_norm"), **feeds("float16", 3, 1, 48, "q_norm", "k_norm"))


def test_what_is_built_is_not_built_again_and_without_a_compiler_the_error_says_so(path: Path, tmp_path: Path) -> None:
    before = path.stat().st_mtime_ns
    build(path, {"CC": "/no/such/compiler"})
    assert path.stat().st_mtime_ns == before
    other = tmp_path / "new" / "ops.so"
    with pytest.raises(TriuneError, match="CC=/no/such/compiler is not there") as raised:
        build(other, {"CC": "/no/such/compiler"})
    assert raised.value.hint and "CC=" in raised.value.hint
    with pytest.raises(TriuneError, match=r"false does not compile host\.c"):
        build(other, {"CC": "false"})
    assert not list(other.parent.iterdir())


def test_a_library_that_does_not_load_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "ops.so").write_bytes(b"none")
    with pytest.raises(TriuneError, match="does not load") as raised:
        OpsLibrary(tmp_path / "ops.so", 0, "CPUExecutionProvider")
    assert raised.value.hint and "make kernels" in raised.value.hint
