"""Loses the GPU under a service with answers on their way: a kernel of ours traps. Everyone is answered, the process ends.

    PYTHONPATH=builder:runtime:tests:. python -m support.lost_gpu_trial FOLDER

Ends as the server would, with 70. It says how many were answered with an error, and how long after the trap; tests/gpu/
test_lost_gpu.py looks at both. It ends by itself with 3 after 60 s.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench.gpu.shapes import write_checkpoint

from fakes.pb_utils import MetricFamily
from support.full_size_trial import build
from triune_runtime.options.wire import Options
from triune_runtime.request import SamplingParams
from triune_runtime.serving.generation import GenerationService
from triune_runtime.targets.cuda.nvrtc import Module
from triune_runtime.targets.device.cuda import CudaDevice

LIMIT_S, REQUESTS = 60, 100  # more than there are slots
SOURCE = 'extern "C" __global__ void lost(int now) { if (now) asm volatile("trap;"); }'


class Replies:
    """What came of the requests."""

    def __init__(self) -> None:
        self.flowing = threading.Event()  # half of the requests have a piece of their answers
        self._lock, self._begun, self._over, self._errors = threading.Lock(), set[int](), 0, 0
        self.lost_at = 0.0

    def to(self, number: int) -> Any:
        def reply(answer: Any, last: bool) -> None:
            with self._lock:
                failed = isinstance(answer, Exception)
                if not failed:
                    self._begun.add(number)
                self._over += last
                self._errors += last and failed
                if len(self._begun) > REQUESTS // 2:
                    self.flowing.set()
                if last and failed:
                    took = time.monotonic() - self.lost_at
                    said = f"{self._over} of {REQUESTS} are answered, {self._errors} with an error, after {took:.2f} s"
                    print(said, answer if self._errors == 1 else "", flush=True)

        return reply


def main() -> None:
    folder = Path(sys.argv[1])
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    service = GenerationService(build(write_checkpoint("tiny", folder / "checkpoint"), "bf16", folder / "engine"), MetricFamily)
    device, replies = CudaDevice(), Replies()
    kernel = Module.compile(SOURCE, "lost.cu").kernel("lost")
    kernel.launch(device.stream, (1, 1, 1), (1, 1, 1), (np.int32(0),))
    device.synchronize()
    options = Options(params=SamplingParams(max_tokens=900, ignore_eos=True), stream=True).to_json()
    for number in range(REQUESTS):
        prompt = np.arange(5 + number % 9, dtype=np.int32)
        service.start(prompt, [options], request_id="", timeout_us=0, left=lambda: False, reply=replies.to(number))
    assert replies.flowing.wait(LIMIT_S / 2), "no answers come"
    replies.lost_at = time.monotonic()
    kernel.launch(device.stream, (1, 1, 1), (1, 1, 1), (np.int32(1),))
    print("a kernel traps", flush=True)
    threading.Event().wait()  # nothing here ends the process


if __name__ == "__main__":
    main()
