"""The gateway alone: what it imports, what it describes. Run: pytest tests/gateway/test_package.py"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from fakes.ensemble import Gateway
from triune_gateway.endpoints import ENDPOINTS


def test_it_needs_nothing_of_ours_but_the_client() -> None:
    ours = "{name.partition('.')[0] for name in sys.modules if name.startswith('triune_')}"
    program = f"import sys, triune_gateway.__main__; print(*sorted({ours}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["triune_client", "triune_gateway"]


def test_every_endpoint_is_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "openai.md").read_text("utf-8")
    assert not [row.path for row in ENDPOINTS if f"`{row.method} {row.label}`" not in page]


def test_the_description_lists_every_endpoint_and_status(gateway: Gateway) -> None:
    description = gateway.http.get("/openapi.json").json()
    assert set(description["paths"]) == {row.path.replace(":path}", "}") for row in ENDPOINTS}
    chat = description["paths"]["/v1/chat/completions"]["post"]
    assert {"200", "400", "401", "404", "413", "429", "500", "503", "504"} <= set(chat["responses"])
    assert "422" not in chat["responses"]


def test_pages_that_load_scripts_from_elsewhere_are_off(gateway: Gateway) -> None:
    for path in ("/docs", "/redoc"):
        assert gateway.http.get(path).status_code == 404


def test_help_names_every_option() -> None:
    done = subprocess.run([sys.executable, "-m", "triune_gateway", "--help"], capture_output=True, text=True, check=True)
    assert {"--port", "--grpc-url", "--alias", "--api-keys-file", "--allow-origin"} <= set(re.findall(r"--[\w-]+", done.stdout))
