"""A target is known by its own folders and by the two tables, and by nothing else. Run: pytest tests/test_targets.py"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from triune_builder import targets as builder
from triune_builder.errors import BuildError
from triune_runtime import targets as runtime
from triune_runtime.errors import ManifestError

ROOT = Path(__file__).parents[1]
AREAS = ("builder", "runtime", "server", "gateway", "model_repository")
IMPORTERS = {  # the modules that import by a name made while the program runs, past the rules of test_layout.py
    "builder/triune_builder/targets/__init__.py", "builder/triune_builder/targets/tensorrt/adapter.py",
    "builder/triune_builder/targets/tensorrt/classic/worker.py",
    "runtime/triune_runtime/machine.py", "runtime/triune_runtime/targets/__init__.py",
    "runtime/triune_runtime/targets/tensorrt/preflight.py",
}  # fmt: skip
TABLES = {"builder/triune_builder/targets/__init__.py", "runtime/triune_runtime/targets/__init__.py"}
SHORT = {"trt": "tensorrt", "TensorRt": "tensorrt"}  # how identifiers call one of them
NAMES = sorted({*builder.TARGETS, *runtime.TARGETS, *SHORT})
PLATFORM = {  # where a name is that of a platform's own interface: CUDA is what two targets and the machine are spoken to with
    "cuda": re.compile(
        r"runtime/triune_runtime/machine\.py|/targets/(device|tensorrt)/|/container_checks\.py|/doctor/|/planning/formats\.py"
    ),
    # Which image has a target: there is one for GPUs. And the libraries that a machine has, and a process has in memory.
    "tensorrt": re.compile(r"/container_checks\.py|/doctor/"),
    # The other image's name; what the kernel calls a processor; and one of vLLM's platforms.
    "cpu": re.compile(r"/containers\.py|/cgroup\.py|/doctor/|/targets/vllm/"),
    # A server, too, whose requests are understood, a package that a machine has, and an engine whose costs a plan counts.
    "vllm": re.compile(r"^gateway/|/(options|contracts|serving)/|/constraints/guide\.py|/doctor/software\.py|/planning/"),
}
OTHERS = re.compile(r"(tensorrt|trt)_llm|vllm:", re.IGNORECASE)  # a server whose requests are understood, metrics' names


def names_in(text: str) -> set[str]:
    """The targets that a string or an identifier names: as a word, or as a part of a name."""
    text = OTHERS.sub("", text)
    return {name for name in NAMES if re.search(rf"(?<![^\W_]){name}(?![a-z0-9])", text)}


def spoken(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every string but docstrings, and of every identifier."""
    documented = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
    docstrings = {id(n.value) for node in documented for n in node.body if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield line, text
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text) | ast.ClassDef(name=text):
                yield line, text
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text) | ast.keyword(arg=str(text)):
                yield line, text
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for alias in names:
                    yield line, f"{getattr(node, 'module', None) or ''} {alias.name}"


def named_in(path: str, source: str) -> list[str]:
    """Where the file at `path` names a target that is not its own."""
    own = {name for name in NAMES if f"/targets/{SHORT.get(name, name)}/" in path}
    own |= {name for name, places in PLATFORM.items() if places.search(path)}
    found = [] if path in TABLES else spoken(ast.parse(source))
    return [f"{path}:{line}: {text[:60]!r}" for line, text in found if names_in(text) - own]


def test_no_target_is_named_outside_its_folders() -> None:
    paths = [path for area in AREAS for path in sorted((ROOT / area).rglob("*.py"))]
    assert len(paths) > 200
    named = [place for p in paths for place in named_in(p.relative_to(ROOT).as_posix(), p.read_text("utf-8"))]
    assert not named, "\n".join(named)


def test_only_tables_and_adapters_import_by_a_made_up_name() -> None:
    paths = (path for area in AREAS for path in (ROOT / area).rglob("*.py"))
    found = {p.relative_to(ROOT).as_posix() for p in paths if re.search(r"\bimport_module\b|__import__", p.read_text("utf-8"))}
    assert found == IMPORTERS


@pytest.mark.parametrize(
    "source",
    ['if target == "tensorrt": pass', "from .targets.cpu import precisions", "trt_plan = 1", "x.tensorrt", "def f(cpu): pass",
     'hint = "choose --target tensorrt"', "class TensorRtThings: pass"],
)  # fmt: skip
def test_a_name_outside_is_seen(source: str) -> None:
    assert named_in("builder/triune_builder/pipeline.py", source)


def test_prose_and_a_targets_own_folder_may_name_it() -> None:
    assert not named_in("builder/triune_builder/pipeline.py", '"""For the target "cpu"."""\nx = of_tensorrt_llm("the CPU")')
    assert not named_in("builder/triune_builder/targets/tensorrt/target.py", 'trt = "tensorrt"')
    assert named_in("builder/triune_builder/targets/tensorrt/target.py", "from ..cpu.compiling import record")


def test_every_target_that_is_built_for_can_be_run() -> None:
    assert set(builder.TARGETS) <= set(runtime.TARGETS)
    assert builder.DEFAULT_TARGET in builder.TARGETS
    for name in runtime.TARGETS:
        assert isinstance(runtime.find_target(name).bit_exact, bool)


def test_a_targets_row_fits_itself() -> None:
    for name, target in zip(builder.TARGETS, builder.every_target(), strict=True):
        assert target.name == name
        assert {target.default_precision, target.float_twin} <= target.precisions.keys()
        assert all(set(target.proofs) == precision.budgets.keys() for precision in target.precisions.values())
        assert "off" in target.speculations and "none" not in target.proofs and "auto" not in target.proofs
        for flag in target.flags:
            assert not any(flag.name == f.name for other in builder.every_target() if other is not target for f in other.flags)
        assert all((ROOT / "builder/triune_builder/targets" / package).is_dir() for package in target.code)
        assert all((ROOT / "runtime/triune_runtime/targets" / package).is_dir() for package in target.runtime_code)


def test_an_unknown_target_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(BuildError, match="unknown target 'abacus'; known: cpu, tensorrt, cuda"):
        builder.find_target("abacus")
    with pytest.raises(ManifestError, match="no runner for target 'abacus'; known: cpu, tensorrt"):
        runtime.find_target("abacus")
