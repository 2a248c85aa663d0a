"""The commands over a stand-in for the binary, as a user types them. Run: pytest tests/server/test_cli.py"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fakes.command import Triune
from fakes.repository import fake_repository
from support.real_server import free_port
from triune_server.cli import NOT_RUNNING


def test_what_is_up_is_shown_by_a_second_up_and_by_status_until_down(triune: Triune) -> None:
    started = triune("up", *triune.served).stdout
    state = json.loads((triune.run_folder / "triune.json").read_text())
    assert re.match(r"ready after \d+\.\d s\n", started)
    again = triune("up", *triune.served).stdout
    assert again.startswith(f"a server is running already (pid {state['pid']}, {triune.repository})\n")
    assert again.partition("\n")[2] == started.partition("\n")[2]  # both say where and how to try it
    assert triune("status").stdout.startswith(f"ready: {triune.repository} (pid {state['pid']})\n")
    assert json.loads(triune("status", "--json").stdout)["ports"] == triune.ports
    family = [psutil.Process(state["pid"]), *psutil.Process(state["pid"]).children(recursive=True)]
    assert len(family) == 4  # supervisor, server, stub, front
    assert triune("down").stdout == f"stopped (pid {state['pid']})\n"
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_what_is_asked_for_otherwise_than_it_runs_is_an_error_and_a_switch_serves_it(triune: Triune, tmp_path: Path) -> None:
    triune("up", *triune.served)
    pid = json.loads(triune("status", "--json").stdout)["pid"]
    other = fake_repository(tmp_path / "other (1)")
    port = free_port()
    for arguments, named in (
        ([f"--repository={other}"], str(other)),
        ([f"--http-port={port}"], f"HTTP_PORT={port}"),
        (["--cors=https://a.example"], "CORS=https://a.example"),
    ):
        said = triune.fails("up", *triune.served, *arguments)
        assert f"{triune.repository} is being served" in said and named in said.partition("\n")[0]
        assert "SWITCH=1" in said and named in said.partition("hint: ")[2]
    assert json.loads(triune("status", "--json").stdout)["pid"] == pid
    triune("up", f"--repository={other}", f"--http-port={port}", "--switch")
    now = json.loads(triune("status", "--json").stdout)
    assert now["repository"] == str(other) and now["pid"] != pid
    assert now["ports"] == triune.ports | {"HTTP_PORT": port}  # what was not asked for stays


def test_a_switch_that_cannot_be_made_leaves_the_server_alone(triune: Triune) -> None:
    triune("up", *triune.served)
    pid = json.loads(triune("status", "--json").stdout)["pid"]
    assert "no model repository" in triune.fails("up", *triune.served, "--repository=nowhere", "--switch")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert f"port {taken}" in triune.fails("up", f"--repository={triune.repository}", f"--http-port={taken}", "--switch")
    assert json.loads(triune("status", "--json").stdout)["pid"] == pid


def test_the_state_of_an_older_version_is_understood(triune: Triune) -> None:
    triune("up", *triune.served)
    file = triune.run_folder / "triune.json"
    state = json.loads(file.read_text())
    older = {
        name: state["options"][name] for name in ("repository", "host", "http_port", "grpc_port", "metrics_port", "openai_port")
    }
    file.write_text(json.dumps({"pid": state["pid"], "created": state["created"], "options": older}))
    assert "running already" in triune("up", *triune.served).stdout
    assert triune("status").stdout.startswith("ready: ")


def test_nothing_running_is_said_and_has_its_exit_code(triune: Triune) -> None:
    assert triune("status", exit_code=NOT_RUNNING).stdout == "no server is running; start one with `make up`\n"
    assert json.loads(triune("status", "--json", exit_code=NOT_RUNNING).stdout) == {"running": False}
    assert triune("down").stdout == "no server is running\n"
    assert "no log at" in triune.fails("logs")


def test_a_broken_state_file_is_no_server(triune: Triune) -> None:
    triune.run_folder.mkdir()
    (triune.run_folder / "triune.json").write_text('{"pid": "x", "created": 0, "options": {"repository": "r"}}')
    triune("status", exit_code=NOT_RUNNING)
    assert triune("down").stdout == "no server is running\n"


def test_a_missing_repository_names_the_verb_that_builds_one(triune: Triune) -> None:
    for command in ("up", "serve"):
        said = triune.fails(command, *triune.served, "--repository=nowhere")
        assert said == "error: no model repository at nowhere\n\nhint: build one with `make engine`\n"
    (triune.repository / "generate" / "1" / "engine.json").unlink()
    assert "no engine.json in" in triune.fails("up", *triune.served)


def test_a_port_in_use_names_it_its_variable_and_the_remedy(triune: Triune) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", triune.ports["METRICS_PORT"]))
        holder.listen()
        for command in ("up", "serve"):
            said = triune.fails(command, *triune.served)
            assert f"port {triune.ports['METRICS_PORT']} on 127.0.0.1" in said
            assert f"process {os.getpid()}" in said
            assert "METRICS_PORT=" in said.partition("hint: ")[2]


def test_a_server_that_is_not_installed_names_the_verb_that_installs_it(triune: Triune) -> None:
    shutil.rmtree(triune.home / "pytriton")
    assert "make install" in triune.fails("up", *triune.served)


def test_a_run_folder_that_cannot_be_made_is_one_sentence(triune: Triune, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = triune.fails("up", *triune.served, f"--run-folder={tmp_path / 'file' / 'run'}")
    assert f"{tmp_path / 'file' / 'run'} cannot be used: Not a directory" in said


def test_a_server_that_cannot_load_says_why(triune: Triune) -> None:
    triune.install(broken=True)
    said = triune.fails("up", *triune.served)
    assert "tritonserver ended with code 1 while starting" in said
    assert "failed to load 'generate': no room" in said
    assert str(triune.run_folder / "server.log") in said
    triune("status", exit_code=NOT_RUNNING)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_in_order_when_asked_to(triune: Triune, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "triune_server", "serve", f"--run-folder={triune.run_folder}", *triune.served],
        env=os.environ | {"TRIUNE_TRITON_HOME": str(triune.home)}, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "triune_client chat" in line:  # the last line of what it says when ready
                break
        process.send_signal(number)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert "Traceback" not in process.stderr.read()
    triune("status", exit_code=NOT_RUNNING)


def test_logs_prints_the_last_lines(triune: Triune) -> None:
    triune.run_folder.mkdir()
    (triune.run_folder / "server.log").write_bytes(b"one\ntwo\nthr\xffee\n")
    assert triune("logs", "--lines=2").stdout == "two\nthr\ufffdee\n"


def test_a_wrong_port_is_refused_before_anything_is_done(triune: Triune) -> None:
    assert "--http-port" in triune("up", "--http-port=0", exit_code=2).stderr
    assert not triune.run_folder.exists()
