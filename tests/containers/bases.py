"""Stand-ins for the images that the project's are built from, made of the distributions' packages: none is ever pulled.

Debian slim is Debian's own packages. NVIDIA's PyTorch image is Ubuntu's packages, with Python 3.12 as there, without PyTorch
and CUDA; or, where no mirror of Ubuntu's is known, Debian's with Python 3.11. Its Triton image holds the real server and the
real stub for that Python out of the wheel that `make install` takes, where NVIDIA's has them. Prometheus and Alertmanager are
Debian's. Not stood in for: CUDA, Triton's newer versions, and so NumPy 2 in its stub; Grafana, which Debian does not have.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from containers.engine import FOLDER, Unavailable, mirrors, run
from support.real_server import ROOT

HERE = Path(__file__).with_name("stand_ins")
DEBIAN, PYTORCH, TRITON = "triune-stand-in/debian", "triune-stand-in/pytorch", "triune-stand-in/tritonserver"
WATCHERS = {name: f"triune-stand-in/{name}" for name in ("prometheus", "alertmanager")}
DEBIAN_FOR_NVIDIA = (
    "NVIDIA's image was stood in for by Debian with Python 3.11, not by Ubuntu with 3.12: this machine's apt names no mirror "
    "of Ubuntu's; TRIUNE_UBUNTU_MIRROR=URL make test-containers names one"
)
_PACKING = threading.Lock()  # both images may be of one root
_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


def make_debian(environment: dict[str, str]) -> None:
    """
    Raises:
        Unavailable: no mirror of Debian's is known.
    """
    _make(DEBIAN, "Dockerfile.debian", _debian(), environment)


def make_watchers(environment: dict[str, str]) -> None:
    """Those that look at a server; of `DEBIAN`, which must be there."""
    for name, tag in WATCHERS.items():
        dockerfile = HERE / "Dockerfile.watchers"
        run("docker", "build", "-q", "-t", tag, f"--target={name}", "-f", dockerfile, HERE, environment=environment)


def make_nvidia(environment: dict[str, str]) -> None:
    """The two of NVIDIA's.

    Raises:
        Unavailable: no mirror is known.
    """
    _make(PYTORCH, "Dockerfile.pytorch", _ubuntu() if mirrors("ubuntu") else _debian(), environment)
    _make(TRITON, "Dockerfile.tritonserver", ROOT / "requirements" / "server.txt", environment)


def _debian() -> Path:
    found = mirrors("debian")
    if not found:
        raise Unavailable("apt names no mirror of Debian's here; TRIUNE_DEBIAN_MIRROR=URL make test-containers names one")
    sources = [f"deb {url} bookworm{'-security' if 'security' in url else ''} main" for url in found]
    return _root("bookworm", "ca-certificates", sources)


def _ubuntu() -> Path:
    # Debian has no keys of Ubuntu's; the stand-in serves tests alone.
    return _root("noble", "apt,ca-certificates", [f"deb [trusted=yes] {mirrors('ubuntu')[0]} noble main universe"])


def _root(release: str, packages: str, sources: list[str]) -> Path:
    """A distribution's root, packed; made once."""
    packed = FOLDER / f"{release}.tar"
    with _PACKING:
        if not packed.exists():
            beside = packed.with_suffix(".new.tar")
            arguments = ["--quiet", "--variant=minbase", "--mode=root", f"--include={packages}"]
            run("mmdebstrap", *arguments, release, beside, *sources, environment=os.environ | {"LC_ALL": "C"})
            beside.rename(packed)
    return packed


def _make(tag: str, dockerfile: str, file: Path, environment: dict[str, str]) -> None:
    """Build a stand-in out of one file, beside which it finds how this machine's pip reaches its index."""
    context = FOLDER / tag.partition("/")[2]
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    name = "root.tar" if file.suffix == ".tar" else file.name
    os.link(file, context / name) if file.stat().st_dev == context.stat().st_dev else shutil.copy2(file, context / name)
    shutil.copy2("/etc/ssl/certs/ca-certificates.crt", context / "ca.crt")
    pip = Path("/etc/pip.conf")
    (context / "pip.conf").write_text(pip.read_text("utf-8") if pip.exists() else "", "utf-8")
    arguments = [f"--build-arg={name}={os.environ[name]}" for name in _PIP if os.environ.get(name)]
    run("docker", "build", "-q", "-t", tag, "-f", HERE / dockerfile, *arguments, context, environment=environment)
