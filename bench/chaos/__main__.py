"""Do harm to a real server of r1-nano on this machine, fault after fault, and see that it survives each.

    python -m bench.chaos REPOSITORY --faults 300 --seed 1
    python -m bench.chaos REPOSITORY --seed 1 --only 17         # fault number 17 of that run alone
    python -m bench.chaos REPOSITORY --name kill-generate --faults 20

Prints a line for each fault, and a verdict last; exits with 1 if something was wrong. It ends by itself after --minutes.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .running import Result, choose, run_one
from .server import Server
from .table import BY_NAME, FAULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{fault.name:<28} {fault.do.__doc__ or ''}".rstrip() for fault in FAULTS))
        return 0
    faults = [BY_NAME[name] for name in options.name] or list(FAULTS)
    chosen = list(choose(faults, options.seed, max(options.faults, options.only or 0)))
    chosen = [(n, fault) for n, fault in chosen if n >= options.first and options.only in (None, n)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # what was started is ended
    folder = Path(tempfile.mkdtemp(prefix="triune-chaos-"))
    server = Server(options.repository.absolute(), folder / "server")
    results: list[Result] = []
    end = time.monotonic() + 60 * options.minutes
    try:
        # The first start learns the right answers, whatever the first fault is.
        server.start()
        for number, fault in chosen:
            if time.monotonic() > end:
                break
            results.append(run_one(server, fault, number, options.seed))
            _say(results[-1], options)
    finally:
        server.close()
        folder.rmdir()
    return _verdict(results, len(chosen), options)


def _say(result: Result, options: argparse.Namespace) -> None:
    told = f"skipped: {result.lacks}" if result.lacks else ", ".join(f"{n} {kind}" for kind, n in result.outcomes.items())
    state = "FAIL" if result.violations else "skip" if result.lacks else "ok"
    print(f"{state:<4} {result.number:>4} {result.fault:<28} {result.seconds:>6.1f} s  {told}", flush=True)
    for violation in result.violations:
        print(f"       {violation}")
    if result.violations:
        names = "".join(f" --name {name}" for name in options.name)
        again = f"--seed {options.seed} --only {result.number}{names}"
        done = "; ".join(list(dict.fromkeys(result.notes))[:6]) or "as its name says"
        print(f'       done: {done}\n       again: make chaos CHAOS="{again}"', flush=True)
    if options.json is not None:
        with options.json.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"seed": options.seed, **result.as_json()}) + "\n")


def _verdict(results: Sequence[Result], wanted: int, options: argparse.Namespace) -> int:
    done = [result for result in results if not result.lacks]
    broken = [result for result in done if result.violations]
    kinds = len({result.fault for result in done})
    skipped = sorted({result.fault for result in results if result.lacks})
    print(f"\n{len(done)} faults of {kinds} kinds, seed {options.seed}: {len(broken)} with violations")
    if skipped:
        print(f"not done here: {', '.join(skipped)}")
    if len(results) < wanted:
        print(f"ended after {options.minutes:.0f} minutes, {wanted - len(results)} faults before the end")
    return int(bool(broken) or not done)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path, help="a Triton model repository, of r1-nano for the times that are promised")
    parser.add_argument("--faults", type=int, default=len(FAULTS), help="how many (default: each once)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="the fault of that number alone")
    parser.add_argument("--first", type=int, default=1, metavar="NUMBER", help="begin with the fault of that number")
    parser.add_argument("--name", action="append", default=[], choices=sorted(BY_NAME), help="faults of these names alone")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new fault after so long (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add a line for each fault")
    parser.add_argument("--list", action="store_true", help="print the faults, and do nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
