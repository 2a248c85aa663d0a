"""A state file is believed only while its process lives. Run: pytest tests/server/test_state.py"""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from triune_server.options import ServerOptions
from triune_server.state import RunningServer, begin_log, find_running, forget

OPTIONS = ServerOptions(repository=Path("somewhere"), http_port=1234)


def here() -> RunningServer:
    return RunningServer(pid=os.getpid(), created=psutil.Process().create_time(), options=OPTIONS)


def test_a_live_server_is_found_as_it_was_saved(tmp_path: Path) -> None:
    here().save(tmp_path)
    assert find_running(tmp_path) == here()
    forget(tmp_path)
    assert find_running(tmp_path) is None


def test_another_process_with_the_same_id_is_not_the_server(tmp_path: Path) -> None:
    RunningServer(pid=os.getpid(), created=here().created - 100, options=OPTIONS).save(tmp_path)
    assert find_running(tmp_path) is None


def test_a_process_that_is_gone_is_not_the_server(tmp_path: Path) -> None:
    process = psutil.Popen(["true"])
    process.wait()
    RunningServer(pid=process.pid, created=here().created, options=OPTIONS).save(tmp_path)
    assert find_running(tmp_path) is None


def saved(**fields: object) -> str:
    return json.dumps({"pid": 1, "created": 0, "options": {"repository": "r"}} | fields)


BROKEN = ["", "{", "[]", "{}", "\0", saved(options={"nope": 1}), saved(options={"repository": 3}), saved(options=[])]
BROKEN += [saved(pid=pid) for pid in ("x", -5, 0.5, None, [], 10**30)] + [saved(created=at) for at in (None, "now")]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_no_server(tmp_path: Path, content: str) -> None:
    (tmp_path / "triune.json").write_text(content)
    assert find_running(tmp_path) is None


def test_a_log_that_has_grown_long_is_set_aside_once(tmp_path: Path) -> None:
    old = tmp_path / "server.log.1"
    log = begin_log(tmp_path)
    log.write_bytes(b"short")
    assert begin_log(tmp_path) == log and log.read_bytes() == b"short" and not old.exists()
    for mark in (b"a", b"b"):
        log.write_bytes(mark * (9 << 20))
        begin_log(tmp_path)
        assert not log.exists() and old.read_bytes()[:1] == mark
