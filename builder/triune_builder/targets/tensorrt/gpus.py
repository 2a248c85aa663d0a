"""Which precision which GPU takes, and which of the two TensorRT packages builds for it. Refuses by name, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import BuildError
from ...quantize.policy import Precision

RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # TensorRT-RTX 1.7 builds for these
FULL_CAPABILITIES = ("9.0", "10.0", "10.3", "11.0")  # data-center GPUs and others that full TensorRT alone has
_FP8 = ("8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1")
_FROM_AMPERE = tuple(c for c in (*RTX_CAPABILITIES, *FULL_CAPABILITIES) if c != "7.5")


@dataclass(frozen=True, kw_only=True)
class TrtPrecision:
    """How weights are kept; arithmetic and cache are in `dtype`, whatever the weights are."""

    dtype: str  # float16 or bfloat16
    weights: Precision
    capabilities: tuple[str, ...]  # GPUs that take it; the first is the least


_ROUTERS = ("*.mlp.gate.weight", "float")  # tiny, and they decide which experts are asked


def _rules(name: str, *linear: tuple[str, str]) -> Precision:
    return Precision(name=name, linear=(_ROUTERS, *linear), scale_bytes=2)


PRECISIONS = {
    "fp16": TrtPrecision(dtype="float16", weights=_rules("fp16", ("*", "float")), capabilities=("7.5", *_FROM_AMPERE)),
    "bf16": TrtPrecision(dtype="bfloat16", weights=_rules("bf16", ("*", "float")), capabilities=_FROM_AMPERE),
    "int8": TrtPrecision(dtype="float16", weights=_rules("int8", ("*", "blocks8_symmetric")), capabilities=_FROM_AMPERE),
    # The head decides every token: it keeps eight bits beside four, and halves beside FP8.
    "int4": TrtPrecision(
        dtype="float16",
        weights=_rules("int4", ("lm_head.weight", "blocks8_symmetric"), ("*", "blocks4_symmetric")),
        capabilities=_FROM_AMPERE,
    ),
    "fp8": TrtPrecision(
        dtype="float16",
        weights=_rules("fp8", ("lm_head.weight", "float"), ("*", "fp8")),
        capabilities=_FP8,
    ),
}


def find_precision(name: str, compute_capabilities: Sequence[str]) -> TrtPrecision:
    """The precision of that name, if every GPU takes it.

    Raises:
        BuildError: no such precision for TensorRT, or a GPU that lacks it; with no GPU named, one that some lack.
    """
    if name not in PRECISIONS:
        raise BuildError(
            f"TensorRT engines have no precision {name!r}; known: {', '.join(PRECISIONS)}", "choose --precision fp16"
        )
    precision = PRECISIONS[name]
    for capability in compute_capabilities:
        if capability not in precision.capabilities:
            raise BuildError(
                f"a GPU of compute capability {capability} has no {name}; it takes {', '.join(_taken(capability))}, "
                f"and {name} needs one of {', '.join(sorted(precision.capabilities, key=float))}",
                f"choose --precision {_taken(capability)[0]}",
            )
    if not compute_capabilities and "8.0" not in precision.capabilities:
        raise BuildError(
            f"{name} does not run on every GPU from compute capability 8.0 on, for which an engine is built if none is named",
            f"name them, e.g. --compute-capability {precision.capabilities[0]}",
        )
    return precision


def flavour(compute_capabilities: Sequence[str]) -> str:
    """The package that builds for all of these: "tensorrt_rtx", or "tensorrt" for what the former does not have.

    Raises:
        BuildError: an unknown compute capability, or several of which one needs full TensorRT, which builds for one GPU.
    """
    known = (*RTX_CAPABILITIES, *FULL_CAPABILITIES)
    for capability in compute_capabilities:
        if capability not in known:
            raise BuildError(
                f"unknown compute capability {capability!r}; known: {', '.join(sorted(known, key=float))}",
                "name the GPU's, e.g. --compute-capability 8.9",
            )
    full = [c for c in compute_capabilities if c in FULL_CAPABILITIES]
    if full and len(compute_capabilities) > 1:
        raise BuildError(
            f"compute capability {full[0]} needs full TensorRT, which builds for the one GPU it runs on",
            "build once for each GPU",
        )
    return "tensorrt" if full else "tensorrt_rtx"


def _taken(capability: str) -> list[str]:
    return [name for name, precision in PRECISIONS.items() if capability in precision.capabilities]
