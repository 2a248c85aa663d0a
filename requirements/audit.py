"""Looks every locked package up among published advisories, without asking anyone: in a copy of PyPA's advisory database.

Get it once: git clone --depth 1 https://github.com/pypa/advisory-database
Run: make audit ADVISORIES=advisory-database
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

HERE = Path(__file__).parent
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def pinned(folder: Path = HERE) -> dict[tuple[str, str], list[str]]:
    """Packages and versions of all lists below a folder, and the lists that each is in."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in sorted(folder.rglob("*.txt")):
        for name, version in _PINNED.findall(file.read_text("utf-8")):
            key = re.sub(r"[-_.]+", "-", name).lower(), version
            found.setdefault(key, []).append(str(file.relative_to(folder)))
    return found


def hits(version: str, advisory: Mapping[str, Any], package: str) -> bool:
    """Whether an advisory in the form of OSV is about this version of a package, and not withdrawn."""
    if advisory.get("withdrawn"):
        return False
    for affected in advisory.get("affected", ()):
        if re.sub(r"[-_.]+", "-", affected["package"]["name"]).lower() != package:
            continue
        if version in map(str, affected.get("versions", ())):
            return True
        if any(_within(Version(version), one["events"]) for one in affected.get("ranges", ()) if one["type"] == "ECOSYSTEM"):
            return True
    return False


def _within(version: Version, events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a version lies in a range: introduced, and not fixed since."""
    inside = False
    for event in events:
        if "introduced" in event:
            inside = inside or str(event["introduced"]) == "0" or version >= Version(str(event["introduced"]))
        elif ("fixed" in event and version >= Version(str(event["fixed"]))) or (
            "last_affected" in event and version > Version(str(event["last_affected"]))
        ):
            inside = False
    return inside


def main(advisories: Path) -> int:
    """Print what is found; 1 if anything is."""
    if not (advisories / "vulns").is_dir():
        hint = (__doc__ or "").splitlines()[2]
        print(f"error: {advisories} is no copy of PyPA's advisory database\n\nhint: {hint}", file=sys.stderr)
        return 2
    packages, found, read = pinned(), 0, 0
    for (package, version), lists in sorted(packages.items()):
        for file in sorted((advisories / "vulns" / package).glob("*.yaml")):
            advisory = yaml.safe_load(file.read_text("utf-8"))
            read += 1
            if hits(version, advisory, package):
                found += 1
                names = ", ".join([advisory["id"], *advisory.get("aliases", ())])
                told = str(advisory.get("summary") or advisory.get("details", "")).split("\n")[0][:150]
                print(f"{package} {version} ({', '.join(lists)}): {names}: {told}")
    print(f"{len(packages)} packages in their versions, {read} advisories about them: {found} hold")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) == 2 else Path("advisory-database")))
