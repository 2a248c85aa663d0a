"""Where API keys come from. Run: pytest tests/gateway/test_keys.py"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.ensemble import Gateway
from triune_gateway.keys import KEYS_FILE_VARIABLE, KEYS_VARIABLE, read_keys


def test_keys_are_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\n one \n\ntwo\n")
    assert read_keys({}, file) == read_keys({KEYS_FILE_VARIABLE: str(file), KEYS_VARIABLE: "x"}) == ("one", "two")


def test_keys_are_parts_of_a_variable() -> None:
    assert read_keys({KEYS_VARIABLE: "one, two,"}) == ("one", "two")
    assert read_keys({}) == ()


def test_no_key_where_some_are_meant_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ValueError, match="holds no API key"):
        read_keys({KEYS_FILE_VARIABLE: str(tmp_path / "keys")})
    with pytest.raises(ValueError, match=KEYS_VARIABLE):
        read_keys({KEYS_VARIABLE: " , "})
    with pytest.raises(OSError, match="missing"):
        read_keys({}, tmp_path / "missing")


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "triune_gateway", f"--api-keys-file={tmp_path / 'missing'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_pages_of_other_sites_are_refused_unless_they_are_named(start: Callable[..., Gateway]) -> None:
    page = {"Origin": "https://a.example", "Sec-Fetch-Site": "cross-site"}
    assert start().http.get("/v1/models", headers=page).status_code == 403
    assert start().http.get("/v1/models", headers={"Host": "rebound.example"}).status_code == 403
    named = start(allowed_origins=("https://a.example",))
    assert named.http.get("/v1/models", headers=page).status_code == 200
    assert named.http.get("/v1/models", headers={"Host": "a.example"}).status_code == 200, "a proxy that passes on its name"
    assert start(host="0.0.0.0").http.get("/v1/models", headers={"Host": "any.example"}).status_code == 200
