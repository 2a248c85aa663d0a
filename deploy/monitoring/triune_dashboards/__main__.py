"""python -m triune_dashboards FOLDER: writes the dashboards as Grafana reads them, a panel a line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from .machine import machine
from .serving import serving
from .tenants import tenants


def texts() -> dict[str, str]:
    """File name -> JSON, of every dashboard."""
    return {f"{made.build().uid}.json": _text(made) for made in (serving(), tenants(), machine())}


def _text(made: dashboard.Dashboard) -> str:
    """Whole, so that a change of a panel is a change of its line."""
    plain = json.loads(JSONEncoder().encode(made.build()))
    for number, panel in enumerate(plain["panels"], start=1):
        panel["id"] = number
    panels = ",\n".join(json.dumps(panel, sort_keys=True) for panel in plain.pop("panels"))
    rest = json.dumps(plain, sort_keys=True, indent=1).removesuffix("\n}")
    return f'{rest},\n "panels": [\n{panels}\n ]\n}}\n'


def main() -> int:
    """Runs the command line; returns the exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m triune_dashboards FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
