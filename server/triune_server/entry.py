"""Where the program `triune` begins: ctrl-C is heard before anything heavy is imported."""

from __future__ import annotations

import sys

from triune_runtime.command_line import errors_told
from triune_runtime.interruption import end_on_interrupt, raise_on_interrupt

_IN_THEIR_WAY = ("chat", "load")  # commands that ctrl-C does not end, or not without a word


def main() -> None:
    """Entry point of the command `triune`."""
    end_on_interrupt()
    if sys.argv[1:2] == ["health"]:
        from .health import main as health  # probes ask every few seconds: nothing else is imported

        sys.exit(health(sys.argv[2:]))
    with errors_told(passing=()):
        from .command import main as run  # half a second

        if sys.argv[1:2] and sys.argv[1] in _IN_THEIR_WAY:
            raise_on_interrupt()
        run()


if __name__ == "__main__":
    main()
