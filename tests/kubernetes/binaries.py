"""Kubernetes for tests, built out of the sources that Debian 12 packages: no registry has it, and no package has its server.

Debian's `kubernetes` is 1.20.2, of 2021; what newer versions know is checked by their schemas, in tests/deploy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from containers.engine import KEYS, Unavailable, install, mirrors, run
from support.real_server import ROOT

FOLDER = ROOT / "build" / "test-kubernetes"  # kept from run to run
BINARIES = FOLDER / "bin"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
VERSION = "1.20.2"
RELEASE = "bookworm"
PACKAGES = (
    "dpkg-dev",
    "golang-1.19-go",
    "golang-github-modern-go-reflect2-dev",
    "rsync",
    "jq",
    "make",
    "etcd-server",
    "openssl",
)
_VERSION_FILE = f"""\
KUBE_GIT_COMMIT='archive'
KUBE_GIT_TREE_STATE='archive'
KUBE_GIT_VERSION='v{VERSION}'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
"""


def build() -> Path:
    """The folder of the server's programs; built once, in some six minutes of two cores.

    Raises:
        Unavailable: this is no Debian 12, or not root.
    """
    if "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text("utf-8") or not (found := mirrors("debian")):
        raise Unavailable("this is no Debian 12 whose apt could fetch sources")
    if os.geteuid():
        raise Unavailable("only root can start a cluster")
    install(PACKAGES)
    if all((BINARIES / name).exists() for name in COMPONENTS):
        return BINARIES
    sources = _fetch(found[0])
    # The vendored reflect2 reads maps as Go before 1.18 laid them out: the server dies of it. Debian packages the repaired one.
    vendored = sources / "vendor/github.com/modern-go/reflect2"
    for file in [*vendored.glob("*.go"), *vendored.glob("*.s")]:
        file.unlink()
    packaged = Path("/usr/share/gocode/src/github.com/modern-go/reflect2")
    for file in [*packaged.glob("*.go"), *packaged.glob("*.s")]:
        shutil.copy2(file, vendored)
    link = sources / ".go/src/k8s.io/kubernetes"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to("../../..")
    version, home = FOLDER / "version", FOLDER / "home"
    version.write_text(_VERSION_FILE, "utf-8")
    home.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("GOFLAGS", "GO111MODULE", "MAKEFLAGS")} | {
        "PATH": f"/usr/lib/go-1.19/bin:{os.environ['PATH']}", "HOME": str(home), "GOPATH": f"{sources}/.go", "GOPROXY": "off",
        "CGO_ENABLED": "0", "KUBE_GIT_VERSION_FILE": str(version),
    }  # fmt: skip
    what = " ".join(f"cmd/{name}" for name in COMPONENTS)
    make = ("nice", "-n", "19", "make", "-C", str(sources), f"WHAT={what}", "GOLDFLAGS=-s -w")
    run(*make, environment=environment, timeout_s=3600)
    BINARIES.mkdir(exist_ok=True)
    for name in COMPONENTS:
        shutil.copy2(sources / "_output" / "bin" / name, BINARIES)
    shutil.rmtree(sources)  # two gigabytes
    return BINARIES


def _fetch(mirror: str) -> Path:
    """The source package, unpacked, with Debian's patches; apt gets lists of its own, which have source packages."""
    apt = FOLDER / "apt"
    (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"deb-src [signed-by={KEYS}] {mirror} {RELEASE} main\n", "utf-8")
    (apt / "conf").write_text(
        f'Dir::Etc::sourcelist "{apt}/sources.list";\nDir::Etc::sourceparts "/dev/null";\nDir::State::lists "{apt}/lists";\n'
        'APT::Sandbox::User "root";\n',
        "utf-8",
    )
    environment = os.environ | {"APT_CONFIG": str(apt / "conf")}
    run("apt-get", "update", "-q", environment=environment)
    for stale in FOLDER.glob("kubernetes-*/"):
        shutil.rmtree(stale)
    subprocess.run(["apt-get", "source", "-q", "kubernetes"], env=environment, cwd=FOLDER, check=True)
    (sources,) = FOLDER.glob("kubernetes-*/")
    return sources
