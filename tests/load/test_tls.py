"""Loads over TLS: which URLs a running server has, and whom they trust. Run: pytest tests/load/test_tls.py"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from triune_load.configure import configure
from triune_load.errors import LoadError
from triune_load.options import parse_run
from triune_load.settings import Target
from triune_load.trust import Trust

OPTIONS = {"host": "0.0.0.0", "http_port": 1, "grpc_port": 2, "metrics_port": 3, "openai_port": 4}


def target(*arguments: str) -> Target:
    return configure(parse_run(arguments, "triune load"), "").target


@pytest.mark.parametrize(
    ("protocol", "port", "scheme"),
    [("chat", 4, "https://"), ("completions", 4, "https://"), ("generate", 1, "https://"), ("kserve-grpc", 2, "grpcs://")],
)
def test_a_running_server_is_found_at_its_ports(tmp_path: Path, protocol: str, port: int, scheme: str) -> None:
    plain = scheme.replace("s://", "://").replace("grpc://", "")
    for file, more, found, metrics in (
        ("triune.json", {}, f"{plain}127.0.0.1:{port}", "http://127.0.0.1:3/metrics"),
        ("triune.json", {"tls_cert": "c"}, f"{scheme}127.0.0.1:{port}", "https://127.0.0.1:3/metrics"),
        ("stack.json", {"tls_cert": "c"}, f"{scheme if port == 4 else plain}127.0.0.1:{port}", "http://127.0.0.1:3/metrics"),
        ("triune.json", {"openai_host": "10.0.0.1"}, f"{plain}{'10.0.0' if port == 4 else '127.0.0'}.1:{port}", None),
    ):
        state = {"options": OPTIONS | more} | ({"pid": os.getpid()} if file == "triune.json" else {})
        (tmp_path / file).write_text(json.dumps(state))
        chosen = target(f"--running={tmp_path}", f"--protocol={protocol}")
        assert chosen.url == found and (metrics is None or chosen.metrics_url == metrics), (file, more)
        (tmp_path / file).unlink()


def test_a_file_of_no_certificates_is_refused(tmp_path: Path) -> None:
    chosen = target("--url=https://localhost:1", f"--ca-file={tmp_path / 'none.pem'}", "--server-name=llm.example.com")
    assert chosen.trust == Trust(ca_file=tmp_path / "none.pem", server_name="llm.example.com")
    with pytest.raises(LoadError, match=r"--ca-file is .*none\.pem, which cannot be used: No such file"):
        _ = chosen.trust.context
