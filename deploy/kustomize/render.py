"""Writes the plain manifests anew from the chart: make manifests.

The base is what the chart makes of its default values, an overlay what a preset changes in it, as patches. So whoever has no
helm gets the same, and nothing is said twice by hand.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHART = HERE.parent / "helm" / "triune"
OVERLAYS = {"gpu": None, "cpu": CHART / "values-cpu.yaml", "r1": CHART / "values-r1.yaml"}
_NOTE = "# Made by `make manifests` of deploy/helm/triune; do not edit.\n"
_OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")
Manifest = dict[str, Any]


def rendered(helm: str, preset: Path | None) -> list[Manifest]:
    """The chart's manifests without what only helm knows: its hooks, its labels."""
    command = [helm, "template", "triune", str(CHART), *(["--values", str(preset)] if preset else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    manifests = [m for m in yaml.safe_load_all(done.stdout) if m and "helm.sh/hook" not in m["metadata"].get("annotations", {})]
    for manifest in manifests:
        _strip(manifest)
    return manifests


def _strip(value: object) -> None:
    if isinstance(value, dict):
        for name in _OF_HELM:
            value.pop(name, None)
        for part in value.values():
            _strip(part)
    elif isinstance(value, list):
        for part in value:
            _strip(part)


def difference(old: Any, new: Any, path: str = "") -> list[Manifest]:
    """The JSON patch that makes `new` of `old`."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        below = {key: f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}" for key in (*old, *new)}
        return [
            *({"op": "remove", "path": below[key]} for key in old if key not in new),
            *({"op": "add", "path": below[key], "value": new[key]} for key in new if key not in old),
            *(one for key in old if key in new for one in difference(old[key], new[key], below[key])),
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [one for i, pair in enumerate(zip(old, new, strict=True)) for one in difference(*pair, f"{path}/{i}")]
    return [{"op": "replace", "path": path, "value": new}]


def files(helm: str) -> dict[str, str]:
    """Every file's text, by its name in this folder."""
    base = {_identity(m): m for m in rendered(helm, None)}
    found = {}
    for kind in dict.fromkeys(key[0] for key in base):
        of_it = [manifest for key, manifest in base.items() if key[0] == kind]
        found[f"base/{kind.lower()}.yaml"] = _NOTE + yaml.safe_dump_all(of_it, sort_keys=False, width=200)
    names = [Path(name).name for name in found]
    found["base/kustomization.yaml"] = _NOTE + yaml.safe_dump(_kustomization(names), sort_keys=False)
    for name, preset in OVERLAYS.items():
        own = {_identity(m): m for m in rendered(helm, preset)}
        assert base.keys() <= own.keys(), f"{name} has less than the base, which a patch cannot say"
        kustomization = _kustomization(["../../base"])
        if more := [own[key] for key in own if key not in base]:
            kustomization["resources"].append("more.yaml")
            found[f"overlays/{name}/more.yaml"] = _NOTE + yaml.safe_dump_all(more, sort_keys=False, width=200)
        patches = [
            {"target": {"kind": key[0], "name": key[1]}, "patch": yaml.safe_dump(patch, sort_keys=False, width=200)}
            for key in base
            if (patch := difference(base[key], own[key]))
        ]
        if patches:
            kustomization["patches"] = patches
        found[f"overlays/{name}/kustomization.yaml"] = _NOTE + yaml.dump(
            kustomization, Dumper=_Blocks, sort_keys=False, width=200
        )
    return found


def _identity(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _kustomization(resources: list[str]) -> Manifest:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}


class _Blocks(yaml.SafeDumper):
    """Writes texts of several lines as such."""


_Blocks.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
)


if __name__ == "__main__":
    for name, text in files(sys.argv[1]).items():
        file = HERE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        print(file)
