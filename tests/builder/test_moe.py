"""Routing and experts, as defined and as ONNX Runtime's contrib ops run them, against NumPy one token at a time.

Run: pytest tests/builder/test_moe.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from fakes.engines import allowed_batch_error
from fakes.tiny_llama import FakeTensor
from triune_builder.graph.export import GraphBundle
from triune_builder.graph.ops import Graph, linear
from triune_builder.quantize.apply import quantize
from triune_builder.quantize.statistics import MAXIMA
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.precisions import find_precision
from triune_builder.verify.measure import difference

HIDDEN, INNER = 64, 32
Weights = dict[str, NDArray[np.float32]]
ROUTES: dict[str, dict[str, Any]] = {
    "plain": {"groups": 1, "top_groups": 1, "top_k": 2, "softmax": 0, "normalize": 1, "factor": 1.0},
    "groups": {"groups": 4, "top_groups": 2, "top_k": 3, "softmax": 0, "normalize": 1, "factor": 2.5},
    "one group": {"groups": 4, "top_groups": 1, "top_k": 2, "softmax": 0, "normalize": 0, "factor": 1.0},
    "groups of one": {"groups": 8, "top_groups": 3, "top_k": 2, "softmax": 0, "normalize": 0, "factor": 2.5},
    "one expert": {"groups": 2, "top_groups": 1, "top_k": 1, "softmax": 0, "normalize": 0, "factor": 16.0},
    "softmax": {"groups": 2, "top_groups": 1, "top_k": 2, "softmax": 1, "normalize": 0, "factor": 2.5},
    "softmax normalized": {"groups": 1, "top_groups": 1, "top_k": 4, "softmax": 1, "normalize": 1, "factor": 1.0},
}


def made_up_weights(experts: int, seed: int) -> Weights:
    random = np.random.default_rng(seed)
    shapes = {"gate.weight": (experts, HIDDEN), "gate.e_score_correction_bias": (experts,)}
    for e in range(experts):
        shapes |= {f"experts.{e}.{n}_proj.weight": (INNER, HIDDEN) for n in ("gate", "up")}
        shapes[f"experts.{e}.down_proj.weight"] = (HIDDEN, INNER)
    return {n: (random.normal(size=s) * 2 / s[-1] ** 0.5).astype(np.float32) for n, s in shapes.items()}


def session(weights: Weights, route: dict[str, Any], experts: int, precision: str, folder: Path, *, lowered: bool) -> Any:
    """x [batch, n, hidden] -> y, as the float graph or as the engine."""
    g = Graph({f"a.mlp.{name}": FakeTensor(array) for name, array in weights.items()})
    x = ir.val("x", ir.DataType.FLOAT, ["batch", "n", HIDDEN])
    with g.scope("a.mlp"):
        chosen = g.block("Route", linear(g, x, "gate"), g.weight("gate.e_score_correction_bias"), outputs=2, **route)
        with g.scope("experts"):
            numbers = [str(e) for e in range(experts)]
            gate_up = g.stacked_weights(numbers, "gate_proj.weight", "up_proj.weight", name="gate_up")
            down = g.stacked_weights(numbers, "down_proj.weight", name="down")
            y = g.block("Experts", x, *chosen, gate_up, down)[0]
    model = g.model([x], {"y": y})
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", "n", HIDDEN])
    bundle = GraphBundle(model, g.sources, (), "experts", 0, g.stacks)
    bundle = quantize(bundle, find_precision(precision), {MAXIMA: {}}).bundle
    onnx_files.write(lower(bundle) if lowered else bundle, folder)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(folder / onnx_files.MODEL), options, providers=["CPUExecutionProvider"])


def expected(weights: Weights, route: dict[str, Any], experts: int, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """One token after the other, in float64."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    rows = [_token(w, route, experts, row) for row in x.reshape(-1, HIDDEN).astype(np.float64)]
    return np.array(rows).reshape(x.shape)


def _token(w: Any, route: dict[str, Any], experts: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    logits = w["gate.weight"] @ x
    scores = np.exp(logits) / np.exp(logits).sum() if route["softmax"] else 1 / (1 + np.exp(-logits))
    wanted = list(scores + w["gate.e_score_correction_bias"])
    size = experts // route["groups"]
    groups = [range(i * size, (i + 1) * size) for i in range(route["groups"])]
    groups.sort(key=lambda group: -sum(sorted((wanted[e] for e in group), reverse=True)[:2]))  # a stable sort: ties keep order
    allowed = sorted(e for group in groups[: route["top_groups"]] for e in group)
    chosen = sorted(allowed, key=lambda e: -wanted[e])[: route["top_k"]]
    total = sum(scores[e] for e in chosen) if route["normalize"] else 1.0
    y = np.zeros(HIDDEN)
    for e in chosen:
        gate, up = w[f"experts.{e}.gate_proj.weight"] @ x, w[f"experts.{e}.up_proj.weight"] @ x
        y += scores[e] / total * route["factor"] * (w[f"experts.{e}.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * up))
    return y


def error(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())
@pytest.mark.parametrize("lowered", [False, True], ids=["definition", "engine"])
def test_experts_equal_numpy(route: dict[str, Any], lowered: bool, tmp_path: Path) -> None:
    """One token, a batch of single tokens, many tokens of one sequence, a batch of several."""
    weights = made_up_weights(8, seed=1)
    run = session(weights, route, 8, "fp32", tmp_path, lowered=lowered)
    for shape in ((1, 1), (5, 1), (1, 130), (2, 7)):
        x = np.random.default_rng(sum(shape)).normal(size=(*shape, HIDDEN)).astype(np.float32)
        (y,) = run.run(None, {"x": x})
        assert error(y, expected(weights, route, 8, x)) < 1e-5, shape


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("int4", 4), ("w8a8", 8)])
@pytest.mark.parametrize("route", ["groups", "softmax"])
def test_quantized_experts_equal_their_definition(route: str, precision: str, bits: int, tmp_path: Path) -> None:
    """The op rounds its activations to eight bits, about 1% of the largest."""
    weights = made_up_weights(16, seed=2)
    (tmp_path / "plain").mkdir()
    run = session(weights, ROUTES[route], 16, precision, tmp_path, lowered=True)
    plain = session(weights, ROUTES[route], 16, precision, tmp_path / "plain", lowered=False)
    x = np.random.default_rng(3).normal(size=(1, 90, HIDDEN)).astype(np.float32)
    (got,), (definition,) = run.run(None, {"x": x}), plain.run(None, {"x": x})
    assert error(got, definition) < 0.02
    assert error(definition, expected(weights, ROUTES[route], 16, x)) < (0.02 if bits == 8 else 0.25)


@pytest.mark.parametrize("lowered", [False, True], ids=["definition", "engine"])
def test_of_equals_the_first_is_chosen(lowered: bool, tmp_path: Path) -> None:
    weights = made_up_weights(8, seed=4)
    weights["gate.weight"][:] = 0
    weights["gate.e_score_correction_bias"][:] = 0
    run = session(weights, ROUTES["groups"], 8, "fp32", tmp_path, lowered=lowered)
    x = np.random.default_rng(5).normal(size=(1, 6, HIDDEN)).astype(np.float32)
    (y,) = run.run(None, {"x": x})
    assert error(y, expected(weights, ROUTES["groups"], 8, x)) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_experts_that_nobody_chose_count_nothing(precision: str, tmp_path: Path) -> None:
    """Their weights are so large that, were they computed and multiplied by zero, the result would not be a number."""
    weights = made_up_weights(8, seed=6)
    weights["gate.e_score_correction_bias"][4:] = -9
    run = session(weights, ROUTES["plain"], 8, precision, tmp_path, lowered=True)
    x = np.random.default_rng(7).normal(size=(1, 20, HIDDEN)).astype(np.float32)
    (before,) = run.run(None, {"x": x})
    for e in range(4, 8):
        for n in ("gate", "up", "down"):
            weights[f"experts.{e}.{n}_proj.weight"][:] = 1e18
    (after,) = session(weights, ROUTES["plain"], 8, precision, tmp_path, lowered=True).run(None, {"x": x})
    assert np.array_equal(before, after)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("route", ["plain", "groups", "softmax normalized"])
def test_a_token_has_the_same_bits_whatever_the_others_choose(route: str, precision: str, tmp_path: Path) -> None:
    run = session(made_up_weights(16, seed=8), ROUTES[route], 16, precision, tmp_path, lowered=True)
    x = np.random.default_rng(9).normal(size=(16, 1, HIDDEN)).astype(np.float32)
    (together,) = run.run(None, {"x": x})
    for first, last in ((0, 1), (7, 8), (15, 16), (0, 2), (3, 12)):
        (some,) = run.run(None, {"x": x[first:last]})
        assert difference(some, together[first:last]) <= allowed_batch_error(precision), (first, last)
