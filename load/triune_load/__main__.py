"""The command `triune-load`: runs a load, compares two results, writes a report anew, measures itself.

Exit codes: 0 passed, 1 not, 2 wrong arguments or no server, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .configure import configure
from .errors import LoadError
from .options import parse_run
from .report.html import render_html
from .report.junit import render_junit
from .report.terminal import print_comparison, print_result
from .run import run
from .settings import Settings

Json = dict[str, Any]


def main(arguments: Sequence[str] | None = None, prog: str = "triune-load") -> int:
    """Runs the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        match given[:1]:
            case ["compare"]:
                return _compare(given[1:])
            case ["report"]:
                return _report(given[1:])
            case ["self-test"]:
                from .selftest.measure import main as self_test

                return self_test(given[1:], f"{prog} self-test")
        args = parse_run(given, prog)
        return _run(configure(args, shlex.join([prog, *given])))
    except LoadError as error:
        print(f"error: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(settings: Settings) -> int:
    result = asyncio.run(run(settings))
    _write(settings.json_file, json.dumps(result, indent=1) + "\n")
    _write(settings.html_file, render_html(result) if settings.html_file else "")
    _write(settings.junit_file, render_junit(result) if settings.junit_file else "")
    print_result(result)
    return 0 if result["verdict"]["passed"] else 1


def _compare(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        raise LoadError(f"compare takes two results, not {len(arguments)}", "triune-load compare A.json B.json")
    first, second = (_read(Path(path)) for path in arguments)
    print_comparison(first, second)
    return 0


def _report(arguments: Sequence[str]) -> int:
    if len(arguments) not in (1, 2):
        raise LoadError("report takes a result, and the file to write", "triune-load report RESULT.json REPORT.html")
    source = Path(arguments[0])
    result = _read(source)
    _write(Path(arguments[1]) if len(arguments) > 1 else source.with_suffix(".html"), render_html(result))
    print_result(result)
    return 0


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise LoadError(f"{path} cannot be written: {error.strerror}") from None


def _read(path: Path) -> Json:
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] != 1 or not isinstance(found["steps"], list):
            raise LoadError(f"{path} has the format {found['format']!r}; expected 1")
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path} is no result of a load test: {error!r}", "write one with --json") from None
    result: Json = found
    return result


if __name__ == "__main__":
    sys.exit(main())
