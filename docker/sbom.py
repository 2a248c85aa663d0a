"""Writes what is in an image as CycloneDX: Python packages, the distribution's packages, Triton. Runs inside of the image.

Usage: sbom.py FILE TITLE VERSION
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

PYTHON = "/opt/triune/bin/python"
TRITON = Path("/opt/tritonserver/TRITON_VERSION")
FIELDS = "${binary:Package}\t${Version}\t${Architecture}\n"


def main(file: str, title: str, version: str) -> None:
    command = [f"{sys.prefix}/bin/cyclonedx-py", "environment", "--spec-version=1.6", "--output-reproducible", PYTHON]
    bom = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    bom["components"] += [*debian_packages(), triton()]
    bom["metadata"]["component"] = {"type": "container", "name": title, "version": version, "bom-ref": "image"}
    text = json.dumps(bom, indent=1)
    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise SystemExit(f"error: what was made is no CycloneDX: {error}")
    Path(file).write_text(text + "\n", "utf-8")


def debian_packages() -> list[dict[str, str]]:
    """As dpkg knows them."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text("utf-8").splitlines() if "=" in line)
    system = release["ID"].strip('"')
    found = []
    listed = subprocess.run(["dpkg-query", "--show", f"--showformat={FIELDS}"], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        name, version, architecture = line.split("\t")
        name = name.partition(":")[0]
        purl = f"pkg:deb/{system}/{name}@{version.replace('+', '%2B')}?arch={architecture}"
        found.append({"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl})
    return found


def triton() -> dict[str, str]:
    version = TRITON.read_text("utf-8").strip()
    return {"type": "application", "name": "tritonserver", "version": version, "bom-ref": f"tritonserver@{version}"}


if __name__ == "__main__":
    main(*sys.argv[1:])
