"""`triune doctor` and `triune profile` as they are typed. Run: pytest tests/server/doctor/test_command.py"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fakes.machine_files import machine
from triune_runtime.command_line import FAILED
from triune_runtime.recorded import Timed
from triune_server.command import app
from triune_server.doctor import command, registry
from triune_server.doctor.context import Context
from triune_server.doctor.finding import Finding, bad, good, poor, unknown
from triune_server.doctor.observing import Observed
from triune_server.doctor.recording import Record
from triune_server.doctor.telling import UNFIT, as_json, exit_code, summary, table
from triune_server.errors import ServerError

FOUND = {
    "gpus": [good("GPU 0", "H200"), bad("ECC", "3 errors", "as root: reset it")],
    "disk": [poor("reads", "slow\x1b[31m", "buy"), unknown("speed", "no file")],
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, done.stderr


def told(found: dict[str, list[Finding]], width: int) -> list[str]:
    """The lines of a table."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table(found))
    return [line.strip() for line in console.export_text().splitlines()]


def seen(groups: dict[str, list[Finding]]) -> Any:
    """Checks that find these."""
    return {name: [lambda context, findings=findings: findings] for name, findings in groups.items()}


def test_findings_are_told_with_their_remedies() -> None:
    lines = told(FOUND, 60)
    assert lines[0] == "gpus" and "BAD   ECC    3 errors" in lines and "-> as root: reset it" in lines
    assert "poor  reads  slow\\x1b[31m" in lines
    assert summary(FOUND) == "unfit: something will not work (1 ok, 1 not known, 1 poor, 1 bad)"
    assert summary({"disk": FOUND["disk"]}) == "fit, and could be better (1 not known, 1 poor)"
    assert summary({"x": [good("a", "b")]}) == "fit (1 ok)" and summary({"x": [unknown("a", "b")]}).startswith(
        "nothing is known"
    )


def test_gpus_of_which_the_same_is_found_share_a_line() -> None:
    found = [good(f"ECC of GPU {n}", "on") for n in range(8)] + [
        good("GPU 0", "H200"),
        good("GPU 1", "H200"),
        good("NUMA", "on"),
    ]
    found[2:3] = [bad("ECC of GPU 2", "3 errors", "reset 2")]
    found[3:4] = [bad("ECC of GPU 3", "3 errors", "reset 3")]
    lines = told({"gpus": found}, 120)
    assert [line.split("  ")[1].strip() for line in lines if line.startswith("ok")] == [
        "ECC of GPUs 0, 1, 4, 5, 6, 7", "GPUs 0, 1", "NUMA",
    ]  # fmt: skip
    assert len([line for line in lines if line.startswith("BAD")]) == 2
    assert len(as_json({"gpus": found})["findings"]) == 11


def test_programs_get_json_and_an_exit_code_of_its_own_where_something_will_not_work() -> None:
    told = as_json(FOUND)
    assert told["fit"] is False and told["counts"] == {"good": 1, "bad": 1, "poor": 1, "unknown": 1}
    assert told["findings"][1] == {
        "group": "gpus", "subject": "ECC", "found": "3 errors", "verdict": "bad", "remedy": "as root: reset it",
    }  # fmt: skip
    assert (exit_code(FOUND), exit_code({"disk": FOUND["disk"]})) == (UNFIT, 0)


@pytest.mark.parametrize(("group", "code"), [("gpus", UNFIT), ("disk", 0)])
def test_only_the_groups_that_are_named_are_looked_at(group: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "GROUPS", seen(FOUND))
    exit, out, _ = run("doctor", "--only", group, "--json")
    told = json.loads(out)
    assert exit == code and {one["group"] for one in told["findings"]} == {group}
    exit, out, _ = run("doctor", "--only", group)
    assert exit == code and ("ECC" in out) == (group == "gpus") and out.splitlines()[-1].startswith(("fit", "unfit"))


def test_a_check_that_cannot_look_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strange_file(context: Context) -> Iterator[Finding]:
        yield from ()
        raise ValueError("no number")

    monkeypatch.setattr(registry, "GROUPS", {"x": [strange_file, lambda context: [good("other", "well")]]})
    found = registry.examine(machine(tmp_path), ["x"])["x"]
    assert found == [unknown("strange file", "could not be looked at: ValueError('no number')"), good("other", "well")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "gpu"], "there are no checks called 'gpu'"),
        (["--peer", "host"], "--peer is 'host'; HOST:PORT was expected"),
        (["--ports", "8000"], "--ports and --listen-host go with --listen"),
        (["--listen-host", "127.0.0.1"], "--ports and --listen-host go with --listen"),
        (["--listen", "7000", "--peer", "b:1"], "--listen takes no --peer"),
        (["--listen", "7000", "--json"], "--listen takes no --peer, --only or --json"),
        (["--only", "network"], "--peer and --only network go together"),
        (["--only", "gpus", "--peer", "b:1"], "--peer and --only network go together"),
        (["--listen", "7000", "--listen-host", "300.1.1.1"], "port 7000 on 300.1.1.1 cannot be used"),
        (["--target", "abacus", "--only", "engine"], "unknown target 'abacus'"),
        (["--listen", "7000", "--ports", "x"], "--ports has 'x'"),
        (["--peer", "127.0.0.1:1"], "127.0.0.1:1 cannot be reached"),
    ],
)
def test_what_is_said_wrongly_is_one_error_with_its_remedy(arguments: list[str], said: str) -> None:
    code, _, err = run("doctor", *arguments)
    assert code == FAILED and err.startswith(f"error: {said}") and "hint: " in err


def test_the_model_that_is_named_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Context] = []

    def examine(context: Context, groups: tuple[str, ...]) -> dict[str, list[Finding]]:
        asked.append(context)
        return {}

    monkeypatch.setattr(command, "examine", examine)
    assert run("doctor", "--model", "r1-nano", "--target", "cuda", "--build-dir", "b", "--seconds", "1")[0] == 0
    (context,) = asked
    assert context.repository is not None and context.repository.parts[-3:] == ("r1-nano", "cuda", "repository")
    assert (context.target, context.seconds, context.wants_gpu) == ("cuda", 1.0, True)
    assert context.said == "MODEL=r1-nano TARGET=cuda BUILD_DIR=b"


@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor", "--seconds", "0"],
        ["doctor", "--seconds", "nan"],
        ["doctor", "--listen", "0"],
        ["doctor", "--listen", "65536"],
        ["profile", "--seconds", "301"],
    ],
)
def test_a_number_that_cannot_be_is_refused_by_its_option(arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2 and f"Invalid value for '{arguments[1]}'" in err


def test_a_profile_needs_a_server_that_runs() -> None:
    code, _, err = run("profile")
    assert code == FAILED and err == "error: no server is running\n\nhint: start one with `make up`\n"


def test_a_profile_is_a_table_a_trace_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = (Timed("step", 0, 4_000_000, {}), Timed("launch", 0, 3_000_000, {}))
    monkeypatch.setattr(Context, "running", object())
    monkeypatch.setattr(Context, "observed", Observed(0, 1.0, (Record("m", 7, 16, 0, 0, 1_000_000_000, events),), (), {}))
    path = tmp_path / "trace.json"
    code, out, _ = run("profile", "--output", str(path))
    assert code == 0 and "m: 1 steps in 1.0 s, 100% idle" in out and "75.0%" in out and "sample" not in out
    assert {one["name"] for one in json.loads(path.read_text())["traceEvents"]} >= {"step", "launch"}
    assert path.with_suffix(".svg").read_text().startswith("<svg")
    code, out, _ = run("profile", "--output", str(path), "--json")
    told = json.loads(out)
    assert told["trace"] == str(path) and told["engines"]["m"]["parts"] == {"launch": 0.003, "rest": 0.001}


def test_a_profile_that_cannot_be_recorded_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(context: Context) -> Observed:
        raise ServerError("no engine answers", "wait")

    monkeypatch.setattr(Context, "running", object())
    monkeypatch.setattr(Context, "observed", property(none))
    code, _, err = run("profile", "--output", str(tmp_path / "trace.json"))
    assert code == FAILED and "no engine answers" in err
    assert not list(tmp_path.iterdir())


def test_a_trace_that_cannot_be_written_is_said_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "running", object())
    for path, said in (
        ("trace.svg", "where the picture would lie"),
        ("no/trace.json", "No such file"),
        (".", "Is a directory"),
    ):
        code, _, err = run("profile", "--output", str(tmp_path / path))
        assert code == FAILED and said in err and "hint: " in err
    assert not list(tmp_path.iterdir())
