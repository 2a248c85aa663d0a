"""docs/openai.md does what it says. Run: pytest tests/gateway/test_docs.py"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from support.real_server import RealServer
from triune_gateway.endpoints import chat, completions
from triune_gateway.endpoints.chat import ChatRequest
from triune_gateway.endpoints.completions import CompletionRequest
from triune_gateway.errors import MEANINGS
from triune_gateway.messages.schemas import MessagesRequest
from triune_gateway.responses.schemas import ResponseRequest
from triune_gateway.thinking import BUDGETS
from triune_runtime.errors import CODES

DOCS = Path(__file__).parents[2] / "docs"
PAGE, OPTIONS = ((DOCS / name).read_text("utf-8") for name in ("openai.md", "options.md"))
HERE = "http://127.0.0.1:8003"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_field_is_on_the_page_or_on_that_of_options() -> None:
    named = set(re.findall(r"`([a-z_]+)(?:`|:|\.)", PAGE))
    named |= set(re.findall(r"^\| `(\w+)`.* \| yes \| (?:yes)? *\|$", OPTIONS, re.MULTILINE))
    fields = set(ChatRequest.model_fields) | set(CompletionRequest.model_fields)
    assert fields - {"messages"} <= named, fields - named


@pytest.mark.parametrize(("name", "schema"), [("responses", ResponseRequest), ("messages", MessagesRequest)])
def test_every_field_of_a_protocol_is_on_its_page(name: str, schema: type[BaseModel]) -> None:
    page = (DOCS / f"{name}.md").read_text("utf-8")
    assert not {field for field in schema.model_fields if not re.search(rf"`{field}(?:`|:)", page)}


def test_the_table_of_efforts_is_that_of_the_sources() -> None:
    table = PAGE.partition("| `reasoning_effort` | thinks")[2].partition("\n\n")[0]
    rows = [(re.findall(r"`(\w+)`", names), bound) for names, bound in re.findall(r"^\| (`.*`) \| \w+ \|(.*)\|$", table, re.M)]
    numbers = {word: re.findall(r"\d[\d,]*", bound) for words, bound in rows for word in words}
    found = {word: int(number[0].replace(",", "")) if number else None for word, number in numbers.items()}
    assert found | {"none": 0} == dict(BUDGETS)


def test_every_refused_field_is_in_the_table_of_refusals() -> None:
    table = PAGE.partition("## What is refused")[2].partition("## Errors")[0]
    assert all(f"`{name}`" in table for name in (*chat.UNSERVED, *completions.UNSERVED))


def test_the_table_of_codes_is_that_of_the_sources() -> None:
    table = PAGE.partition("## Errors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| `(\w+)` \| (?:`(\w+)` )?\|", table, re.MULTILINE)
    wanted = {(code, CODES[code], str(m.status), m.kind, m.code or "") for code, m in MEANINGS.items()}
    assert set(rows) == wanted


@pytest.mark.triton
@pytest.mark.parametrize("script", blocks("sh"), ids=["chat", "completion"])
def test_the_curl_lines_answer(server: RealServer, script: str) -> None:
    command = script.replace(HERE, server.options.openai_url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Paris" in done.stdout, (done.stdout, done.stderr)
    assert '"usage":{' in done.stdout


@pytest.mark.triton
def test_the_python_block_streams(server: RealServer) -> None:
    (script,) = blocks("python")
    command = [sys.executable, "-c", script.replace(HERE, server.options.openai_url)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("The capital of France is Paris"), done.stderr
