"""Several machines that serve one engine: the double of vLLM here, and next to it a process that only waits.

Run: pytest tests/runtime/test_vllm_machines.py
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.sinks import wait_until
from fakes.vllm_engines import use_double, vllm_engine
from support.real_server import free_port
from triune_runtime.errors import DeviceLost, ManifestError
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request, SamplingParams
from triune_runtime.starting import generator_of
from triune_runtime.targets.vllm import hosting, joining, machines, meeting
from triune_runtime.targets.vllm.generator import VllmGenerator
from triune_runtime.targets.vllm.joining import join
from triune_runtime.targets.vllm.meeting import Meeting, network_of
from triune_runtime.targets.vllm.plan import engine_arguments
from triune_runtime.text.tokenizer import load_token_bytes

WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()"]
_SAY = "import os, sys; sys.stdin.readline(); print('RuntimeError: ' + os.environ['NCCL_DEBUG'], flush=True)"
SAYS = [sys.executable, "-c", _SAY]
FAILS = [sys.executable, "-c", "import sys; sys.stdin.readline(); print('RuntimeError: out of memory', flush=True)"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine for two machines, and where they meet."""
    use_double(monkeypatch)
    monkeypatch.setenv(meeting.VARIABLE, f"127.0.0.1:{free_port(in_a_row=2)}")
    manifest = vllm_engine(tmp_path)
    plan = manifest.plan | {"pipeline_parallel": 2, "nodes": 2}
    dataclasses.replace(manifest, plan=plan).save(tmp_path)
    return tmp_path


def lead(folder: Path) -> VllmGenerator:
    manifest = EngineManifest.load(folder)
    made = generator_of(manifest, folder, load_token_bytes(folder, manifest))
    assert isinstance(made, VllmGenerator)
    return made


class Other:
    """The other machine, on a thread."""

    def __init__(self, folder: Path, command: list[str], rank: int = 1) -> None:
        self.stop, self.error = threading.Event(), None

        def run() -> None:
            try:
                join(folder, master(), rank, self.stop, os.environ, command)
            except ManifestError as error:
                self.error = error

        self.error: ManifestError | None
        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def engine_of(folder: Path) -> dict[str, Any]:
    """vLLM's arguments for it."""
    return engine_arguments(EngineManifest.load(folder), folder, prefix_caching=True)


def already_over() -> threading.Event:
    """For a machine that is to be refused: it would wait for ever otherwise."""
    over = threading.Event()
    over.set()
    return over


def master() -> str:
    return os.environ[meeting.VARIABLE]


@pytest.fixture
def other(folder: Path) -> Iterator[Other]:
    made = Other(folder, WAITS)
    yield made
    made.end()


def ask(generator: VllmGenerator, first: int) -> list[Any]:
    request = Request(key=1, prompt=(first, 30), params=SamplingParams(max_tokens=5, ignore_eos=True), stream=False)
    generator.submit_group([request])
    events: list[Any] = []
    while generator.has_work:
        events += generator.step()
    return events


def test_an_engine_serves_when_all_machines_are_there_and_again_when_one_has_come_back(folder: Path, other: Other) -> None:
    for _ in range(2):
        generator = lead(folder)
        assert len(ask(generator, 20)) == 1
        generator.close()


def test_a_machine_that_goes_is_an_engine_that_died(folder: Path, other: Other) -> None:
    generator = lead(folder)
    other.end()
    with pytest.raises(DeviceLost, match="machine 1 is gone"):
        ask(generator, 8)  # which would never end
    generator.close()


def test_why_a_machine_cannot_go_on_is_told_at_the_first_one(folder: Path) -> None:
    failing = Other(folder, FAILS)
    try:
        with pytest.raises((ManifestError, DeviceLost), match="machine 1: RuntimeError: out of memory"):
            ask(lead(folder), 8)
    finally:
        failing.end()


def test_what_the_environment_says_reaches_vllm_on_every_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "TRACE")
    saying = Other(folder, SAYS)
    try:
        with pytest.raises((ManifestError, DeviceLost), match="machine 1: RuntimeError: TRACE"):
            ask(lead(folder), 8)
    finally:
        saying.end()
    own = network_of("127.0.0.1", {"NCCL_SOCKET_IFNAME": "=ib0", "GLOO_SOCKET_IFNAME": ""})
    assert own == {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=ib0"}


def test_who_has_another_engine_or_rank_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("other")
    manifest = vllm_engine(place)
    dataclasses.replace(manifest, plan=manifest.plan | {"pipeline_parallel": 2, "nodes": 2, "dtype": "float16"}).save(place)
    waiting = machines.Machines(Meeting.parse(master(), ""), 2, {"dtype": "float32"})

    def gather() -> None:
        with pytest.raises(ManifestError):
            waiting.gather(3.0)

    thread = threading.Thread(target=gather)
    thread.start()
    refused = Other(place, WAITS)
    refused.thread.join(30)
    assert refused.error is not None and "dtype" in str(refused.error) and "build the same" in str(refused.error)
    thread.join(30)
    for rank, said in ((2, "--rank is 2; expected 1: this engine is for 2 machines"), (0, "--rank is 0")):
        with pytest.raises(ManifestError, match=said):
            join(folder, master(), rank, already_over(), os.environ)


def test_machines_that_do_not_come_are_named(folder: Path) -> None:
    waiting = machines.Machines(Meeting.parse(master(), ""), 3, {})
    with pytest.raises(ManifestError, match="machines 1, 2 of 3 have not come"):
        waiting.gather(0.0)


def test_a_machine_that_left_while_others_are_waited_for_may_come_again(folder: Path) -> None:
    place = Meeting.parse(master(), "")
    waiting = machines.Machines(place, 2, {"a": 1})
    for _ in range(2):
        with socket.create_connection((place.address, place.port)) as connection:
            machines.send(connection, {"rank": 1, "arguments": {"a": 1}, "at": waiting._next.getsockname()})
            waiting._welcome(waiting._listening.accept()[0])
            assert list(waiting._there) == [1]
        wait_until(lambda: machines._is_closed(waiting._there[1][0]))
    waiting.close()


def test_ports_that_another_program_has_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "START_S", 0.0)
    place = Meeting.parse(master(), "")
    for port in (place.port, place.port + 1):
        said = f"cannot meet this one at port {port} of .*: Address already in use"
        with socket.create_server(("127.0.0.1", port)), pytest.raises(ManifestError, match=said):
            lead(folder)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("GLOO_SOCKET_IFNAME", "lo,ib77", "is 'lo,ib77', and this machine has no such interface: it has .*lo"),
        ("NCCL_SOCKET_IFNAME", "ib77", "is 'ib77', and this machine has no such interface: it has .*lo"),
        ("NCCL_SOCKET_IFNAME", "=l", "is '=l'"),
        ("VLLM_HOST_IP", "192.0.2.1", r"is '192\.0\.2\.1', and this machine has no such address"),
    ],
)
def test_a_network_that_is_not_there_is_refused_on_every_machine_before_it_waits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(hosting, "START_S", 0.0)
    with pytest.raises(ManifestError, match=f"^{variable} {said}") as refused:
        join(folder, master(), 1, already_over(), os.environ)
    assert variable in (refused.value.hint or "")
    with pytest.raises(ManifestError, match=said):
        lead(folder)


def test_a_first_machine_whose_name_is_not_known_yet_is_asked_for_again_and_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a group of pods, whose names come with them."""
    monkeypatch.setattr(joining, "_AGAIN_S", 0.01)
    asked, stop = [], threading.Event()

    def unknown(place: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(place)
        if len(asked) == 3:
            stop.set()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with caplog.at_level("INFO"):
        join(folder, "nowhere.invalid", 1, stop, os.environ)
    assert asked == [("nowhere.invalid", 29500)] * 3
    (told,) = caplog.messages
    assert "does not answer at nowhere.invalid:29500 yet" in told and "Name or service not known" in told
    assert "TRIUNE_VLLM_MASTER=nowhere.invalid:29500" in told


def test_a_port_of_the_first_machine_that_is_closed_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    place, stop = Meeting.parse(master(), ""), threading.Event()
    with socket.create_server((place.address, place.port)), caplog.at_level("INFO"):
        thread = threading.Thread(target=join, args=(folder, master(), 1, stop, os.environ))
        thread.start()
        wait_until(lambda: bool(caplog.messages))
        stop.set()
        thread.join(30)
    assert f"answers at {place}, and not at port {place.port + 1}, where vLLM's processes meet" in caplog.text
    assert "open it, and all others between the machines" in caplog.text


def test_a_machine_that_is_told_to_leave_does_its_part_until_the_first_one_has_ended(folder: Path) -> None:
    place = Meeting.parse(master(), "")
    waiting, stop, leave = machines.Machines(place, 2, engine_of(folder)), threading.Event(), threading.Event()
    arguments = (folder, master(), 1, stop, os.environ, WAITS, leave)
    thread = threading.Thread(target=join, args=arguments)
    thread.start()
    waiting.gather(30)
    leave.set()
    thread.join(1.0)
    assert thread.is_alive() and not waiting.problem
    waiting.close()
    thread.join(30)
    assert not thread.is_alive()
