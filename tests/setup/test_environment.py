"""What is there is judged by what it is, not by being there; made by the real Makefile.

Run: pytest tests/setup/test_environment.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.tiny_checkout import LIST, TinyCheckout, tiny_checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckout:
    """A checkout whose environment is made; each test leaves it whole."""
    made = tiny_checkout(tmp_path_factory.mktemp("setup"))
    done = made.run()
    assert done.returncode == 0, done
    return made


def test_a_whole_environment_is_left_alone_in_silence(checkout: TinyCheckout) -> None:
    before = (checkout.folder / "installed").stat()
    done = checkout.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (checkout.folder / "installed").stat() == before or (
        checkout.folder / "installed"
    ).stat().st_mtime == before.st_mtime
    assert not (checkout.folder / "tmp").exists() and not (checkout.folder / "unfinished").exists()


def test_a_changed_list_is_noticed_though_its_time_is_the_same(checkout: TinyCheckout) -> None:
    time = (checkout.root / LIST).stat().st_mtime_ns
    checkout.publish("2.0")
    os.utime(checkout.root / LIST, ns=(time, time))
    assert checkout.run().returncode == 0
    assert checkout.says() == "2.0"


def _no_stamp(folder: Path) -> None:
    (folder / "installed").unlink()


def _marked(folder: Path) -> None:
    (folder / "unfinished").touch()


def _empty_stamp(folder: Path) -> None:
    (folder / "installed").write_text("")


def _no_pip(folder: Path) -> None:
    for path in folder.glob("lib/python*/site-packages/pip*"):
        shutil.rmtree(path)


def _broken_link(folder: Path) -> None:
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").symlink_to("/no/such/python3.11")


def _another_python(folder: Path) -> None:
    said = json.loads((folder / "installed").read_text())
    (folder / "installed").write_text(json.dumps(said | {"python": "3.8"}))


def _moved(folder: Path) -> None:
    said = json.loads((folder / "installed").read_text())
    (folder / "installed").write_text(json.dumps(said | {"folder": "/old/place"}))


def _folder_alone(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_no_stamp, "it was left half-made"),
        (_marked, "it was left half-made"),
        (_empty_stamp, "it was left half-made"),
        (_no_pip, "it was left half-made"),
        (_broken_link, "its Python does not run"),
        (_another_python, "it was made with Python 3.8, and its Python is"),
        (_moved, "it was made in /old/place"),
        (_folder_alone, ""),
    ],
)
def test_what_is_not_whole_is_known_and_made_anew(
    checkout: TinyCheckout, damage: Callable[[Path], None], reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from triune_setup.environment import Environment

    copy = tmp_path / "copy"
    shutil.copytree(checkout.folder, copy, symlinks=True)
    stamp = json.loads((copy / "installed").read_text())
    (copy / "installed").write_text(json.dumps(stamp | {"folder": str(copy)}))
    environment = Environment(copy, checkout.root)
    assert environment.problem() is None
    damage(copy)
    problem = environment.problem()
    assert problem is not None and reason in problem


def test_an_environment_without_its_python_is_made_anew(checkout: TinyCheckout) -> None:
    _broken_link(checkout.folder)
    (checkout.folder / "left").write_text("of the old one")
    done = checkout.run()
    assert done.returncode == 0 and "is made anew: its Python does not run" in done.stderr
    assert checkout.says() and not (checkout.folder / "left").exists()


def test_removal_that_is_interrupted_leaves_what_is_known_as_half_made(
    checkout: TinyCheckout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from triune_setup.environment import UNFINISHED, Environment

    copy = tmp_path / "copy"
    shutil.copytree(checkout.folder, copy, symlinks=True)
    environment = Environment(copy, checkout.root)

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            environment.remove()
    assert (copy / UNFINISHED).exists() and environment.problem() == "it was left half-made"
    environment.remove()
    assert copy.is_dir() and not any(copy.iterdir())


def test_what_pip_cannot_install_is_one_sentence_with_its_cause(checkout: TinyCheckout) -> None:
    text = (checkout.root / LIST).read_text()
    (checkout.root / LIST).write_text("no-such-package==1.0\n")
    done = checkout.run()
    (checkout.root / LIST).write_text(text)
    assert done.returncode != 0
    error, hint, *rest = [line for line in done.stderr.splitlines() if line and not line.startswith("make: ***")]
    assert (
        error == "error: pip could not install tiny: the package index has no no-such-package==1.0 for this Python and system"
    )
    assert hint.startswith("hint: ") and "pip.log" in hint and not rest
    done = checkout.run()
    assert (done.returncode, done.stderr) == (0, ""), "what was there before pip failed is as whole as it was"
    assert checkout.says()


def test_a_second_set_up_waits_for_the_first(checkout: TinyCheckout) -> None:
    (checkout.folder / "installed").unlink()
    runs = [
        subprocess.Popen(checkout.make(), env=checkout.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert sum("made anew" in text for text in said) == 1 and sum("waiting" in text for text in said) <= 1
    assert checkout.says()
