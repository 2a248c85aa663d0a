"""The README's commands exist, its links resolve, its variables are the Makefile's. Run: pytest tests/test_docs.py"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.real_server import RealServer
from triune_builder.plan import DEFAULT_MODEL
from triune_server.command import SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(page for part in ("docs", "clients", "models/r1-nano") for page in sorted((ROOT / part).glob("*.md"))),
]
README = (ROOT / "README.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
OURS = ("/work/", "/tmp/", "/root/")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_names_a_path_of_one_machine(page: Path) -> None:
    assert not [path for path in OURS if path in page.read_text("utf-8")]


def test_every_make_verb_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", README))
    assert named <= targets, named - targets


def test_make_passes_every_setting_and_the_documentation_names_it() -> None:
    (listed,) = re.findall(r"^SETTINGS := (.*?[^\\])$", MAKEFILE, re.MULTILINE | re.DOTALL)
    passed = set(listed.replace("\\", "").split())
    assert passed == {setting.variable for setting in SETTINGS.values()} | {"CONFIG"}
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for setting in SETTINGS.values():
        assert f"`{setting.name}`" in page, setting.name
    for name in ("MODEL", "TARGET", "PRECISION", "HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "OPENAI_PORT"):
        assert f"`{name}`" in README, name
    assert DEFAULT_MODEL in README and str(SETTINGS["http_port"].default) in README


def test_files_that_the_readme_names_exist() -> None:
    folders = "builder|runtime|server|gateway|clients|models|bench|docker|deploy|docs|tests"
    for path in re.findall(rf"`((?:{folders})/[\w./]+\.\w+)`", README):
        assert (ROOT / path).exists() or "NAME" in path, path


@pytest.mark.parametrize(
    "command",
    "build plan compare report verify serve up down status logs chat config doctor profile node".split(),
)
def test_every_command_has_a_help_screen(command: str) -> None:
    done = subprocess.run([Path(sys.executable).parent / "triune", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 100


def shell_blocks(page: Path) -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL) for line in block.splitlines()]


@pytest.mark.triton
def test_the_readmes_curl_lines_answer(server: RealServer) -> None:
    lines = [line for line in shell_blocks(ROOT / "README.md") if line.startswith("curl")]
    assert len(lines) >= 2
    for line in lines:
        line = line.replace("http://127.0.0.1:8000", server.url).replace("http://127.0.0.1:8003", server.options.openai_url)
        done = subprocess.run(line, shell=True, capture_output=True, text=True)
        assert "Paris" in done.stdout, (line, done.stdout, done.stderr)


@pytest.mark.triton
def test_the_curl_page_works_line_by_line_on_the_real_server(server: RealServer) -> None:
    text = (ROOT / "clients" / "curl.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        script = re.sub(r"http://(?:localhost|127\.0\.0\.1):8000", server.url, block)
        script = re.sub(r"http://(?:localhost|127\.0\.0\.1):8002/metrics", server.options.metrics_url, script)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 22), (block, done.stdout, done.stderr)  # 22: curl -f saw the error it is to show
        assert done.stdout.strip() or "health" in block or done.returncode, (block, done.stderr)


@pytest.mark.triton
def test_the_readmes_python_block_streams(server: RealServer) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = block.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 20


def test_the_message_in_the_readmes_curl_line_is_json() -> None:
    (body,) = re.findall(r"-d '(\{\"messages\".*?\})'", README)
    assert json.loads(json.loads(body)["messages"])[0]["role"] == "user"
