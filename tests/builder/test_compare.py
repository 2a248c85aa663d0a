"""`triune compare` over real engines of a tiny model. Run: pytest tests/builder/test_compare.py"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from fakes.tiny_folders import write_folder
from fakes.tiny_llama import tiny_checkpoint
from triune_builder import cli
from triune_builder.comparing import command, running
from triune_builder.comparing.asking import asked_of
from triune_builder.errors import BuildError
from triune_builder.stage_cache import locked
from triune_runtime.errors import DeviceLost
from triune_server import command as server

ROOT = Path(__file__).parents[2]
SMALL = ("--max-sequences", 2, "--max-length", 48, "--prefill-chunk", 16)
WORDS = "A letter of thanks, written to no one in particular, about the weather, the harvest and the price of paper. " * 4


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], env={"COLUMNS": "120"})


def compare(model: Path, precisions: str, *arguments: object, rounds: int = 1) -> Result:
    own = ("--precisions", precisions, "--rounds", rounds, "--build-dir", model.parent / "build", *SMALL)
    return invoke("compare", model, *own, *arguments)


def rows_of(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.output
    (model,) = json.loads(result.stdout)["models"]
    return {row["name"]: row for row in model["rows"]}


def tiny(folder: Path) -> Path:
    return write_folder(folder / "model", tiny_checkpoint(hidden_size=64, intermediate_size=96, head_dim=16))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A model of random numbers, which four bits lose much of, compared with a text of its user's."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "letters.txt").write_text(WORDS)
    model = tiny(folder)
    plot = ("--plot", folder / "found.svg", "--text", f"post={folder / 'letters.txt'}")
    return model, compare(model, "int4,fp32,int4-gptq,w8a8,fp8", *plot, "--json", rounds=2)


def test_each_precision_has_all_figures_also_one_that_is_over_its_budget(made: tuple[Path, Result]) -> None:
    rows = rows_of(made[1])
    assert abs(rows["fp32"]["perplexity_loss"]) < 1e-4 and rows["fp32"]["greedy_agreement"] == 1.0
    assert any("allowed" in said for said in rows["int4"]["over_budget"])
    for name in ("fp32", "w8a8", "int4", "int4-gptq"):
        row = rows[name]
        assert row["failed"] is None and row["perplexity"] > 0 and row["mean_kl"] >= 0
        assert set(row["tokens_per_s"]) == {"1", "2", "prefill"}
        assert all(0 < one["low"] <= one["median"] <= one["high"] for one in row["tokens_per_s"].values())
        assert row["memory_bytes"] > 1e7 and row["peak_bytes"] > 1e7
    assert rows["int4"]["disk_bytes"] < rows["fp32"]["disk_bytes"]
    assert rows["int4-gptq"]["mean_kl"] < rows["int4"]["mean_kl"]
    assert rows["int4-gptq"]["build_s"] > rows["int4"]["build_s"] > 0


def test_what_fails_is_a_row_with_its_reason_and_comes_last(made: tuple[Path, Result]) -> None:
    rows = rows_of(made[1])
    assert "no FP8 weights" in rows["fp8"]["failed"] and rows["fp8"]["tokens_per_s"] == {}
    assert list(rows)[-1] == "fp8"
    near = [row["mean_kl"] for row in rows.values() if row["mean_kl"] is not None]
    assert near == sorted(near) and next(iter(rows)) == "fp32"


def test_a_users_text_is_read_beside_the_others(made: tuple[Path, Result]) -> None:
    rows = rows_of(made[1])
    assert abs(rows["fp32"]["texts"]["post"]["loss"]) < 1e-4 < abs(rows["int4"]["texts"]["post"]["loss"])
    assert rows["fp32"]["texts"]["post"]["tokens"] > 100 and "english" in rows["fp32"]["texts"]
    assert rows["int4"]["worst_text"] == max(rows["int4"]["texts"].items(), key=lambda item: item[1]["loss"])[0]


def test_the_article_stands_beside_what_was_measured(made: tuple[Path, Result]) -> None:
    (model,) = json.loads(made[1].stdout)["models"]
    found = {one["name"]: one for one in model["article"]}
    rows = rows_of(made[1])
    assert found.keys() == {"int4", "int4-gptq"}
    assert found["int4"]["article"] == {"loss": 0.018, "speed": 3.7, "saved": 0.75}
    assert found["int4"]["here"]["loss"] == rows["int4"]["perplexity_loss"]
    assert found["int4"]["here"]["saved"] == 1 - rows["int4"]["disk_bytes"] / rows["fp32"]["disk_bytes"]


def test_the_picture_names_every_precision_that_was_measured(made: tuple[Path, Result]) -> None:
    drawn = ElementTree.parse(made[0].parent / "found.svg").getroot()
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    for name in ("fp32", "w8a8", "int4", "int4-gptq"):
        assert words.count(name) == 3  # by size, and by the speed of one sequence and of both
    assert "fp8" not in words and "var(" not in (made[0].parent / "found.svg").read_text()


def test_nothing_is_published_and_what_is_published_stays(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    built = invoke("build", "--model", model, "--build-dir", tmp_path / "build", "--precision", "fp32", *SMALL)
    assert built.exit_code == 0, built.output
    repository = Path(built.stdout.strip())
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    found = compare(model, "fp32,w8a8", "--json")
    assert "write      reused" in found.stderr and rows_of(found).keys() == {"fp32", "w8a8"}
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before
    assert [path.name for path in repository.parent.iterdir() if path.is_dir()] == ["repository"]
    again = invoke("build", "--model", model, "--build-dir", tmp_path / "build", "--precision", "w8a8", *SMALL)
    assert "quantize   reused" in again.stderr and "verify     reused" in again.stderr


def test_an_interrupted_comparison_takes_up_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters.txt").write_text(WORDS)
    model, text = tiny(tmp_path), ("--text", tmp_path / "letters.txt")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "_round", interrupt)
        assert compare(model, "fp32,w8a8", *text).exit_code != 0
    shutil.move(tmp_path / "letters.txt", tmp_path / "elsewhere.txt")
    found = compare(model, "fp32,w8a8", "--text", f"letters={tmp_path / 'elsewhere.txt'}")
    assert found.exit_code == 0
    made_anew = re.findall(r"^(export|quantize|write|verify|texts) +\d", found.stderr, re.MULTILINE)
    assert made_anew == [] and found.stderr.count("texts      reused") == 2


def test_an_engine_that_dies_is_a_row_and_engines_run_by_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, order = subprocess.run, []

    def run_or_die(arguments: Sequence[str], **options: Any) -> Any:
        if not str(arguments[-1]).endswith("comparing.worker"):
            return run(arguments, **options)
        precision = json.loads((Path(json.loads(options["input"])["manifest"]) / "engine.json").read_text())["precision"]
        order.append(precision)
        dying = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
        return run(dying if precision == "int8" else arguments, **options)

    monkeypatch.setattr(running.subprocess, "run", run_or_die)
    rows = rows_of(compare(tiny(tmp_path), "fp32,int8,w8a8", "--json", rounds=3))
    assert "ended with -9" in rows["int8"]["failed"] and rows["int8"]["mean_kl"] is not None
    assert rows["fp32"]["failed"] is None and rows["w8a8"]["tokens_per_s"]
    assert order == ["fp32", "int8", "w8a8", "w8a8", "fp32", "fp32", "w8a8"]


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    with locked(tmp_path / "build" / ".lock", "building something"):
        found = compare(model, "fp32")
    assert found.exit_code == 1 and "a build is already running" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--precisions", "fp32,int3"], "--precisions names 'int3'; known: fp32, "),
        (["--precisions", "int4-gtpq"], "--precisions names 'int4-gtpq'"),
        (["--precisions", ","], "--precisions is ',', which names none"),
        (["--rounds", 0], "--rounds is 0; it can be 1 to 100"),
        (["--problems", -1], "--problems is -1; it can be 0 to 10,000"),
        (["--target", "abacus"], "unknown target 'abacus'"),
        (["--target", "vllm"], "--target is vllm, whose engines cannot be measured alone"),
        (["--max-length", "long"], "--max-length is 'long'"),
        (["--text", "none.txt"], "--text is none.txt, which cannot be read: No such file or directory"),
        (["--text", "=x"], "--text is '=x'; it is a file, or KIND=FILE"),
        (["--plot", "x.gif"], "--plot is x.gif; it is the name of a picture, FILE.svg or FILE.png"),
        (["--plot", "nowhere/x.svg"], "--plot is nowhere/x.svg, whose folder is not there"),
        (["--precisions", "fp32,int4", "--calibration", "none.txt"], "--calibration is none.txt, but none of fp32, int4 calib"),
    ],
)
def test_bad_input_is_one_sentence_with_a_remedy_before_anything_is_built(
    tmp_path: Path, arguments: Sequence[object], says: str
) -> None:
    found = invoke("compare", tmp_path, "--build-dir", tmp_path / "build", *arguments)
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.startswith(f"error: {says}") and found.stderr.count("\n\nhint: ") == 1
    assert not (tmp_path / "build").exists()


def test_png_needs_what_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.shutil, "which", lambda name: None)
    found = invoke("compare", tmp_path, "--plot", tmp_path / "x.png")
    assert found.exit_code == 1 and "PNG is made by rsvg-convert, which is not installed" in found.stderr


@pytest.mark.skipif(shutil.which("rsvg-convert") is None, reason="PNG is made by it")
def test_png_is_drawn(made: tuple[Path, Result], tmp_path: Path) -> None:
    done = compare(made[0], "fp32", "--plot", tmp_path / "x.png", "--text", f"[red]a={made[0].parent / 'letters.txt'}")
    assert done.exit_code == 0 and "[red]a" in done.stdout
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_where_no_precision_can_be_measured_the_command_fails(tmp_path: Path) -> None:
    found = compare(tiny(tmp_path), "fp8")
    assert found.exit_code == 1 and "no FP8 weights" in found.stdout


def test_tables_and_markdown_say_the_same(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    found = compare(model, "fp32,int4")
    assert re.search(r"^ *int4 .* over *$", found.stdout, re.MULTILINE)
    assert "int4 is over its budget, `triune build` would not publish it" in found.stdout
    told = compare(model, "fp32,int4", "--markdown").stdout.splitlines()
    assert told[0].startswith(f"{model} for cpu, ") and told[2].startswith("| precision | perplexity | worst kind of text |")
    assert [line.split("|")[1].strip() for line in told[4:6]] == ["fp32", "int4"]
    assert len({line.count("|") for line in told[2:6]}) == 1
    assert re.fullmatch(r"\| int4 \| \S+ \| \+1.80% \| \S+x \| 3.70x \| \d+% \| 75% \|", told[-1])


def test_models_without_problems_are_asked_none(tmp_path: Path) -> None:
    assert rows_of(compare(tiny(tmp_path), "fp32", "--json", "--problems", 5))["fp32"]["problems"] is None


def test_the_model_and_the_limits_may_stand_among_the_settings(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    (file := tmp_path / "triune.toml").write_text(
        f"model = '{model}'\nbuild_dir = '{tmp_path / 'build'}'\nprecision = 'int8'\nmax_sequences = 2\nmax_length = 48\n"
        "prefill_chunk = 16\n[[models]]\nmodel = 'another'\n"
    )
    found = CliRunner().invoke(server.app, ["compare", "--precisions=fp32", "--rounds=1", f"--config={file}", "--json"])
    assert rows_of(found)["fp32"]["tokens_per_s"].keys() == {"1", "2", "prefill"}
    assert json.loads(found.stdout)["models"][0]["model"] == str(model)


def test_a_device_that_is_lost_ends_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object, **__: object) -> None:
        raise DeviceLost("the GPU is gone")

    monkeypatch.setattr(running, "make_engine", lose)
    with pytest.raises(BuildError, match="the GPU is gone"):
        running.compare(asked_of(str(tiny(tmp_path)), "fp32", {}), running.Settings(build_dir=tmp_path), running.Display())
