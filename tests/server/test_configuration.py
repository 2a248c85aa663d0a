"""triune.toml, the environment and options: who counts, and what is refused. Run: pytest tests/server/test_configuration.py"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_server.command import SETTINGS
from triune_server.configuration import configured, read
from triune_server.errors import ServerError
from triune_server.gateway import check_key_file
from triune_server.settings import Values


def refused(text: str, tmp_path: Path) -> tuple[str, str]:
    file = tmp_path / "triune.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ServerError) as caught:
        read(file, SETTINGS)
    return str(caught.value.args[0]), caught.value.hint or ""


def config(folder: Path, *arguments: str, **environment: str) -> Mapping[str, Mapping[str, object]]:
    """What `triune config` shows in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIUNE_")}
    done = subprocess.run(
        [sys.executable, "-m", "triune_server.command", "config", "--json", *arguments],
        cwd=folder, env=kept | environment | {"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown: Mapping[str, Mapping[str, object]] = json.loads(done.stdout)
    return shown


def test_an_option_counts_before_the_environment_before_the_file_before_the_default(tmp_path: Path) -> None:
    (tmp_path / "triune.toml").write_text(
        'model = "m"\nhttp_port = 1001\ngrpc_port = 1002\nmetrics_port = 1003\ncors = ["a b"]\n'
    )
    shown = config(tmp_path, "--http-port=3001", TRIUNE_HTTP_PORT="2001", TRIUNE_GRPC_PORT="2002")
    assert shown["http_port"] == {"value": 3001, "origin": "option"}
    assert shown["grpc_port"] == {"value": 2002, "origin": "environment"}
    assert shown["metrics_port"] == {"value": 1003, "origin": "triune.toml"}
    assert shown["openai_port"] == {"value": 8003, "origin": "default"}
    assert shown["cors"] == {"value": ["a b"], "origin": "triune.toml"}
    assert shown["model"]["value"] == "m"


def test_another_file_is_taken_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "triune.toml").write_text("http_port = 1001")
    other = tmp_path / "other.toml"
    other.write_text("http_port = 1002")
    assert config(tmp_path, f"--config={other}")["http_port"] == {"value": 1002, "origin": str(other)}
    assert config(tmp_path, TRIUNE_CONFIG=str(other))["http_port"] == {"value": 1002, "origin": str(other)}


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("http_prot = 1", "'http_prot', which is no setting", "did you mean http_port?"),
        ("http-port = 1", "'http-port'", "did you mean http_port?"),
        ("zzz = 1", "'zzz'", "known: "),
        ('http_port = "8000"', "is '8000'; expected a whole number", "write it without quotation marks"),
        ("http_port = true", "is true; expected a whole number", ""),
        ("max_length = true", "is true; expected a whole number, or auto", "max_length: "),
        ("http_port = 0", "is 0; it can be 1 to 65535", "HTTP_PORT"),
        ("http_port = 65536", "it can be 1 to 65535", ""),
        ("max_length = 1.5", "max_length in", ""),
        ("model = 3", "is 3; expected a text", ""),
        ('model = ""', "is empty", ""),
        ('cors = "x"', "expected a list of texts", "cors = ["),
        ("cors = [1]", "expected a list of texts", ""),
        ("weight_streaming = 1", "expected true or false", ""),
        ("[server]\nhost = 'x'", "'server', which is no setting", ""),
        ("[[models]]\nprecision = 'w8a8'", "has no model", "add: model"),
        ("[[models]]\nmodel = 'a'\nhttp_port = 1", "'http_port', which is no setting", ""),
        ("[[models]]\nmodel = 'a'\nmax_lenght = 1", "'max_lenght'", "did you mean max_length?"),
        ("[[models]]\nmodel = 'a'\nmax_length = 'x'", "max_length in a [[models]] of", ""),
        ("models = [1]", "expected a list of texts", ""),
        ("host = ", "is no TOML", "docs/configuration.md"),
        ("host = 'a'\nhost = 'b'", "is no TOML", ""),
    ],
)
def test_what_no_setting_takes_is_refused_with_its_key(tmp_path: Path, text: str, said: str, hint: str) -> None:
    message, remedy = refused(text, tmp_path)
    assert said in message and "triune.toml" in message + remedy
    assert hint in remedy and remedy


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans(), st.floats(), st.lists(st.integers()))))
def test_no_value_gets_in_unchecked(raw: dict[str, object]) -> None:
    for name, setting in SETTINGS.items():
        for value in raw.values():
            try:
                taken = setting.check(value, name)
            except ServerError:
                continue
            assert isinstance(taken, setting.kind) and not (setting.kind is int and isinstance(taken, bool))


def test_models_side_by_side_have_settings_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "triune.toml"
    file.write_text(
        "max_length = 9\n[[models]]\nmodel = 'a'\n[[models]]\nmodel = 'b c'\nname = 'n'\nmax_length = 7\nrounding = 'gptq'\n"
        "calibration = ['a b.txt']\n"
    )
    read_values = read(file, SETTINGS)
    values = Values(
        SETTINGS, {name: s.default for name, s in SETTINGS.items()} | read_values, dict.fromkeys(SETTINGS, "default")
    )
    first, second = (values.of_model(entry) for entry in read_values["models"])
    assert (first["model"], first["name"], first["max_length"]) == ("a", None, "9")
    assert (second["model"], second["name"], second["max_length"]) == ("b c", "n", "7")
    assert (first["rounding"], second["rounding"]) == ("nearest", "gptq")
    assert second["calibration"] == ("a b.txt",) and not first["calibration"]


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"none\.toml cannot be read: No such file"):
        configured(tmp_path / "none.toml", {}, SETTINGS)


@pytest.mark.parametrize("value", ["x", "70000", "-1", "1.5", ""])
def test_a_variable_is_checked_as_a_key_is(value: str) -> None:
    if not value:
        assert "http_port" not in configured(Path("/dev/null"), {"TRIUNE_HTTP_PORT": value}, SETTINGS).values
        return
    with pytest.raises(ServerError, match="TRIUNE_HTTP_PORT"):
        configured(Path("/dev/null"), {"TRIUNE_HTTP_PORT": value}, SETTINGS)


@pytest.mark.parametrize("value", ["none", "layers", "full", "auto"])
def test_a_word_that_an_option_takes_can_be_said_by_a_variable_and_a_key(tmp_path: Path, value: str) -> None:
    assert SETTINGS["verify"].parse(value) == value
    (tmp_path / "triune.toml").write_text(f'verify = "{value}"\n')
    assert config(tmp_path, f"--config={tmp_path / 'triune.toml'}")["verify"]["value"] == value


def test_api_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsecret\n")
    file.chmod(0o600)
    check_key_file(file)
    for mode in (0o640, 0o604, 0o644):
        file.chmod(mode)
        with pytest.raises(ServerError, match="can be read by others") as caught:
            check_key_file(file)
        assert caught.value.hint == f"chmod 600 {file}"
    file.chmod(0o600)
    file.write_text("# none\n")
    with pytest.raises(ServerError, match="holds no API key"):
        check_key_file(file)
    with pytest.raises(ServerError, match="cannot be read"):
        check_key_file(tmp_path / "missing")
