"""Every hint of the builder can be followed: what it names exists, make can pass it, and it was not just tried.

Run: pytest tests/builder/test_hints.py
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fakes.tiny_build import LIMITS, TinyTools, settings, write_checkpoint
from fakes.tiny_deepseek import tiny_checkpoint as tiny_deepseek
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import FakeCheckpoint, tiny_checkpoint
from triune_builder import cli
from triune_builder.checkpoint import open_checkpoint
from triune_builder.errors import BuildError, option
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display
from triune_builder.shapes import check_shapes
from triune_builder.targets import every_target, find_target
from triune_builder.targets.cpu.compiling import compile_engine
from triune_runtime.manifest import Limits

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "builder" / "triune_builder"
SOURCES = sorted(SOURCE.rglob("*.py"))
OPTIONS = {name.replace("_", "-") for name in inspect.signature(cli.build).parameters}
OF_A_COMMAND = {  # part of the builder -> the options of the one command that is told by it
    part: {
        name.removeprefix("--")
        for param in get_command(cli.app).commands[command].params  # type: ignore[attr-defined]
        for name in param.opts
    }
    for part, command in (("planning", "plan"), ("comparing", "compare"))
}
NOT_OURS = {"force", "dry-run", "merge"}  # switches of one run, and another program's


def make_variables() -> set[str]:
    said = re.search(r"^SETTINGS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert said is not None
    return set(said[1].replace("\\\n", " ").split())


def hints() -> Iterator[tuple[str, str]]:
    """Where each hint of the builder stands, and its source."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "BuildError" and len(node.args) > 1:
                yield f"{path.relative_to(SOURCE).as_posix()}:{node.lineno}", ast.unparse(node.args[1])


def test_options_that_hints_name_are_there_and_make_can_pass_them() -> None:
    found = list(hints())
    assert len(found) > 60
    for where, hint in found:
        for name in re.findall(r"option\('(\w+)'", hint):
            assert name.replace("_", "-") in OPTIONS, f"{where} names {name}, which is no option"
            assert name.upper() in make_variables(), f"{where} names {name}, which make cannot pass"
        written = set(re.findall(r"(?<![-\w])--([a-z][a-z-]+)", hint)) - NOT_OURS
        if (own := OF_A_COMMAND.get(where.partition("/")[0])) is not None:
            assert written <= own, f"{where} names {written}, which its command has not"
            continue
        assert written <= {"build-dir", "model-repository", "target"}, f"{where}: say {written} with option()"
        for variable in re.findall(r"\b([A-Z_]{4,})=", hint):
            assert variable in make_variables() | {"MODEL"}, f"{where} names {variable}, which make does not know"


def test_precisions_that_hints_name_are_there() -> None:
    known = {name for target in every_target() for name in target.precisions}
    for where, hint in hints():
        assert set(re.findall(r"option\('precision', '(\w+)'\)", hint)) <= known, where


def test_an_option_is_said_for_both_doors() -> None:
    assert option("max_length", 512) == "--max-length 512 (make: MAX_LENGTH=512)"
    printed = subprocess.run(
        ["make", "-n", "engine", "MAX_LENGTH=512", "PRECISION=fp32"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "TRIUNE_MAX_LENGTH='512'" in printed and "TRIUNE_PRECISION='fp32'" in printed


def plain(**changes: int) -> FakeCheckpoint:
    return tiny_checkpoint(**{"hidden_size": 64, "intermediate_size": 96, "head_dim": 16} | changes)


# What does not fit -> a checkpoint like that.
SHAPES = {
    "columns of all": lambda: plain(hidden_size=80),
    "columns of some": lambda: plain(intermediate_size=100),
    "columns of the experts": lambda: tiny_deepseek(moe_intermediate_size=48, v_head_dim=16),
    "nothing": plain,
    "heads": lambda: plain(head_dim=24),
    "odd heads": lambda: plain(head_dim=10),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_what_a_hint_names_instead_really_fits(tmp_path: Path, shape: str, target: str) -> None:
    model = write_folder(tmp_path / "model", SHAPES[shape]())
    checkpoint = open_checkpoint(str(model), cache=tmp_path)
    for precision in find_target(target).precisions:
        capable = {"options": {"compute_capability": ["8.9"]}} if target == "tensorrt" else {}
        plan = BuildPlan(model=str(model), target=target, precision=precision, **capable)
        try:
            check_shapes(plan, checkpoint, find_target(plan.target))
        except BuildError as error:
            hint = str(error.hint)
            for named in re.findall(r"--precision (\w+)|, or ([\w, ]+)$", hint):
                for other in filter(None, re.split(r"[, ]+", " ".join(named))):
                    assert other != precision, f"{hint} was just tried"
                    check_shapes(
                        BuildPlan(model=str(model), target=target, precision=other, **capable), checkpoint, find_target(target)
                    )
            if not re.search(r"--precision|--target", hint):
                assert "takes this model" in hint
            if other_target := re.search(r"--target (\w+)", hint):
                check_shapes(BuildPlan(model=str(model), target=other_target[1]), checkpoint, find_target(other_target[1]))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "columns of the experts"])
def test_what_passes_the_check_compiles_and_what_does_not_is_refused_before(tmp_path: Path, shape: str) -> None:
    model = write_folder(tmp_path / "model", SHAPES[shape]())
    checkpoint = open_checkpoint(str(model), cache=tmp_path)
    for precision in find_target("cpu").precisions:
        plan = BuildPlan(model=str(model), precision=precision, limits=Limits(max_length=32))
        (folder := tmp_path / precision).mkdir()
        fits = compiles = True
        try:
            check_shapes(plan, checkpoint, find_target(plan.target))
        except BuildError:
            fits = False
        try:
            compile_engine(plan, checkpoint, folder, Display(quiet=True).stage)
        except BuildError:
            compiles = False
        assert fits == compiles, f"{precision}: the check says {fits}, the build {compiles}"


@pytest.mark.parametrize("dry", [True, False])
def test_columns_that_the_default_cannot_hold_are_said_before_anything_is_built(tmp_path: Path, dry: bool) -> None:
    model = write_folder(tmp_path / "model", plain(hidden_size=80))
    command = ["build", "--model", str(model), "--build-dir", str(tmp_path / "build"), *(["--dry-run"] if dry else [])]
    found = CliRunner().invoke(cli.app, command)
    assert found.exit_code == 1 and "export" not in found.stderr and "quantize" not in found.stderr
    assert "has 80 columns, which blocks of 32 do not divide" in found.stderr
    (hint,) = re.findall(r"hint: (.*)", found.stderr)
    assert hint == "choose --precision fp32 (make: PRECISION=fp32), or bf16, fp16"


def test_an_engine_over_its_budget_at_the_nearest_precision_is_not_told_to_choose_it(tmp_path: Path) -> None:
    model, tools = write_checkpoint(tmp_path / "m.gguf"), TinyTools(faults={"noise": 1.0})
    for precision, nearer in (("int8", True), ("fp32", False)):
        with pytest.raises(BuildError, match="over its budget") as caught:
            tools.build(BuildPlan(model=str(model), precision=precision, limits=LIMITS), settings(tmp_path))
        assert ("--precision fp32" in str(caught.value.hint)) == nearer


def test_a_gpu_that_nobody_knows_is_refused_by_name() -> None:
    for precision in ("fp16", "fp8"):
        with pytest.raises(BuildError, match=r"unknown compute capability '99'"):
            BuildPlan(target="tensorrt", precision=precision, options={"compute_capability": ["99"]})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ({"precision": "w8a9"}, "w8a8"),
        ({"precision": "FP32"}, "fp32"),
        ({"target": "tensort"}, "tensorrt"),
        ({"verify": "ful"}, "full"),
    ],
)
def test_a_mistyped_value_is_answered_with_what_was_meant(wrong: dict[str, str], meant: str) -> None:
    with pytest.raises(BuildError) as caught:
        BuildPlan(**wrong)  # type: ignore[arg-type]
    assert caught.value.hint == f"did you mean {meant}?"


def test_nothing_is_left_of_a_build_that_was_refused(tmp_path: Path) -> None:
    model = write_folder(tmp_path / "model", plain(hidden_size=80))
    with pytest.raises(BuildError):
        build(BuildPlan(model=str(model)), Settings(build_dir=tmp_path / "build"), display=Display(quiet=True))
    assert not list((tmp_path / "build").glob("*/cpu/*"))
