"""The unit tests with Python 3.12 and NumPy 2, as NVIDIA's newer Triton has them. Run: make test-containers-full"""

from __future__ import annotations

from pathlib import Path

import pytest

from containers import bases
from containers.engine import mirrors, run
from support.real_server import ROOT

UNIT = "tests/runtime tests/repository tests/gateway tests/server/test_binaries.py tests/server/test_view.py"
TOOLS = "pytest hypothesis pytest-timeout jsonschema requests openai"
SCRIPT = f"""
set -e
cp -r /source/. /work/ && cd /work
export PIP_CONSTRAINT= PYTHONDONTWRITEBYTECODE=1
/opt/triune/bin/pip install -q --no-deps --require-hashes -r requirements/container.txt
/opt/triune/bin/pip install -q -c /dev/fd/3 {TOOLS} 3< <(grep -oE '^[A-Za-z0-9._-]+==[^ ]+' requirements/test.txt)
python -c "import numpy, sys; assert numpy.__version__ >= '2' and sys.version_info[:2] == (3, 12)"
python -m pytest -q -p no:cacheprovider -m "not slow and not gpu and not triton" -k "not torch and not chromium" {UNIT}
"""


@pytest.mark.slow
def test_the_unit_tests_pass_with_the_python_and_numpy_of_nvidias_image(
    docker: dict[str, str], gpu_image: str, repository: Path
) -> None:
    if not mirrors("ubuntu"):
        pytest.skip(bases.DEBIAN_FOR_NVIDIA)
    tracked = ROOT / "build" / "test-containers" / "source"
    tracked.mkdir(parents=True, exist_ok=True)
    run("bash", "-c", f"git ls-files -z | tar --null -T - -cf - | tar -xf - -C {tracked}")
    engine = (f"--volume={repository}:/models:ro", "--env=TRIUNE_E2E_REPOSITORY=/models")
    where = (
        f"--volume={tracked}:/source:ro",
        *engine,
        "--tmpfs=/work:exec,size=2g",
        "--user=0",
        "--entrypoint=bash",
        "--pull=never",
    )
    run("docker", "run", "--rm", *where, gpu_image, "-c", SCRIPT, environment=docker)
