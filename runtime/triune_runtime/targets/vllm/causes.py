"""Why vLLM's process did not start, in one sentence, from its log: the error that its user sees says only that there is one."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ERROR = re.compile(r"(?:^|[\s\]:)])((?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt)): (.+)$")
_NO_CAUSE = ("Engine core initialization failed", "Failed core proc", "WorkerProc initialization failed")
_LONGEST = 500  # letters
# What vLLM says in words of its own options, and what to do here.
_REMEDIES = (
    (re.compile(r"KV cache is needed|kv cache allocation|No available memory for the cache blocks"),
     "choose a smaller MAX_LENGTH or MICRO_BATCH_SIZE, or more devices: TENSOR_PARALLEL, PIPELINE_PARALLEL"),
    (re.compile(r"out of memory|Cannot allocate memory|OutOfMemory"),
     "choose more devices, TENSOR_PARALLEL or PIPELINE_PARALLEL, or a smaller MICRO_BATCH_SIZE"),
    (re.compile(r"gpu_memory_utilization|Free memory on device"), "end what else uses the device's memory"),
    (re.compile(r"must be divisible by tensor parallel|World size"), "choose another TENSOR_PARALLEL or PIPELINE_PARALLEL"),
)  # fmt: skip


def cause_in(lines: Iterable[str]) -> str:
    """What the log's lines say went wrong first; empty: nothing is found in them."""
    for line in lines:
        found = _ERROR.search(line.rstrip())
        if found and not any(words in line for words in _NO_CAUSE):
            return f"{found[1].rpartition('.')[2]}: {' '.join(found[2].split())}"[:_LONGEST]
    return ""


def remedy_of(cause: str) -> str:
    """What to do about it."""
    return next((remedy for pattern, remedy in _REMEDIES if pattern.search(cause)), "see the server's log and docs/vllm.md")
