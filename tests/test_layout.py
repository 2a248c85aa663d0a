"""Who may import what, and how long a file may be. The rules: support/layout_rules.py. Run: pytest tests/test_layout.py"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from support.layout_rules import ADAPTERS, ALLOWED, DYNAMIC, PACKAGES, RUNTIME_ORDER

ROOT = Path(__file__).parents[1]
LONGEST = 300  # lines
BY_NAME = {"import_module", "__import__", "exec_module", "run_module", "run_path"}


def modules() -> Iterator[tuple[str, ast.Module, bool]]:
    """Name, tree and whether it is a package, of every module of ours."""
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT / folder).with_suffix("").parts)
            yield name.removesuffix(".__init__"), ast.parse(path.read_text("utf-8")), path.name == "__init__.py"


def imports(name: str, tree: ast.Module, is_package: bool) -> Iterator[str]:
    """What a module imports, at the top or in functions: modules in full, or names in them."""
    parts = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


PARSED = list(modules())
TREES = {name: tree for name, tree, _ in PARSED}
IMPORTS = [(name, imported) for name, tree, is_package in PARSED for imported in imports(name, tree, is_package)]


def within(name: str, prefixes: Iterable[str]) -> bool:
    return any(name.startswith(p[:-1]) if p.endswith("*") else f"{name}.".startswith(f"{p}.") for p in prefixes)


def rule_of(name: str, prefixes: Iterable[str]) -> str | None:
    """The longest of the prefixes that hold for `name`."""
    return max((p for p in prefixes if within(name, {p})), key=len, default=None)


def level(name: str) -> tuple[int, str]:
    """Where a module of the runtime stands: its line in RUNTIME_ORDER, and the part of it."""
    lines = {f"triune_runtime.{part}": number for number, line in enumerate(RUNTIME_ORDER) for part in line}
    part = rule_of(name, lines)
    assert part is not None, f"{name} has no line in RUNTIME_ORDER"
    return lines[part], part


def test_imports_point_one_way() -> None:
    wrong = []
    for name, imported in IMPORTS:
        rule = rule_of(name, ALLOWED)
        assert rule is not None, f"{name} has no rule in ALLOWED"
        if imported.partition(".")[0] in PACKAGES and not within(imported, ALLOWED[rule] | {name}):
            wrong.append(f"{name} imports {imported}; {rule} may import {', '.join(sorted(ALLOWED[rule]))}")
    assert not wrong


def test_the_runtimes_parts_stand_one_on_the_other() -> None:
    wrong = []
    for name, imported in IMPORTS:
        if within(name, {"triune_runtime"}) and name != "triune_runtime" and within(imported, {"triune_runtime"}):
            (line, part), (other_line, other) = level(name), level(imported)
            if other != part and other_line >= line:
                wrong.append(f"{name} imports {imported}; {other} does not stand below {part}")
    assert not wrong


def test_packages_from_outside_have_their_adapters() -> None:
    wrong = []
    for name, imported in IMPORTS:
        package = rule_of(imported, ADAPTERS)
        if package is not None and not within(name, ADAPTERS[package]):
            wrong.append(f"{name} imports {package}; only {', '.join(sorted(ADAPTERS[package])) or 'tests'} may")
    assert not wrong


def test_no_import_is_hidden_from_these_rules() -> None:
    hidden = []
    for name, tree in TREES.items():
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        hidden += [f"{name} uses {word}" for word in sorted(used & BY_NAME) if name not in DYNAMIC]
    assert not hidden, f"import in the usual way, or say in DYNAMIC why not: {hidden}"


def test_tritons_models_use_the_runtime_alone() -> None:
    for path in sorted((ROOT / "model_repository").rglob("*.py")):
        for imported in imports(path.parts[-3], ast.parse(path.read_text("utf-8")), False):
            package = imported.partition(".")[0]
            assert package not in PACKAGES.keys() - {"triune_runtime"}, f"{path} imports {imported}"


def tracked(pattern: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).is_file()]


def test_every_package_is_under_these_rules() -> None:
    tops = {path.relative_to(ROOT).parts[0] for path in tracked("*.py")}
    assert tops <= {folder.split("/")[0] for folder in PACKAGES.values()} | {
        "bench",
        "docker",
        "model_repository",
        "requirements",
        "tests",
    }
    assert TREES.keys() >= PACKAGES.keys()


def test_no_file_is_too_long() -> None:
    long = {str(p.relative_to(ROOT)): n for p in tracked("*.py") if (n := len(p.read_text("utf-8").splitlines())) > LONGEST}
    assert not long, f"over {LONGEST} lines: {long}"


def test_model_files_are_thin() -> None:
    long = [p for p in (ROOT / "model_repository").rglob("model.py") if len(p.read_text("utf-8").splitlines()) >= 100]
    assert not long


def test_generic_folder_names_are_not_importable() -> None:
    for folder in ("builder", "clients", "docker", "gateway", "models", "runtime", "server", "model_repository/tokenize"):
        assert not (ROOT / folder / "__init__.py").exists(), folder


def test_git_holds_no_large_file() -> None:
    large = {str(p.relative_to(ROOT)) for p in tracked("*") if p.stat().st_size > 500_000}
    assert large <= {"models/r1-nano/checkpoint/model.safetensors"}
