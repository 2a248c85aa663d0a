"""Run: pytest tests/builder/test_pipeline.py; whole builds in miniature, in one process."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fakes.tiny_build import LIMITS, TinyTools, settings, snapshot, write_checkpoint
from triune_builder.errors import BuildError
from triune_builder.pipeline import Built
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display
from triune_builder.stage_cache import StageCache, locked
from triune_builder.verify.report import BuildReport
from triune_runtime.manifest import EngineManifest


class Workshop:
    """A checkpoint, a build folder and tools to build with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = write_checkpoint(root / "models" / "tiny.gguf")
        self.settings = settings(root)
        self.tools = TinyTools()
        self.lines = StringIO()

    def plan(self, **changes: Any) -> BuildPlan:
        return BuildPlan(**({"model": str(self.model), "precision": "int8", "limits": LIMITS} | changes))

    def build(self, *, force: bool = False, tools: TinyTools | None = None, **changes: Any) -> Built:
        self.tools.calls.clear()
        display = Display(Console(file=self.lines, width=100))
        return (tools or self.tools).build(self.plan(**changes), self.settings, force=force, display=display)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_a_build_publishes_what_triton_mounts(workshop: Workshop) -> None:
    built = workshop.build()
    assert built.repository == workshop.plan().repository(workshop.root / "build")
    files = {p.relative_to(built.repository).as_posix() for p in built.repository.rglob("*") if p.is_file()}
    assert files == {
        "tokenize/config.pbtxt", "tokenize/1/model.py", "generate/config.pbtxt", "generate/1/model.py",
        "generate/1/shared.py", "triune/config.pbtxt", "generate/1/engine.json", "generate/1/model.onnx",
        "generate/1/model.data", "generate/1/tokenizer.json", "generate/1/report.json", "generate/1/report.txt",
    }  # fmt: skip
    assert not any(p.is_symlink() for p in built.repository.rglob("*"))
    manifest = EngineManifest.load(built.repository / "generate" / "1")
    assert (manifest.model, manifest.precision, manifest.limits) == ("tiny", "int8", LIMITS)
    assert manifest.inputs_hash == built.inputs_hash
    report = BuildReport.read(built.repository / "generate" / "1")
    assert [s.name for s in report.stages] == ["fetch", "quantize", "export", "write", "verify"]
    assert set(report.files) == files - {"generate/1/report.json", "generate/1/report.txt"}


def test_an_unchanged_build_does_no_work(workshop: Workshop) -> None:
    first = workshop.build()
    before = {p: p.stat().st_mtime_ns for p in workshop.root.rglob("*")}
    again = workshop.build()
    assert again == dataclasses.replace(first, unchanged=True)
    assert workshop.tools.calls == []
    changed = {p for p in workshop.root.rglob("*") if before.get(p) != p.stat().st_mtime_ns}
    assert changed <= {workshop.root / "build" / ".cache" / "hashes.json", workshop.root / "build" / ".cache"}
    workshop.build()
    assert workshop.tools.calls == []


def test_the_check_for_changes_imports_no_engine(workshop: Workshop) -> None:
    code = "import sys, triune_builder.cli; print([m for m in ('onnx', 'onnxruntime', 'onnx_ir', 'gguf') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})  # fmt: skip
    assert found.stdout.strip() == "[]"


def test_each_change_redoes_only_what_depends_on_it(workshop: Workshop) -> None:
    first = workshop.build()
    (workshop.root / "template" / "tokenize" / "1" / "model.py").write_text("# other\n")
    assert workshop.build().inputs_hash != first.inputs_hash
    assert workshop.tools.calls == ["fetch"]
    assert (first.repository / "tokenize" / "1" / "model.py").read_text() == "# other\n"
    workshop.build(limits=dataclasses.replace(LIMITS, max_sequences=2))
    assert workshop.tools.calls == ["fetch", "verify"]
    workshop.build(precision="fp32")
    assert workshop.tools.calls == ["fetch", "compile", "verify"]
    write_checkpoint(workshop.model, seed=1)
    workshop.build()
    assert workshop.tools.calls == ["fetch", "compile", "verify"]
    write_checkpoint(workshop.model, seed=0)
    workshop.build()
    assert workshop.tools.calls == ["fetch"]  # went back to what was still kept


def test_another_rounding_is_another_engine(workshop: Workshop) -> None:
    nearest = workshop.build(precision="int4")
    assert workshop.build(precision="int4", rounding="gptq").inputs_hash != nearest.inputs_hash
    assert workshop.tools.calls == ["fetch", "compile", "verify"]


def test_the_same_file_at_another_place_gives_the_same_build(workshop: Workshop, tmp_path: Path) -> None:
    first = workshop.build()
    workshop.model = write_checkpoint(tmp_path / "elsewhere" / "tiny.gguf")
    assert workshop.build().inputs_hash == first.inputs_hash
    assert workshop.tools.calls == ["fetch"]


def test_force_does_everything_again(workshop: Workshop) -> None:
    first = workshop.build()
    before = snapshot(first.repository)
    assert not workshop.build(force=True).unchanged
    assert workshop.tools.calls == ["fetch", "compile", "verify"]
    assert snapshot(first.repository) == before


@pytest.mark.parametrize(
    "victim", ["generate/1/model.data", "triune/config.pbtxt", "generate/1/engine.json", "generate/1/report.json"]
)
@pytest.mark.parametrize("how", ["removed", "changed"])
def test_a_damaged_repository_is_made_whole(workshop: Workshop, victim: str, how: str) -> None:
    built = workshop.build()
    before = snapshot(built.repository)
    path = built.repository / victim
    contents = path.read_bytes()
    path.unlink()  # not written through: the file may be a hard link into the cache
    if how == "changed":
        path.write_bytes(contents[:-1] + b"#")
    workshop.build()
    assert "compile" not in workshop.tools.calls
    assert snapshot(built.repository) == before


def test_an_engine_written_over_through_its_link_is_compiled_again(workshop: Workshop) -> None:
    built = workshop.build()
    before = snapshot(built.repository)
    with (built.repository / "generate" / "1" / "model.data").open("r+b") as file:
        file.write(b"spoiled")
    workshop.build()
    assert "compile" in workshop.tools.calls
    assert snapshot(built.repository) == before


def test_a_build_over_its_budget_publishes_nothing_and_the_old_one_stays(workshop: Workshop) -> None:
    built = workshop.build()
    before = snapshot(built.repository)
    for _ in range(2):  # the second finds the first's figures and refuses without computing them again
        with pytest.raises(BuildError, match=r"over its budget and was not published: .*logits error") as caught:
            workshop.build(precision="fp32", tools=TinyTools({"noise": 1.0}))
        assert "report.txt" in str(caught.value.hint)
        assert snapshot(built.repository) == before
    assert "OVER ITS BUDGET" in (workshop.plan().folder(workshop.root / "build") / "failed" / "report.txt").read_text()
    assert workshop.build().unchanged


def test_a_first_build_over_its_budget_leaves_no_repository(workshop: Workshop) -> None:
    with pytest.raises(BuildError, match="over its budget"):
        workshop.build(tools=TinyTools({"noise": 1.0}))
    assert not workshop.plan().repository(workshop.settings.build_dir).exists()


def test_a_good_build_removes_the_report_of_a_failed_one(workshop: Workshop) -> None:
    with pytest.raises(BuildError, match="over its budget"):
        workshop.build(tools=TinyTools({"noise": 1.0}))
    workshop.build(force=True)
    assert not (workshop.plan().folder(workshop.root / "build") / "failed").exists()


def test_more_tokens_than_the_model_was_made_for_are_refused(workshop: Workshop) -> None:
    with pytest.raises(BuildError, match=r"--max-length is 5,000; .* made for 4,096 tokens"):
        workshop.build(limits=dataclasses.replace(LIMITS, max_length=5000))


def test_two_builds_at_once_are_refused_with_the_holder_named(workshop: Workshop) -> None:
    refused = pytest.raises(BuildError, match=rf"already running in .*build: process {os.getpid()}, building something")
    with locked(workshop.root / "build" / ".lock", "building something"), refused as error:
        workshop.build()
    assert f"(make: BUILD_DIR={workshop.root}/build-2)" in (error.value.hint or "")
    workshop.build()
    with locked(workshop.root / "build" / ".lock", "building something"):
        assert workshop.build().unchanged  # asking whether anything changed takes no lock


def test_only_the_newest_results_are_kept(workshop: Workshop) -> None:
    for seed in range(5):
        write_checkpoint(workshop.model, seed)
        workshop.build()
    entries = sorted(p.name.split("-")[0] for p in (workshop.root / "build" / ".cache").iterdir() if p.is_dir())
    assert entries == ["checkpoints"] + ["engine"] * 3 + ["verify"] * 5


def test_the_stages_are_shown_as_plain_lines_without_a_terminal(workshop: Workshop) -> None:
    workshop.build()
    shown = [line.split()[0] for line in workshop.lines.getvalue().splitlines()]
    assert shown == ["fetch", "limits", "quantize", "export", "write", "verify", "assemble"]
    assert "peak" in workshop.lines.getvalue()


def test_a_stage_that_fails_leaves_no_result(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)

    def fill(folder: Path) -> None:
        (folder / "half").write_text("")
        raise BuildError("no")

    with pytest.raises(BuildError):
        cache.make("engine", "k" * 64, fill)
    assert cache.find("engine", "k" * 64) is None
    cache.clean()
    assert list(tmp_path.iterdir()) == []
