"""Stand-ins for the images that the project's are built from, made of the distributions' packages: none is ever pulled.

Debian slim is Debian's own packages. NVIDIA's PyTorch image is Ubuntu's packages, with Python 3.12 as there, without PyTorch
and CUDA; its Triton image holds the real server and the real stub for Python 3.12 out of the wheel that `make install` takes,
where NVIDIA's has them. Not stood in for: CUDA, Triton's newer versions, and so NumPy 2 in its stub.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from containers.engine import FOLDER, Unavailable, debian_mirrors, run
from support.real_server import ROOT

HERE = Path(__file__).with_name("stand_ins")
DEBIAN, PYTORCH, TRITON = "triune-stand-in/debian", "triune-stand-in/pytorch", "triune-stand-in/tritonserver"
UBUNTU_MIRROR = os.environ.get("TRIUNE_UBUNTU_MIRROR", "http://archive.ubuntu.com/ubuntu")
_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


def make_debian(environment: dict[str, str]) -> None:
    mirror, security = (debian_mirrors() * 2)[:2]
    sources = [f"deb {mirror} bookworm main", f"deb {security} bookworm-security main"] if security != mirror else [
        f"deb {mirror} bookworm main"
    ]  # fmt: skip
    _make(DEBIAN, "Dockerfile.debian", _root("bookworm", "ca-certificates", sources), environment)


def make_nvidia(environment: dict[str, str]) -> None:
    """The two of NVIDIA's.

    Raises:
        Unavailable: Ubuntu's packages are not within reach.
    """
    asked = ["curl", "-sfI", "--max-time", "20", f"{UBUNTU_MIRROR}/dists/noble/Release"]
    if subprocess.run(asked, capture_output=True).returncode:
        raise Unavailable(f"{UBUNTU_MIRROR} is not within reach (TRIUNE_UBUNTU_MIRROR names another)")
    # Debian has no keys of Ubuntu's; the stand-in serves tests alone.
    source = f"deb [trusted=yes] {UBUNTU_MIRROR} noble main universe"
    _make(PYTORCH, "Dockerfile.pytorch", _root("noble", "apt,ca-certificates,python3", [source]), environment)
    _make(TRITON, "Dockerfile.tritonserver", ROOT / "requirements" / "server.txt", environment)


def _root(release: str, packages: str, sources: list[str]) -> Path:
    """A distribution's root, packed; made once."""
    packed = FOLDER / f"{release}.tar"
    if not packed.exists():
        beside = packed.with_suffix(".new.tar")
        arguments = ["--quiet", "--variant=minbase", "--mode=root", f"--include={packages}"]
        run("mmdebstrap", *arguments, release, beside, *sources, environment=os.environ | {"LC_ALL": "C"})
        beside.rename(packed)
    return packed


def _make(tag: str, dockerfile: str, file: Path, environment: dict[str, str]) -> None:
    """Build a stand-in out of one file, beside which it finds how this machine's pip reaches its index."""
    context = FOLDER / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    os.link(file, context / file.name) if file.stat().st_dev == context.stat().st_dev else shutil.copy2(file, context)
    shutil.copy2("/etc/ssl/certs/ca-certificates.crt", context / "ca.crt")
    pip = Path("/etc/pip.conf")
    (context / "pip.conf").write_text(pip.read_text("utf-8") if pip.exists() else "", "utf-8")
    arguments = [f"--build-arg={name}={os.environ[name]}" for name in _PIP if os.environ.get(name)]
    run("docker", "build", "-q", "-t", tag, "-f", HERE / dockerfile, *arguments, context, environment=environment)
