"""The plain manifests are what the chart makes, the units are valid. Run: make test-containers"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from support.charts import ROOT, TOOLS

FOLDER = ROOT / "deploy" / "kustomize"
UNITS = ROOT / "deploy" / "systemd"


@pytest.fixture(scope="module")
def renderer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render", FOLDER / "render.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_they_are_what_the_chart_makes(programs: Path, renderer: ModuleType) -> None:
    made = renderer.files(str(programs / "helm"))
    there = {str(p.relative_to(FOLDER)): p.read_text("utf-8") for p in FOLDER.rglob("*.yaml")}
    assert there == made, "run `make manifests`"


@pytest.mark.parametrize("overlay", ["gpu", "cpu", "r1"])
def test_an_overlay_is_what_helm_makes_of_its_preset(
    programs: Path, renderer: ModuleType, overlay: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [programs / "kubectl", "kustomize", FOLDER / "overlays" / overlay], capture_output=True, text=True, check=True
    )
    built = {(m["kind"], m["metadata"]["name"]): m for m in yaml.safe_load_all(done.stdout)}
    expected = renderer.rendered(str(programs / "helm"), renderer.OVERLAYS[overlay])
    assert built == {(m["kind"], m["metadata"]["name"]): m for m in expected}
    (tmp_path / "built.yaml").write_text(done.stdout)
    valid = subprocess.run(
        [TOOLS / "bin" / "kubernetes-validate", "--strict", "--no-warn", "-k", "1.37", tmp_path / "built.yaml"],
        capture_output=True,
    )
    assert valid.returncode == 0, valid.stdout


def test_a_patch_says_every_difference(renderer: ModuleType) -> None:
    old = {"same": 1, "gone": 2, "a/b": {"~": [1, 2]}, "list": [1]}
    new = {"same": 1, "a/b": {"~": [1, 3]}, "list": [1, 2], "more": {}}
    assert renderer.difference(old, new) == [
        {"op": "remove", "path": "/gone"},
        {"op": "add", "path": "/more", "value": {}},
        {"op": "replace", "path": "/a~1b/~0/1", "value": 3},
        {"op": "replace", "path": "/list", "value": [1, 2]},
    ]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@.", "@8004.")
    copy.write_text(re.sub("/opt/triune/.venv/bin/triune", "/bin/true", unit.read_text("utf-8")))  # which is not there
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    exposed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", copy], capture_output=True, text=True
    )
    assert exposed.returncode == 0, exposed.stdout[-300:]


def test_every_printed_command_of_helm_names_release_and_namespace() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    commands = re.findall(r"^helm (?:install|upgrade|test|rollback) .*(?:\\\n.*)?", page, re.MULTILINE)
    commands += re.findall(r"`(helm (?:install|upgrade|test|rollback) [^`]+)`", page)
    assert len(commands) >= 5
    for command in commands:
        assert re.match(r"helm \w+ triune ", command) and "--namespace triune" in command, command


def test_every_printed_command_of_compose_finds_its_stack() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for command in re.findall(r"docker compose [^`\n]+", page.read_text("utf-8")):
            assert re.match(r"docker compose (-p triune|-f docker/)", command), (page.name, command)
