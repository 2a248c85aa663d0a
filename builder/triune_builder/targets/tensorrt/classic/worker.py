"""Builds one engine of fixed sizes with TensorRT 8.6 to 10: python worker.py JOB.json. Writes RESULT beside it; prints nothing.

A program of its own, since TensorRT 8's binding needs Python 3.10: it needs nothing but that package, is run by its path, and
so that several engines are built side by side. JOB: graph, plan, and perhaps level (TensorRT's `builder_optimization_level`).
"""

from __future__ import annotations

import collections
import ctypes
import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

RESULT = ".result.json"
WORKSPACE = 16 << 30  # bytes of GPU memory that the builder may try kernels with
_CUBLAS = ("libcublas.so.12", "libcublas.so.11", "libcublas.so.13")


def main(path: Path) -> None:
    """Do the job at `path`; what went wrong stands in the result."""
    job = json.loads(path.read_text("utf-8"))
    said: list[tuple[str, str]] = []
    result: dict[str, Any]
    try:
        result = build(job, said)
    except Exception as error:  # whatever it is, the builder tells of it
        result = {"error": f"{type(error).__name__}: {error}"}
    result["errors"] = unique(text for severity, text in said if severity in ("ERROR", "INTERNAL_ERROR"))
    result["warnings"] = unique(text for severity, text in said if severity == "WARNING")
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    path.with_suffix(RESULT).write_text(json.dumps(result), "utf-8")


def build(job: dict[str, Any], said: list[tuple[str, str]]) -> dict[str, Any]:
    """Parse and build; what TensorRT logs goes to `said`."""
    trt = importlib.import_module("tensorrt")

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]  # a class of the package at hand
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            said.append((severity.name, message))

    began = time.monotonic()
    log = Log()
    builder = trt.Builder(log)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # TensorRT 10 knows no other
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(job["graph"]):
        found = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
        return {"error": "the parser refuses the graph: " + "; ".join(found)[:2000]}
    parsed = time.monotonic() - began
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    config.set_flag(trt.BuilderFlag.FP16)  # it chooses: told the types, 8.6.0 finds no kernel for the network
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if job.get("level") is not None:
        config.builder_optimization_level = job["level"]
    if not any(map(loads, _CUBLAS)):
        config.set_tactic_sources(0)  # else it would look for kernels in libraries that are not there
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return {"error": "TensorRT cannot build the engine"}
    with open(job["plan"], "wb") as file:  # noqa: PTH123  # the plan is no bytes, but has their interface
        file.write(plan)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return {
        "version": trt.__version__,
        "bytes": plan.nbytes,
        "parse_s": round(parsed, 2),
        "seconds": round(time.monotonic() - began, 2),
        "layers": dict(sorted(collections.Counter(layer.type.name for layer in layers).items())),
        "unread": unread(network, layers),
    }


def unread(network: Any, layers: list[Any]) -> list[str]:
    """Inputs that no layer reads: something was left out."""
    names = {x.name for layer in layers for x in map(layer.get_input, range(layer.num_inputs)) if x is not None}
    return [x.name for x in map(network.get_input, range(network.num_inputs)) if x.name not in names]


def loads(library: str) -> bool:
    """Whether a library is there."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def unique(texts: Any) -> list[str]:
    """Each once, and not too many."""
    return [text[:500] for text in dict.fromkeys(texts)][:20]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
