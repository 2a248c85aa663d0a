"""Processor time of the server's processes that a token passes."""

from __future__ import annotations

import psutil

_NAMES = {
    "generate/1/model.py": "generate", "detokenize/1/model.py": "detokenize", "/bin/tritonserver": "tritonserver",
    "targets.vllm.host": "vLLM", "VLLM::EngineCore": "vLLM's scheduler", "VLLM::Worker": "vLLM's workers",
}  # fmt: skip


def processor_seconds(server: psutil.Process) -> dict[str, float]:
    """By part, of all that `server` has started."""
    found = dict[str, float]()
    for process in server.children(recursive=True):
        try:
            line, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        for part, name in _NAMES.items():
            if part in line:
                found[name] = found.get(name, 0.0) + times.user + times.system
                break
    return found
