"""Watches a server beside a load: its metrics, the memory and processor time of its processes. A process of its own.

Reading and parsing takes milliseconds, which in the process that asks would delay requests.
Run as `python -m triune_load.sampling METRICS_URL INTERVAL_S CA_FILE SERVER_NAME [PID ...]`, of which texts may be empty, it
prints a JSON line a sample, until its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from .core.metrics_text import parse_metrics
from .trust import PUBLIC, Trust

Sample = dict[str, Any]


def memory_of(pids: Sequence[int]) -> tuple[int, float, int]:
    """Proportional set size in bytes, processor seconds, processes: of these and all they started."""
    size, seconds, count = 0, 0.0, 0
    family: dict[int, psutil.Process] = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            family |= {p.pid: p for p in (root, *root.children(recursive=True))}
    for process in family.values():
        with contextlib.suppress(psutil.Error):
            try:
                size += process.memory_full_info().pss
            except (psutil.AccessDenied, AttributeError):
                size += process.memory_info().rss
            times = process.cpu_times()
            seconds += times.user + times.system
            count += 1
    return size, seconds, count


def take_sample(client: httpx.Client, metrics_url: str, trust: Trust, pids: Sequence[int]) -> Sample:
    """One look; what does not answer is left out."""
    sample: Sample = {"at": time.monotonic()}
    if metrics_url:
        with contextlib.suppress(httpx.HTTPError):
            sample["metrics"] = parse_metrics(client.get(metrics_url, extensions=trust.extensions).text)
    if pids:
        size, seconds, count = memory_of(pids)
        sample |= {"memory_bytes": size, "cpu_s": round(seconds, 3), "processes": count}
    return sample


def main(arguments: Sequence[str]) -> None:
    """Prints samples until its input ends."""
    metrics_url, interval, ca_file, server_name, *pids = arguments
    interval_s, family = float(interval), [int(pid) for pid in pids]
    trust = Trust(ca_file=Path(ca_file) if ca_file else None, server_name=server_name or None)
    with httpx.Client(timeout=2.0, trust_env=False, verify=trust.context) as client:
        due = time.monotonic()
        while True:
            print(json.dumps(take_sample(client, metrics_url, trust, family)), flush=True)
            due = max(due + interval_s, time.monotonic())
            if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                return


class Sampler:
    """The samples of a run, as they come."""

    def __init__(
        self, metrics_url: str, pids: Sequence[int], *, trust: Trust = PUBLIC, interval_s: float = 1.0
    ) -> None:  # fmt: skip
        trusted = [str(trust.ca_file or ""), trust.server_name or ""]
        self._arguments = [metrics_url, str(interval_s), *trusted, *(str(pid) for pid in pids)]
        self._wanted = bool(metrics_url or pids)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.samples: list[Sample] = []

    async def __aenter__(self) -> Sampler:
        if self._wanted:
            pipe = asyncio.subprocess.PIPE
            command = [sys.executable, "-m", "triune_load.sampling", *self._arguments]
            self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
            self._reader = asyncio.ensure_future(self._read(self._process.stdout))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._reader is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            await self._reader

    async def _read(self, lines: asyncio.StreamReader | None) -> None:
        assert lines is not None
        async for line in lines:
            self.samples.append(json.loads(line))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.argv[1:])
