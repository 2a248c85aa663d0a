"""A server that a network reaches asks for keys, or says that it does not. Run: pytest tests/server/test_exposure.py"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from triune_server.errors import ServerError
from triune_server.exposure import check_exposed, own_key
from triune_server.options import KEY_VARIABLES, ServerOptions

LOCAL = ServerOptions(repository=Path("none"))
OPEN = dataclasses.replace(LOCAL, host="0.0.0.0")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "::1"])
def test_this_machine_alone_needs_neither_keys_nor_a_word(host: str) -> None:
    check_exposed(dataclasses.replace(LOCAL, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "a.example"])
def test_a_network_without_keys_is_refused_in_one_sentence_with_its_remedies(host: str) -> None:
    with pytest.raises(ServerError) as caught:
        check_exposed(dataclasses.replace(LOCAL, host=host))
    assert caught.value.args[0] == f"{host} is open to a network, and no API keys are asked for"
    assert caught.value.hint is not None and "API_KEY_FILE=" in caught.value.hint and "INSECURE=on" in caught.value.hint


@pytest.mark.parametrize("name", ["http", "grpc", "metrics", "openai"])
def test_each_port_is_held_to_it_by_itself(name: str) -> None:
    one = dataclasses.replace(LOCAL, **{f"{name}_host": "0.0.0.0"})
    with pytest.raises(ServerError) as caught:
        check_exposed(one)
    assert caught.value.args[0] == f"0.0.0.0 is open to a network ({name.upper()}_HOST), and no API keys are asked for"
    check_exposed(dataclasses.replace(one, insecure="on"))
    check_exposed(dataclasses.replace(one, api_key_file=Path("keys")))


def test_a_port_may_be_closed_where_the_others_are_open() -> None:
    names = ("http", "grpc", "metrics", "openai")
    check_exposed(dataclasses.replace(OPEN, **{f"{name}_host": "127.0.0.1" for name in names}))
    with pytest.raises(ServerError, match=r"0\.0\.0\.0 is open to a network, and"):
        check_exposed(dataclasses.replace(OPEN, **{f"{name}_host": "127.0.0.1" for name in names[1:]}))
    check_exposed(dataclasses.replace(LOCAL, openai_host="0.0.0.0", openai_port=0))  # nothing listens there


def test_keys_or_a_word_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_exposed(dataclasses.replace(OPEN, insecure="on"))
    check_exposed(dataclasses.replace(OPEN, api_key_file=Path("keys")))
    monkeypatch.setenv("TRIUNE_API_KEYS", "one")
    check_exposed(OPEN)


def test_keys_that_nobody_would_ask_for_are_refused() -> None:
    with pytest.raises(ServerError, match="FRONT=off talks to Triton directly"):
        check_exposed(dataclasses.replace(LOCAL, front="off", api_key_file=Path("keys")))


def test_a_gateway_alone_is_held_to_the_same() -> None:
    program = "import sys; from triune_server.entry import main; sys.argv = ['triune', 'gateway', '--host', '0.0.0.0']; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stderr.startswith("error: 0.0.0.0 is open to a network, and no API keys are asked for\n\nhint: "), done.stderr


def test_commands_of_this_machine_know_the_key(tmp_path: Path) -> None:
    assert own_key(LOCAL, {}) == {}
    assert own_key(LOCAL, {"TRIUNE_API_KEYS": "one,two"}) == {"authorization": "Bearer one"}
    file = tmp_path / "keys"
    file.write_text("# ours\n\nthree # team\nfour\n")
    assert own_key(dataclasses.replace(LOCAL, api_key_file=file), {}) == {"authorization": "Bearer three"}
    assert own_key(LOCAL, {"TRIUNE_API_KEYS_FILE": str(file)}) == {"authorization": "Bearer three"}
