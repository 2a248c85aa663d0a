"""Ctrl-C at any moment of a set-up by the real Makefile ends it quietly, and the next one heals.

Run: pytest tests/setup/test_interrupted.py; tests/e2e/test_interrupted_up.py does the same to all of `make up`.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil
import pytest

from fakes.tiny_checkout import TinyCheckout, tiny_checkout
from support.interrupting import interrupt, leftover


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckout:
    return tiny_checkout(tmp_path_factory.mktemp("interrupted"))


def test_an_interrupted_set_up_is_quiet_and_the_next_succeeds(checkout: TinyCheckout) -> None:
    began = time.monotonic()
    assert checkout.run().returncode == 0
    usual, chance = time.monotonic() - began, random.Random(3)
    for low, high in ((0.05, 0.1), (0.3, 0.5), (0.6, 0.95)):  # of the start, of pip's arrival, of the package's
        (checkout.folder / "installed").unlink(missing_ok=True)
        ended = interrupt(checkout.make(), usual * chance.uniform(low, high), checkout.environment)
        assert ended.quietly, ended
        assert not leftover(checkout.root)
    done = checkout.run()
    assert done.returncode == 0 and checkout.says() == "1.0"
    assert not [path.name for path in checkout.folder.iterdir() if path.name in ("tmp", "unfinished")]


def test_a_set_up_whose_terminal_is_closed_leaves_nothing_running(checkout: TinyCheckout) -> None:
    (checkout.folder / "installed").unlink(missing_ok=True)
    process = psutil.Popen(checkout.make(), env=checkout.environment, start_new_session=True)
    while len(process.children(recursive=True)) < 2:  # the set-up, and what it started
        time.sleep(0.02)
    for one in process.children():
        one.terminate()
    process.wait(20)
    deadline = time.monotonic() + 5
    while leftover(checkout.root) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not leftover(checkout.root)


def test_help_needs_no_environment(checkout: TinyCheckout, tmp_path: Path) -> None:
    assert checkout.run(target="help").returncode == 0
