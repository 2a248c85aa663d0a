"""Load a server of r1-nano with everything that clients do, check every answer, and see whether anything grows.

    python -m bench.soak REPOSITORY --minutes 60 --out build/soak

Prints a line of JSON every few seconds, and a verdict last; exits with 1 if something is wrong. In the folder it leaves
lines.json (a line for each look), verdict.json and soak.html (plots of memory and latencies). Ctrl-C or SIGTERM ends the load
early; what has been seen is judged.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..chaos.crowd import Crowd
from ..chaos.footprint import left_behind
from ..chaos.server import Server
from .drawing import draw
from .visitors import Visitors
from .watching import Line, judge, line

CROWD = 20  # more than there are slots: somebody always waits


def soak(server: Server, out: Path, minutes: float, every_s: float, enough: threading.Event) -> dict[str, Any]:
    """Start a server, load it for so long or until it is enough, stop it; the verdict."""
    lines: list[Line] = []
    server.start()
    began = time.monotonic()
    with Crowd(server.where, server.texts, size=CROWD) as crowd, Visitors(server.where) as visitors:
        due = began + every_s
        while (now := time.monotonic()) - began < 60 * minutes and not enough.wait(max(0.0, due - now)):
            due += every_s
            lines.append(line(time.monotonic() - began, server.look(), [*crowd.take(), *visitors.take()], server.held()))
            _say(lines[-1], out)
    last = [*crowd.take(), *visitors.take()]
    holds = server.wait_idle()
    lines.append(line(time.monotonic() - began, server.look(), last, holds))
    _say(lines[-1], out)
    server.stop()
    verdict = judge(lines, holds, left_behind(server.look()))
    (out / "verdict.json").write_text(json.dumps(verdict, indent=1) + "\n", "utf-8")
    (out / "soak.html").write_text(draw(lines, verdict), "utf-8")
    return verdict


def _say(told: Line, out: Path) -> None:
    print(json.dumps(told), flush=True)
    with (out / "lines.json").open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path, help="a Triton model repository")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between lines")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is written")
    options = parser.parse_args(arguments)
    enough = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: enough.set())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "lines.json").unlink(missing_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="triune-soak-"))
    server = Server(options.repository.absolute(), folder / "server")
    try:
        verdict = soak(server, options.out, options.minutes, options.every, enough)
    finally:
        server.close()
        folder.rmdir()
    print(json.dumps(verdict))
    return int(verdict["verdict"] != "passed")


if __name__ == "__main__":
    sys.exit(main())
