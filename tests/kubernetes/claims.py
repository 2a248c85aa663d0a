"""A folder of this machine as a volume that pods read."""

from __future__ import annotations

from pathlib import Path

from containers.engine import run

_CLAIM = """\
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadOnlyMany], storageClassName: "", hostPath: {{path: "{path}"}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec: {{accessModes: [ReadOnlyMany], storageClassName: "", resources: {{requests: {{storage: 1Gi}}}}, volumeName: {name}}}
"""


def claim(environment: dict[str, str], scratch: Path, name: str, folder: Path) -> None:
    """Make a PersistentVolumeClaim of a folder."""
    file = scratch / f"{name}.yaml"
    file.write_text(_CLAIM.format(name=name, path=folder))
    run("kubectl", "apply", "--validate=false", "-f", file, environment=environment)
