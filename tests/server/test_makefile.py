"""What the real Makefile hands to `triune`, in a checkout with an awkward path. Run: pytest tests/server/test_makefile.py"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from triune_server.command import SETTINGS

ROOT = Path(__file__).parents[2]
INSTALLED = "--old-file=.venv/installed"  # whatever its rule is
# A stand-in for the environment's Python: writes down how it was called.
RECORDER = """#!{python}
import json, os, pathlib, sys
if sys.argv[3:4] == ["repository"]:
    print("build/a b/cpu/repository")
said = {{k: v for k, v in os.environ.items() if k.startswith("TRIUNE_")}}
with pathlib.Path("calls").open("a") as out:
    print(json.dumps([sys.argv[1:], said]), file=out)
"""
AWKWARD = [
    "plain", "owner/name", "/a b/c", "a  b", "(x)", "$HOME", "$$", "$(shell false)", "${x}", "it's", 'say "x"', "`id`", "a#b",
    "a\\b", "~/models/x", "模型", "модель é", "a;b&c|d", "*", "-x", "a=b", "%", ",",
]  # fmt: skip


class Checkout:
    """A folder with the Makefile and a stand-in for the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".venv" / "bin").mkdir(parents=True)
        shutil.copy2(ROOT / "Makefile", folder)
        (folder / ".venv" / "installed").touch()
        python = folder / ".venv" / "bin" / "python"
        python.write_text(RECORDER.format(python=sys.executable))
        python.chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> list[tuple[list[str], dict[str, str]]]:
        """The calls that `make` makes: arguments, and what the environment says of settings."""
        (self.folder / "calls").unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRIUNE_", "MAKE", "MFLAGS"))}
        kept = {name: value for name, value in kept.items() if name not in {setting.variable for setting in SETTINGS.values()}}
        done = subprocess.run(
            ["make", INSTALLED, *arguments], cwd=self.folder, env=kept | environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return [tuple(json.loads(line)) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture(params=["checkout", "check out (1) $x 'é"])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / str(request.param))


@pytest.mark.parametrize("model", AWKWARD)
def test_a_models_name_arrives_as_it_was_said(checkout: Checkout, model: str) -> None:
    for calls in (checkout.make("up", f"MODEL={model}"), checkout.make("up", MODEL=model)):
        assert [said for _, said in calls] == [{"TRIUNE_MODEL": model}]


def test_a_name_of_two_lines_is_refused_in_words(checkout: Checkout) -> None:
    for variable in ("MODEL", "NAME", "BUILD_DIR"):
        with pytest.raises(AssertionError, match=f"{variable} has a line break in it"):
            checkout.make("up", f"{variable}=/models/a\nb")


@pytest.mark.parametrize("variable", ["MODEL", "MODELS"])
def test_an_empty_model_as_of_a_shells_variable_that_is_not_set_is_not_the_default(checkout: Checkout, variable: str) -> None:
    with pytest.raises(AssertionError, match=f"{variable} is empty; say which model, or leave it out"):
        checkout.make("up", f"{variable}=")


def test_every_setting_of_the_command_is_a_variable_of_make(checkout: Checkout) -> None:
    given = {setting.variable: f"v {number}" for number, setting in enumerate(SETTINGS.values())}
    ((_, said),) = checkout.make("config", *(f"{name}={value}" for name, value in given.items()))
    assert said == {setting.environment: given[setting.variable] for setting in SETTINGS.values()}


def test_what_is_not_said_is_left_to_the_file_and_the_defaults(checkout: Checkout) -> None:
    assert [said for _, said in checkout.make("up")] == [{}]


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="with a GPU an installed vLLM is taken")
def test_vllm_is_set_up_for_its_target_alone_and_where_none_is_named(checkout: Checkout) -> None:
    own = "--old-file=.venvs/vllm/installed"
    with pytest.raises(AssertionError, match="triune_setup"):
        checkout.make("up", "TARGET=vllm")
    (checkout.folder / ".venvs/vllm").mkdir(parents=True)
    (checkout.folder / ".venvs/vllm/installed").touch()
    assert checkout.make("up", own, "TARGET=vllm", "TENSOR_PARALLEL=2")[0][1] == {
        "TRIUNE_TARGET": "vllm", "TRIUNE_TENSOR_PARALLEL": "2",
    }  # fmt: skip
    assert checkout.make("up", "TARGET=vllm", TRIUNE_VLLM_PYTHON="/opt/python")


def test_each_verb_calls_its_command(checkout: Checkout) -> None:
    verbs = {
        "engine": ["build"], "verify": ["verify"], "compare": ["compare"], "up": ["up", "--build"],
        "serve": ["serve", "--build"], "down": ["down"], "status": ["status"], "logs": ["logs"], "chat": ["chat"],
        "config": ["config"], "doctor": ["doctor"], "add": ["add", "--build"], "remove": ["remove", ""],
    }  # fmt: skip
    for verb, command in verbs.items():
        assert [call for call, _ in checkout.make(verb, INSTALLED)] == [["-m", "triune_server.entry", *command]]
    assert checkout.make("up", "SWITCH=1")[0][0][-2:] == ["--build", "--switch"]
    assert checkout.make("remove", "NAME=it's")[0][0][-1] == "it's"
    compared = checkout.make("compare", INSTALLED, "MODEL=it's", "PRECISIONS=int4 fp32", "COMPARE=--rounds 2 --text 'my text'")
    asked = ["compare", "--precisions=int4 fp32", "--rounds", "2", "--text", "my text"]
    assert [(call[2:], said) for call, said in compared] == [(asked, {"TRIUNE_MODEL": "it's"})]
    assert checkout.make("up", "SWITCH=0")[0][0][-1] == "--build"


def test_the_host_that_a_shell_or_a_compiler_sets_is_not_taken(checkout: Checkout) -> None:
    assert checkout.make("up", HOST="x86_64-conda-linux-gnu", NAME="a-machine")[0][1] == {}
    assert checkout.make("up", "HOST=0.0.0.0")[0][1] == {"TRIUNE_HOST": "0.0.0.0"}
    assert checkout.make("up", GPU="0", GPUS="0,1")[0][1] == {}
    assert checkout.make("up", "GPUS=8", GPU="0")[0][1] == {"TRIUNE_GPUS": "8"}


def test_the_older_name_of_the_compute_capability_still_works(checkout: Checkout) -> None:
    assert checkout.make("engine", "CAPABILITY=8.9 12.0")[0][1] == {"TRIUNE_COMPUTE_CAPABILITY": "8.9 12.0"}


def test_where_it_serves_goes_to_the_command_as_it_is(checkout: Checkout) -> None:
    for where in ("docker", "Docker", "pod man"):
        assert checkout.make("up", f"WHERE={where}")[0][0][-2:] == ["--build", f"--where={where}"]
    with pytest.raises(AssertionError, match="WHERE is of make up"):
        checkout.make("serve", "WHERE=docker")


def test_what_an_image_is_made_of_can_be_named(checkout: Checkout) -> None:
    (checkout.folder / "docker").mkdir()
    build = checkout.folder / "docker" / "build"
    build.write_text(
        f'#!{sys.executable}\nimport json, sys\nprint(json.dumps([sys.argv[1:], {{}}]), file=open("calls", "a"))\n'
    )
    build.chmod(0o755)
    shutil.copy2(ROOT / "pyproject.toml", checkout.folder)
    assert checkout.make("image-cpu")[0][0] == ["Dockerfile.cpu", "triune-cpu:0.1.0"]
    assert checkout.make("image-cpu", "DEBIAN_IMAGE=mine:1")[0][0][2:] == ["--build-arg=DEBIAN_IMAGE=mine:1"]
    said = checkout.make("image", "PYTORCH_IMAGE=a", "TRITON_IMAGE=b", "TARGETS=")[0][0]
    assert said[2:] == ["--build-arg=PYTORCH_IMAGE=a", "--build-arg=TRITON_IMAGE=b", "--build-arg=TARGETS="]
