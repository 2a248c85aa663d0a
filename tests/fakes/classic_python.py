"""A stand-in for a Python 3.10 with TensorRT 8.6: says its version, "builds" plans, and runs engines by ONNX Runtime.

As a program: python classic_python.py ARGUMENTS..., which are those of a Python that the project starts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERSION = "8.6.0"
FAILS = "CLASSIC_FAILS"  # in the environment: names of plans that cannot be built
SPOILS = "CLASSIC_SPOILS"  # in the environment: "all", or sequences of the decode whose logits are other than its graph's


def shim(folder: Path) -> Path:
    """A program in `folder` that passes for such a Python."""
    path = folder / "python3.10"
    tests, root = Path(__file__).parents[1], Path(__file__).parents[2]
    code = ":".join(map(str, (tests, root / "builder", root / "runtime")))
    path.write_text(f'#!/bin/sh\nPYTHONPATH={code} exec {sys.executable} {__file__} "$@"\n', "utf-8")
    path.chmod(0o755)
    return path


def main(arguments: list[str]) -> None:
    if arguments[0].endswith("worker.py"):
        build(Path(arguments[1]))
    elif "import json, tensorrt" in arguments[1]:
        print(json.dumps(VERSION))
    else:
        serve(*arguments[3:])


def build(path: Path) -> None:
    job = json.loads(path.read_text("utf-8"))
    plan = Path(job["plan"])
    result: dict[str, object] = {"errors": [], "warnings": ["slow"], "peak_bytes": 1}
    if plan.name in os.environ.get(FAILS, "").split():
        result |= {"error": "TensorRT cannot build the engine", "errors": ["Could not find any implementation for node X"]}
    else:
        plan.write_bytes(b"plan " + plan.name.encode())
        result |= {"seconds": 1.0, "parse_s": 0.5, "layers": {"CAST": 1}, "unread": [], "bytes": plan.stat().st_size}
    path.with_suffix(".result.json").write_text(json.dumps(result), "utf-8")


def serve(described: str, folder: str) -> None:
    from fakes.classic_engines import host_of, in_folder
    from triune_runtime.manifest import EngineManifest
    from triune_runtime.targets.tensorrt import elsewhere_main

    def runner(manifest: EngineManifest, where: Path) -> object:
        computes = in_folder(where)
        if spoiled := os.environ.get(SPOILS):
            computes = {kind: spoil(compute, spoiled) for kind, compute in computes.items()}
        return host_of(manifest, computes).runner

    elsewhere_main.tensorrt_runner = runner  # type: ignore[assignment]
    elsewhere_main.main(described, folder)


def spoil(compute: Callable[[Any], Any], which: str) -> Callable[[Any], Any]:
    def other(feeds: Any) -> Any:
        found = dict(compute(feeds))
        if which == "all" or ("sequences" in feeds and str(len(feeds["sequences"])) == which):
            found["logits"] = found["logits"][..., ::-1]
            found["best_tokens"] = found["logits"].argmax(-1).astype("int32")
            found["best_logits"] = found["logits"].max(-1)
        return found

    return other


if __name__ == "__main__":
    main(sys.argv[1:])
