"""A process that measures one subject: reads {"streams": n, ...} lines, writes the arrivals of n simultaneous answers.

Run as `python -m bench.worker SUBJECT '{"...": ...}'` by the harness, with the Python that has the subject's packages.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any, Protocol

from .prompts import prompt
from .timing import Stream

MARK = "@"  # begins a line that is ours: the subjects' libraries print to the same place


class Subject(Protocol):
    """Something that answers prompts. Its module has a class `Subject` made from keyword arguments."""

    def about(self) -> dict[str, Any]:
        """Versions and settings, for the record."""
        ...

    def generate(self, prompts: list[str], tokens: int) -> list[Stream]:
        """Answer all prompts at once with exactly `tokens` tokens each, greedily."""
        ...

    def close(self) -> None:
        """Stop whatever was started."""
        ...


def main() -> None:
    name, options = sys.argv[1], json.loads(sys.argv[2])
    try:
        module = importlib.import_module(f"bench.subjects.{name}")
    except ModuleNotFoundError as error:
        _write({"missing": error.name})
        return
    subject: Subject = module.Subject(**options)
    try:
        _write({"about": subject.about()})
        for line in sys.stdin:
            asked = json.loads(line)
            prompts = [prompt(asked["first"] + i) for i in range(asked["streams"])]
            streams = subject.generate(prompts, asked["tokens"])
            _write({"streams": [[s.sent, s.arrivals] for s in streams]})
    finally:
        subject.close()


def _write(value: dict[str, Any]) -> None:
    print(f"\n{MARK}{json.dumps(value)}", flush=True)


if __name__ == "__main__":
    main()
