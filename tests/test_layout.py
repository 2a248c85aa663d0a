"""Who may import what, and how long a file may be. Run: pytest tests/test_layout.py"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AREAS = ("builder", "runtime", "server", "clients", "load")
LONGEST = 300  # lines

# module prefix -> what of our own it may import; the longest prefix counts
ALLOWED: dict[str, set[str]] = {
    "triune_runtime": {"triune_runtime"},
    "triune_runtime.text": {
        "triune_runtime.text", "triune_runtime.errors", "triune_runtime.manifest", "triune_runtime.allocator",
    },
    "triune_runtime.kv": {"triune_runtime.kv"},
    "triune_runtime.generation.scheduler": {
        "triune_runtime.errors", "triune_runtime.manifest", "triune_runtime.request", "triune_runtime.generation.sequence",
        "triune_runtime.kv",
    },
    "triune_runtime.drafting": {
        "triune_runtime.drafting", "triune_runtime.generation", "triune_runtime.manifest", "triune_runtime.request",
        "triune_runtime.runner", "triune_runtime.sampling",
    },
    "triune_runtime.targets": {
        "triune_runtime.targets", "triune_runtime.errors", "triune_runtime.manifest", "triune_runtime.allocator",
        "triune_runtime.runner",
    },
    "triune_builder.inputs": {"triune_builder", "triune_runtime"},  # hashes the runtime's sources
    "triune_builder": {
        "triune_builder", "triune_runtime.manifest", "triune_runtime.runner", "triune_runtime.targets", "triune_runtime.errors",
    },
    "triune_builder.checkpoint": {"triune_builder.checkpoint", "triune_builder.errors"},
    "triune_builder.graph": {
        "triune_builder.graph", "triune_builder.checkpoint", "triune_builder.errors", "triune_runtime.manifest",
    },
    "triune_builder.quantize": {
        "triune_builder.quantize", "triune_builder.graph", "triune_builder.checkpoint", "triune_builder.errors",
    },
    "triune_server": {
        "triune_server", "triune_runtime.manifest", "triune_runtime.errors", "triune_runtime.targets.tensorrt.preflight",
        "triune_builder.cli", "triune_builder.errors", "triune_load.__main__",
    },
    "triune_client": {"triune_client"},
    "triune_load": {"triune_load"},
    "triune_load.core": {"triune_load.core", "triune_load.errors"},
    "triune_load.protocols": {"triune_load.protocols", "triune_load.core", "triune_load.errors"},
    "triune_load.report": {"triune_load.report", "triune_load.core"},
}  # fmt: skip
# package -> the only modules that may import it
ADAPTERS = {
    "onnxruntime": {"triune_runtime.targets.cpu", "triune_builder"},
    "cuda": {"triune_runtime.targets.device.cuda"},
    "tritonclient": {"triune_client.grpc", "triune_load.transports.grpc"},
    "llguidance": {"triune_runtime.constraints.grammar"},
    "torch": set(),
    "transformers": set(),
    "triton_python_backend_utils": set(),
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for area in AREAS:
        for path in sorted((ROOT / area).rglob("triune_*/**/*.py")):
            name = ".".join(path.relative_to(ROOT / area).with_suffix("").parts)
            yield name.removesuffix(".__init__"), ast.parse(path.read_text("utf-8"))


def imports(name: str, tree: ast.Module, is_package: bool) -> Iterator[str]:
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, prefixes: set[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


MODULES = list(modules())
PACKAGES = {name for name, _ in MODULES if any(other.startswith(name + ".") for other, _ in MODULES)}


@pytest.mark.parametrize(("name", "tree"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_one_way(name: str, tree: ast.Module) -> None:
    rule = max((p for p in ALLOWED if within(name, {p})), key=len)
    for imported in imports(name, tree, name in PACKAGES):
        if imported.startswith("triune_"):
            assert within(imported, ALLOWED[rule] | {name.rpartition(".")[0] + "." + name.rpartition(".")[2]}), (
                f"{name} imports {imported}; {rule} may import {', '.join(sorted(ALLOWED[rule]))}"
            )
        for package, adapters in ADAPTERS.items():
            if within(imported, {package}):
                assert within(name, adapters), f"{name} imports {package}; only {', '.join(sorted(adapters)) or 'tests'} may"


def tracked(pattern: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).exists()]


def test_no_file_is_too_long() -> None:
    long = {str(p.relative_to(ROOT)): n for p in tracked("*.py") if (n := len(p.read_text("utf-8").splitlines())) > LONGEST}
    assert not long, f"over {LONGEST} lines: {long}"


def test_model_files_are_thin() -> None:
    long = [p for p in (ROOT / "model_repository").rglob("model.py") if len(p.read_text("utf-8").splitlines()) >= 100]
    assert not long


def test_generic_folder_names_are_not_importable() -> None:
    for folder in ("builder", "clients", "docker", "load", "runtime", "server", "model_repository/tokenize"):
        assert not (ROOT / folder / "__init__.py").exists(), folder


def test_git_holds_no_large_file() -> None:
    large = {str(p.relative_to(ROOT)) for p in tracked("*") if p.stat().st_size > 500_000}
    assert large <= {"models/r1-nano/checkpoint/model.safetensors"}
