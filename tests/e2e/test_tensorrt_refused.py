"""A real tritonserver over a TensorRT engine that cannot run here says why, in one row of its table.

Run: pytest tests/e2e/test_tensorrt_refused.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.repository import tensorrt_repository
from support.real_server import free_port
from triune_server.binaries import find_binaries
from triune_server.errors import ServerError
from triune_server.launcher import Server
from triune_server.options import ServerOptions

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU"),
]


def test_the_server_ends_and_the_reason_is_the_sentence(tmp_path: Path) -> None:
    """As in a container, where nobody looks at the engine before Triton does."""
    options = ServerOptions(
        repository=tensorrt_repository(tmp_path / "repository"), http_port=free_port(), grpc_port=free_port(),
        metrics_port=free_port(), openai_port=0,
    )  # fmt: skip
    server = Server(find_binaries(tmp_path), options, tmp_path / "server.log")
    try:
        with pytest.raises(ServerError) as error:
            server.wait_ready(60)
    finally:
        server.stop()
    said = str(error.value)
    # With which code is tritonserver's own affair: it ends with 1, and now and then crashes while it takes down what it loaded.
    assert "tritonserver ended with code " in said and " while starting:\n" in said
    assert said.count("no supported GPU: model.plan needs an NVIDIA GPU of compute capability 8.9") == 1
    assert "Traceback" not in said and "make engine TARGET=cpu" in said, said
