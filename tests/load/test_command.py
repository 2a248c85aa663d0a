"""The command line, profiles, reports. Run: pytest tests/load/test_command.py"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from triune_load.__main__ import main
from triune_load.configure import configure
from triune_load.errors import LoadError
from triune_load.live import render, sparkline
from triune_load.options import parse_run
from triune_load.report.html import render_html
from triune_load.selftest.server import FakeServer
from triune_load.settings import Settings

PROFILES = Path(__file__).parents[2] / "load/profiles"
URL = "--url http://127.0.0.1:1"


@pytest.fixture
def fake() -> Iterator[str]:
    """The pretended server, in a thread of its own."""
    ready, found = threading.Event(), []
    loop = asyncio.new_event_loop()

    def serve() -> None:
        found.append(loop.run_until_complete(FakeServer(0.005, 0.001).listen())[1])
        ready.set()
        loop.run_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait()
    yield f"http://127.0.0.1:{found[0]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def settings_of(line: str) -> Settings:
    return configure(parse_run(line.split(), "triune-load"), line, {"KEY": "secret"})


def test_defaults_are_one_stream_for_twenty_seconds_with_every_check() -> None:
    found = settings_of(URL)
    assert [load.label for load in found.loads] == ["1 stream"]
    assert (found.duration_s, found.warmup_s, found.sessions, len(found.checks)) == (20, 2, None, 11)
    assert found.target.protocol == "chat" and settings_of("--url 127.0.0.1:1").target.protocol == "kserve-grpc"


def test_options_become_settings() -> None:
    found = settings_of(f"{URL} --rate 1,2.5 --requests 9 --header X-A:b --api-key-env KEY --checks text,order "
                        "--slo first_token=1s --input-tokens uniform:3-5 "
                        "--turns 2 --threshold tokens_per_s>=5 --protocol chat")  # fmt: skip
    assert [load.label for load in found.loads] == ["1 request/s", "2.5 requests/s"]
    assert found.target.headers == {"X-A": "b", "Authorization": "Bearer secret"}
    assert (found.sessions, found.warmup_s, found.checks) == (9, 0, {"text", "order"})
    assert (str(found.parts[0].input_tokens), found.parts[0].turns, str(found.thresholds[0])) == (
        "uniform:3-5",
        2,
        "tokens_per_s >= 5",
    )


@pytest.mark.parametrize(
    "line", ["", f"{URL} --running x", "--running /nowhere", f"{URL} --streams 1 --rate 1", f"{URL} --search rate:1-2",
             f"{URL} --streams x",
             f"{URL} --search rate:9-2 --slo first_token=1s", f"{URL} --checks spelling", f"{URL} --extra 3",
             f"{URL} --header x",
             f"{URL} --trace /nowhere", f"{URL} --api-key-env NONE", f"{URL} --threshold fast", f"{URL} --profile /nowhere",
             f"{URL} --protocol completions --kind tools", f"{URL} --requests 0", f"{URL} --duration long"],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(line: str) -> None:
    with pytest.raises(LoadError):
        settings_of(line)


def test_a_server_that_is_not_there_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://127.0.0.1:1", "--model", "m", "--quiet"]) == 2
    assert re.match(r"error: http://127.0.0.1:1 does not answer.*no connection", capsys.readouterr().err)


@pytest.mark.parametrize("profile", sorted(PROFILES.glob("*.toml")), ids=lambda p: p.name)
def test_profiles_are_read_and_the_command_line_counts_more(profile: Path) -> None:
    found = settings_of(f"{URL} --profile {profile}")
    assert {part.kind for part in found.parts} == {"chat", "json", "tools"} and found.thresholds
    assert settings_of(f"{URL} --profile {profile} --streams 3").loads[0].value == 3


def test_a_profile_with_an_unknown_option_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[run]\nspeed = "high"\n')
    with pytest.raises(LoadError, match="speed"):
        settings_of(f"{URL} --profile {tmp_path / 'p.toml'}")


def run_once(fake: str, folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    files = [f"--{kind}={folder / f'out.{kind}'}" for kind in ("json", "html", "junit")]
    code = main(
        [f"--url={fake}", "--requests=30", "--quiet", f"--metrics-url={fake}/metrics", "--output-tokens=8", *files, *more]
    )
    return code, json.loads((folder / "out.json").read_text("utf-8"))


def test_a_run_writes_every_result(fake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run_once(fake, tmp_path, "--streams=2,4", "--slo=first_token=1s", "--threshold=tokens_per_s>=1")
    assert code == 0 and result["verdict"]["passed"]
    assert [step["figures"]["requests"] for step in result["steps"]] == [30, 30]
    assert "✓ passed" in capsys.readouterr().out
    page = (tmp_path / "out.html").read_text("utf-8")
    assert "<svg" in page and "4 streams" in page
    assert not re.findall(r"(?:src|href)=|url\(|<script|@import|https?://(?!127\.0\.0\.1)", page)  # nothing from elsewhere
    suite = ElementTree.parse(tmp_path / "out.junit").getroot()[0]
    assert suite.get("failures") == "0" and int(suite.get("tests", "0")) == 11 + 2 + 1


def test_a_threshold_that_is_not_kept_fails_the_run(fake: str, tmp_path: Path) -> None:
    code, result = run_once(fake, tmp_path, "--threshold=tokens_per_s>=1e9".replace("1e9", "1000000000"))
    assert code == 1 and "tokens_per_s" in result["verdict"]["reasons"][0]
    assert ElementTree.parse(tmp_path / "out.junit").getroot()[0].get("failures") == "1"


@pytest.mark.parametrize("protocol", ["responses", "completions", "generate-stream", "infer"])
def test_an_open_loop_on_every_protocol(fake: str, tmp_path: Path, protocol: str) -> None:
    code, result = run_once(fake, tmp_path, f"--protocol={protocol}", "--rate=200", "--arrivals=bursts", "--slow=0.3")
    assert code == 0, result["verdict"]


def test_a_trace_is_played(fake: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp,input_tokens,output_tokens\n0,5,3\n100,6,4\n200,7,5\n")
    code, result = run_once(fake, tmp_path, f"--trace={trace}", "--trace-unit=ms")
    assert code == 0
    assert result["steps"][0]["figures"]["output_tokens_in_all"] == 12
    assert [round(at, 1) for at in result["steps"][0]["figures"]["samples"]["intended_s"]] == [0.0, 0.1, 0.2]


def test_a_search_ends_at_the_most_it_may_try(fake: str, tmp_path: Path) -> None:
    code, result = run_once(fake, tmp_path, "--search=streams:1-4", "--slo=end_to_end=5s")
    assert code == 0
    assert [step["value"] for step in result["steps"]] == [1, 2, 4]
    assert result["saturation"]["value"] == 4


def test_two_results_are_compared_and_a_report_is_written_anew(
    fake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_once(fake, tmp_path)
    result = str(tmp_path / "out.json")
    capsys.readouterr()
    assert main(["compare", result, result]) == 0
    assert "1.000" in capsys.readouterr().out
    assert main(["report", result, str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == (tmp_path / "out.html").read_text()
    assert main(["compare", result]) == 2
    (tmp_path / "no.json").write_text("{}")
    assert main(["report", str(tmp_path / "no.json")]) == 2


def test_what_servers_say_is_text_in_the_report(fake: str, tmp_path: Path) -> None:
    _, result = run_once(fake, tmp_path)
    result["steps"][0]["violations_told"] = [{"check": "text", "message": "<script>alert(1)</script>", "request": "<b>"}]
    result["steps"][0]["figures"]["errors"] = [{"kind": "refused", "count": 1, "example": "<img src=x>"}]
    page = render_html(result)
    assert "<script>" not in page and "<img" not in page and "&lt;script&gt;" in page


def test_the_display_shows_a_look() -> None:
    from collections import deque

    look = {
        "load": "4 streams", "step": 1, "steps": 3, "target": "http://x", "share": 0.5, "progress": "5 of 10 s",
        "tokens_per_s": 100.0, "first_token_ms": None, "ended": 9, "open": 4, "rate": 2.0, "errors": 1, "violations": 0,
        "last_error": "timeout: x", "last_violation": "",
    }  # fmt: skip
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render(look, {"tokens_per_s": deque([1.0, 100.0]), "first_token_ms": deque([0.0])}))
    shown = console.export_text()
    assert "4 streams" in shown and "timeout: x" in shown and "–" in shown
    assert sparkline([0.0, 5.0, 10.0]) == " ▄█"
