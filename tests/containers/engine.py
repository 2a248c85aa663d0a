"""A Docker engine for tests: the machine's own, or one out of Debian's packages, unpacked here and started for them.

The engine of Debian 12 is too old for `start_interval` in compose files, so that of Debian 13 is unpacked, which runs there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.real_server import ROOT
from triune_server.lifeline import end_with_parent

FOLDER = ROOT / "build" / "test-containers"  # kept from run to run
TOOLS = ROOT / ".venvs" / "containers" / "bin"
NEEDED = ("runc", "iptables", "iproute2", "mmdebstrap")  # of the machine's own Debian
UNPACKED = ("docker.io", "docker-cli", "docker-buildx", "containerd")
RELEASE = "trixie"
LEAST = 25
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
HOW = "run `make test-containers` as root on Debian 12 or later, or where Docker 25 or later runs, with buildx"
_MIRROR = re.compile(r"^(?:URIs:\s*|deb (?:\[[^]]*\] )?)(https?://\S+/(debian|ubuntu)(?:-security)?)/?\s", re.MULTILINE)


class Unavailable(Exception):
    """Why there is no engine here."""


def run(*command: str | Path, environment: dict[str, str] | None = None, timeout_s: float = 900) -> str:
    """What a command prints; its errors are shown where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_s, cwd=ROOT)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def mirrors(distribution: str) -> list[str]:
    """Where packages of `debian` or `ubuntu` come from, those of security updates last; none where that is not known.

    What TRIUNE_DEBIAN_MIRROR or TRIUNE_UBUNTU_MIRROR says, else what this machine's apt uses.
    """
    if said := os.environ.get(f"TRIUNE_{distribution.upper()}_MIRROR"):
        return said.split()
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*")]
    found = [match for file in files if file.is_file() for match in _MIRROR.findall(file.read_text("utf-8"))]
    return sorted({url for url, name in found if name == distribution}, key=lambda url: ("security" in url, url))


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """The environment in which `docker` talks to an engine.

    Raises:
        Unavailable: there is none, and none can be made.
    """
    if _usable(os.environ.copy()):
        yield os.environ | {"DOCKER_CONFIG": str(_plugins(Path.home() / ".docker" / "cli-plugins"))}
        return
    if "ID=debian" not in Path("/etc/os-release").read_text("utf-8").splitlines() or not (found := mirrors("debian")):
        raise Unavailable("no Docker 25 or later runs here, and this is no Debian whose apt could fetch one")
    if os.geteuid():
        raise Unavailable("no Docker 25 or later runs here, and only root can start one")
    FOLDER.mkdir(parents=True, exist_ok=True)
    install(NEEDED)
    root = FOLDER / "engine"
    if not (root / "usr" / "sbin" / "dockerd").exists():
        _unpack(found[0], root)
    # A socket's path has at most 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="triune-docker-") as name,
        _bridge() as bridge,
        _daemon(root, Path(name), bridge) as there,
    ):
        yield there


def _usable(environment: dict[str, str]) -> bool:
    if shutil.which("docker") is None:
        return False
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    done = subprocess.run(asked, capture_output=True, text=True, env=environment)
    has_buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True, env=environment).returncode == 0
    return done.returncode == 0 and has_buildx and int(done.stdout.partition(".")[0]) >= LEAST


def install(packages: tuple[str, ...]) -> None:
    """From the machine's own Debian, which takes root."""
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    asked = ["dpkg-query", "--show", "--showformat=${Status}\n", *packages]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode == 0 and all(line.endswith(" installed") for line in done.stdout.splitlines()):
        return
    run("apt-get", "update", "-q", environment=quiet)
    run("apt-get", "install", "-yq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *packages, environment=quiet)


def _unpack(mirror: str, root: Path) -> None:
    """The newer Debian's engine, without installing it: apt gets lists of its own."""
    apt = FOLDER / "apt"
    for part in ("lists/partial", "cache/archives/partial", "packages"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"deb [signed-by={KEYS}] {mirror} {RELEASE} main\n", "utf-8")
    (apt / "conf").write_text(
        f'Dir::Etc::sourcelist "{apt}/sources.list";\nDir::Etc::sourceparts "/dev/null";\nDir::State::lists "{apt}/lists";\n'
        f'Dir::State::status "/dev/null";\nDir::Cache "{apt}/cache";\nAPT::Sandbox::User "root";\n',
        "utf-8",
    )
    environment = os.environ | {"APT_CONFIG": str(apt / "conf")}
    run("apt-get", "update", "-q", environment=environment)
    subprocess.run(["apt-get", "download", "-q", *UNPACKED], env=environment, cwd=apt / "packages", check=True)
    for package in (apt / "packages").glob("*.deb"):
        run("dpkg", "-x", package, root)
    shutil.rmtree(apt)


def _plugins(*folders: Path) -> Path:
    """A folder of Docker's settings in which its plugins are found, compose too."""
    config = FOLDER / "config"
    (config / "cli-plugins").mkdir(parents=True, exist_ok=True)
    found = [plugin for folder in folders for plugin in folder.glob("docker-*")]
    for plugin in [*found, TOOLS / "docker-compose"]:
        link = config / "cli-plugins" / plugin.name
        link.unlink(missing_ok=True)
        link.symlink_to(plugin)
    return config


@contextmanager
def _bridge() -> Iterator[str]:
    """The name of a network bridge of its own: of one that two engines share, the containers would get the same addresses."""
    name = f"triune{os.getpid()}"
    run("ip", "link", "add", name, "type", "bridge")
    try:
        run("ip", "address", "add", f"10.231.{os.getpid() % 250}.1/24", "dev", name)
        run("ip", "link", "set", name, "up")
        yield name
    finally:
        run("ip", "link", "delete", name)


@contextmanager
def _daemon(root: Path, place: Path, bridge: str) -> Iterator[dict[str, str]]:
    binaries = f"{root}/usr/sbin:{root}/usr/bin:{os.environ['PATH']}"
    environment = os.environ | {
        "PATH": binaries, "DOCKER_HOST": f"unix://{place}/docker.sock",
        "DOCKER_CONFIG": str(_plugins(root / "usr" / "libexec" / "docker" / "cli-plugins")),
    }  # fmt: skip
    settings = {
        "data-root": str(FOLDER / "images"), "exec-root": f"{place}/exec", "pidfile": f"{place}/pid",
        "hosts": [environment["DOCKER_HOST"]], "bridge": bridge, "default-runtime": "lenient",
        "runtimes": {"lenient": {"path": str(_runtime())}},
    }  # fmt: skip
    (place / "daemon.json").write_text(json.dumps(settings), "utf-8")
    log = FOLDER / "engine.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["dockerd", f"--config-file={place}/daemon.json"], stdout=out, stderr=out, env=environment, start_new_session=True,
            preexec_fn=end_with_parent,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not _usable(environment):
            if process.poll() is not None or time.monotonic() > deadline:
                last = " / ".join(log.read_text("utf-8", "replace").splitlines()[-3:])
                raise Unavailable(f"the Docker engine does not start here: {last}")
            time.sleep(0.5)
        yield environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _runtime() -> Path:
    """runc, for machines whose root may not raise limits, itself a container often enough: what would raise one is left out."""
    script = FOLDER / "runc"
    code = f'import runpy\nrunpy.run_path("{Path(__file__).with_name("runc.py")}")\n'
    script.write_text(f"#!{sys.executable} -IS\n{code}", "utf-8")
    script.chmod(0o755)
    return script
