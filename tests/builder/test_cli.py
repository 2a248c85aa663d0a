"""Run: pytest tests/builder/test_cli.py"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fakes.tiny_build import LIMITS, TinyTools, settings, write_checkpoint
from triune_builder import cli
from triune_builder.errors import BuildError
from triune_builder.plan import BuildPlan, repository_of
from triune_runtime.errors import ManifestError


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint; the command builds it with tiny tools and sizes."""
    tiny = settings(tmp_path)

    def run_build(plan: BuildPlan, asked: Any, **options: Any) -> Any:
        return TinyTools().build(plan, dataclasses.replace(tiny, build_dir=asked.build_dir), **options)

    monkeypatch.setattr(cli, "run_build", run_build)
    return write_checkpoint(tmp_path / "tiny.gguf")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def options(model: Path) -> list[object]:
    sizes = (
        "--max-sequences",
        LIMITS.max_sequences,
        "--max-length",
        LIMITS.max_length,
        "--prefill-chunk",
        LIMITS.prefill_chunk,
    )
    return ["--model", model, "--build-dir", model.parent / "build", *sizes]


def test_build_prints_the_repository_last(model: Path) -> None:
    found = invoke("build", *options(model))
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines() == [str(repository_of(str(model), "cpu", model.parent / "build"))]
    assert "verify" in found.stderr


def test_build_as_json_is_one_line(model: Path) -> None:
    invoke("build", *options(model))
    found = json.loads(invoke("build", *options(model), "--json").stdout)
    assert found["unchanged"] is True
    assert found["repository"] == str(repository_of(str(model), "cpu", model.parent / "build"))
    assert found["perplexity_engine"] == pytest.approx(found["perplexity_reference"], rel=1e-3)


def test_force_builds_again(model: Path) -> None:
    invoke("build", *options(model))
    assert json.loads(invoke("build", *options(model), "--force", "--json").stdout)["unchanged"] is False


def test_a_report_is_found_whatever_the_targets_precisions(model: Path) -> None:
    found = invoke("report", "--target", "tensorrt", "--model", model, "--build-dir", model.parent / "build")
    assert found.exit_code == 1
    folder = repository_of(str(model), "tensorrt", model.parent / "build")
    assert found.stderr.startswith(f"error: no engine of {model} for tensorrt is built in ")
    assert f"make engine MODEL={model} TARGET=tensorrt" in found.stderr
    invoke("build", *options(model))
    repository_of(str(model), "cpu", model.parent / "build").parent.rename(folder.parent)
    assert (
        "perplexity, engine"
        in invoke("report", "--target", "tensorrt", "--model", model, "--build-dir", model.parent / "build").stdout
    )


def test_flags_of_targets_are_shown_and_given_to_the_plan(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = " ".join(invoke("build", "--help").stdout.split())
    assert (
        "--compute-capability" in shown
        and "repeatable" in shown
        and "--weight-streaming" in shown
        and "--no-weight-streaming" not in shown
    )
    plans: list[BuildPlan] = []

    def keep(plan: BuildPlan, *_: object, **__: object) -> None:
        plans.append(plan)
        raise BuildError("enough")

    monkeypatch.setattr(cli, "run_build", keep)
    invoke("build", "--target", "tensorrt", "--compute-capability", "8.9", "--compute-capability", "12.0", "--weight-streaming")
    invoke("build", "--target", "tensorrt")
    assert [dict(plan.options) for plan in plans] == [
        {"compute_capability": ["8.9", "12.0"], "weight_streaming": True}, {},
    ]  # fmt: skip
    wrong = invoke("build", "--weight-streaming")
    assert wrong.stderr.startswith("error: --compute-capability and --weight-streaming are of target tensorrt, not of cpu")


def test_report_shows_the_table(model: Path) -> None:
    invoke("build", *options(model))
    found = invoke("report", "--model", model, "--build-dir", model.parent / "build")
    assert found.exit_code == 0
    assert "perplexity, engine" in found.stdout
    as_json = invoke("report", "--model", model, "--build-dir", model.parent / "build", "--json")
    assert json.loads(as_json.stdout)["target"] == "cpu"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["build", "--precision", "int3"], "error: unknown precision 'int3'; known: fp32, bf16, fp16, fp8, int8,"),
        (["build", "--target", "abacus"], "error: unknown target 'abacus'; known: cpu, tensorrt, cuda, vllm\n\nhint: "),
        (["build", "--max-length", "0"], "error: --max-length is 0; it can be 1 to"),
        (["build", "--max-length", "long"], "error: --max-length is 'long'; it is a number of tokens, or auto"),
        (
            ["report", "--build-dir", "/nonexistent"],
            "error: no engine of smollm2-135m for cpu is built in /nonexistent",
        ),
    ],
)
def test_errors_say_what_and_what_to_do(arguments: list[str], says: str) -> None:
    found = invoke(*arguments)
    assert found.exit_code == 1
    assert found.stdout == ""
    assert found.stderr.startswith(says)
    assert found.stderr.count("\n\nhint: ") == 1


@pytest.mark.parametrize("error", [BuildError("too bad", "try less"), ManifestError("too bad", "try less")])
def test_errors_of_the_builder_and_the_runtime_look_alike(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "run_build", fail)
    found = invoke("build")
    assert (found.exit_code, found.stderr) == (1, "error: too bad\n\nhint: try less\n")


def test_the_module_runs() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    found = subprocess.run([sys.executable, "-m", "triune_builder", "build", "--precision", "int3"],
                           capture_output=True, text=True, env=environment, check=False)  # fmt: skip
    assert found.returncode == 1
    assert found.stderr.startswith("error: unknown precision 'int3'")


def test_defaults_are_those_of_the_plan() -> None:
    text = invoke("build", "--help").stdout
    for default in (BuildPlan().model, "auto", str(BuildPlan().limits.max_sequences), "build"):
        assert f"[default: {default}]" in " ".join(text.split())
    assert f"by default {BuildPlan().precision} for cpu, fp16 for tensorrt" in " ".join(text.split())


def test_what_is_built_is_listed(model: Path) -> None:
    build_dir = model.parent / "build"
    assert "nothing is built" in invoke("list", "--build-dir", build_dir).stdout
    invoke("build", *options(model))
    repository = str(repository_of(str(model), "cpu", build_dir))
    shown = invoke("list", "--build-dir", build_dir).stdout
    assert str(model) in shown and repository in shown and "cpu w8a8" in shown
    (found,) = json.loads(invoke("list", "--build-dir", build_dir, "--json").stdout)
    assert (found["model"], found["target"], found["repository"]) == (str(model), "cpu", repository)
