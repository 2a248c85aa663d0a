"""Run: pytest tests/clients/test_docs.py - the README's Python and curl.md's lines, against a stand-in server."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import triune_client
from triune_client import AsyncClient, Chunk, Client, Options, TriuneError
from triune_client.testing import mock_server

CLIENTS = Path(__file__).parents[2] / "clients"
README = (CLIENTS / "README.md").read_text()
CURL = (CLIENTS / "curl.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
CURL_BLOCKS = re.findall(r"```sh\n(.*?)```", CURL, re.S)
DEFAULT_URL = "http://localhost:8000"


@pytest.mark.parametrize("block", [block for block in PYTHON_BLOCKS if "triune_client.grpc" not in block])
def test_the_readmes_python_runs(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with mock_server(_reply) as server:
        for client in (Client, AsyncClient):
            monkeypatch.setattr(client.__init__, "__defaults__", (server.url,))
        sourced = block.replace(DEFAULT_URL, server.url)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(sourced, "README.md", "exec", dont_inherit=True), {"__name__": "__main__"})


def _reply(request: dict[str, Any]) -> list[str | Chunk]:
    """What a server might say: an object where one is asked for, a call where one is, and else some words."""
    if "response_format" in request:
        return ['{"name": "Paris", ', '"population": 2100000}']
    if request.get("tool_choice") == "required":
        call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
        return [Chunk(text=call[:20], tool_format="hermes"), call[20:]]
    return ["An answer", " of a few", " words, " * 20]


def test_the_readme_names_every_error_and_every_option() -> None:
    errors = [name for name in triune_client.__all__ if name != "TriuneError" and _is_error(name)]
    assert not [name for name in errors if f"`{name}`" not in README]
    assert not [name for name in Options.__dataclass_fields__ if f"`{name}`" not in README]


def _is_error(name: str) -> bool:
    value = getattr(triune_client, name)
    return isinstance(value, type) and issubclass(value, TriuneError)


def test_links_resolve() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README + CURL):
        assert (CLIENTS / target).exists(), target


@pytest.mark.parametrize("block", CURL_BLOCKS)
def test_a_curl_line_has_the_default_url_and_json_that_parses(block: str) -> None:
    assert DEFAULT_URL in block
    for body in re.findall(r"-d '([^']*)'", block):
        messages = json.loads(body).get("messages")
        assert messages is None or json.loads(messages)[0]["role"] == "user"
    assert ("generate_stream" in block) == ("curl -sN" in block), "a stream needs -N"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("block", [block for block in CURL_BLOCKS if "/generate" in block and "many" not in block])
def test_a_curl_line_that_generates_gets_an_answer(block: str) -> None:
    with mock_server(["Par", "is"]) as server:
        line = block.replace(DEFAULT_URL, server.url)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=30)
    replies = [json.loads(found) for found in re.findall(r"\{[^{}]*\}", done.stdout)]
    assert replies[-1]["finish_reason"] in ("stop", "cancelled")
