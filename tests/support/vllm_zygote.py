"""Processes of vLLM that begin with everything imported, for tests: run with the Python that has vLLM.

    python vllm_zygote.py serve SOCKET      imports vLLM once, and forks for whoever connects
    python vllm_zygote.py SOCKET host DESCRIPTOR stands for `python -m triune_runtime.targets.vllm.host DESCRIPTOR`

An engine then starts in seconds, as its processes are forked too, where each would import for as long as half a minute.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import sys
from importlib import import_module

FDS = 4  # standard input, output and error, and the descriptor for what is told


def stand_for(path: str, program: str, descriptor: int) -> None:
    """Give the descriptors of this process to one that is forked, and wait for its end, in its process group."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        rights = array.array("i", [0, 1, 2, descriptor])
        lines = "\n".join(f"{name}={value}" for name, value in os.environ.items() if "\n" not in value)
        connection.sendmsg(
            [f"{os.getpgid(0)}\n{program}\n{lines}\0".encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        )
        for one in (0, descriptor):
            os.close(one)
        connection.recv(1)  # nothing comes: it is closed at the end


def serve(path: str) -> None:
    """Import what engines import, then fork for whoever connects."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("forks", flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _become(connection)
            connection.close()


def _become(connection: socket.socket) -> None:
    """Be the host, with the descriptors, the environment and the process group of whoever has connected."""
    text, ancillary, *_ = connection.recvmsg(1 << 20, socket.CMSG_LEN(FDS * 4))
    while not text.endswith(b"\0"):
        text += connection.recv(1 << 20)
    given = array.array("i")
    given.frombytes(ancillary[0][2])
    group, program, *lines = text.rstrip(b"\0").decode().split("\n")
    os.environ.update(dict(line.split("=", 1) for line in lines))
    os.setpgid(0, int(group))
    for number, one in enumerate(given[:3]):
        os.dup2(one, number)
    sys.stdin = os.fdopen(0, "r")
    import_module(f"triune_runtime.targets.vllm.{program}").main(given[3])


def _import_all() -> None:
    import multiprocessing

    import vllm  # noqa: F401

    for name in (
        "engine.async_llm_engine", "v1.engine.core", "v1.engine.utils", "v1.executor.multiproc_executor",
        "v1.worker.cpu_worker", "v1.worker.cpu_model_runner", "v1.attention.backends.cpu_attn", "utils.system_utils",
        "v1.attention.backends.mla.cpu_mla", "model_executor.models.llama", "model_executor.models.deepseek_v2",
    ):  # fmt: skip
        import_module(f"vllm.{name}")

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("vllm") and hasattr(module, "get_mp_context"):
            with contextlib.suppress(AttributeError):
                module.get_mp_context = lambda: multiprocessing.get_context("fork")


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1] == "serve" else stand_for(sys.argv[1], sys.argv[2], int(sys.argv[3]))
