"""The process of vLLM on a further machine: workers alone. Run with the Python that has vLLM.

    python -m triune_runtime.targets.vllm.node DESCRIPTOR

As `host`: one `Start` comes on standard input, and when that closes it ends, with all that it has started. What it tells is why
it cannot go on.
"""

from __future__ import annotations

import os
import sys
import threading

from .host import end_all
from .protocol import Failed, Start, read, written


def main(descriptor: int) -> None:
    """Serve; never returns."""
    from .engine import serve_part

    os.set_inheritable(descriptor, False)
    lines = os.fdopen(os.dup(0), "rb")  # what it starts closes `sys.stdin`
    start = read(lines.readline())
    assert isinstance(start, Start), "the first order says what to serve"

    def listen() -> None:
        lines.read()
        end_all()

    threading.Thread(target=listen, name="triune-orders", daemon=True).start()
    why = "one of its workers has ended"
    try:
        serve_part(start.arguments)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    try:
        os.write(descriptor, written(Failed(why=why)))
    finally:
        end_all()


if __name__ == "__main__":
    main(int(sys.argv[1]))
