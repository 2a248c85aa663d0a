"""The network and the memory of machines that serve one engine. Run: pytest tests/runtime/test_vllm_network.py"""

from __future__ import annotations

import dataclasses
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.real_server import free_port
from triune_runtime.errors import ManifestError
from triune_runtime.machine import Gpu, Machine
from triune_runtime.targets.vllm import machines
from triune_runtime.targets.vllm.meeting import Meeting, network_of
from triune_runtime.targets.vllm.plan import VllmPlan
from triune_runtime.targets.vllm.preflight import check_machine


@pytest.fixture
def place() -> Meeting:
    return Meeting("127.0.0.1", free_port(in_a_row=2))


def test_where_machines_meet_is_read_and_its_network_found() -> None:
    assert Meeting.parse("10.0.0.1", "x") == Meeting("10.0.0.1", 29500)
    assert Meeting.parse("head:7000", "x").arguments(3, 2) == {
        "nnodes": 3, "node_rank": 2, "master_addr": "head", "master_port": 7001,
    }  # fmt: skip
    for said in ("", ":7000", "head:", "head:x", "head:65535", "a..b"):
        with pytest.raises(ManifestError, match="expected an address"):
            Meeting.parse(said, "x")
    assert network_of("127.0.0.1", {})["GLOO_SOCKET_IFNAME"] == "lo"
    with pytest.raises(ManifestError, match=r"this machine has no address 192\.0\.2\.1"):
        network_of("192.0.2.1", {})


@pytest.mark.parametrize("at", [None, ["127.0.0.1"], ["127.0.0.1", 1 << 20], ["127.0.0.1", "x"], 5])
def test_a_machine_that_does_not_say_where_it_is_reached_is_refused(place: Meeting, at: object) -> None:
    waiting = machines.Machines(place, 2, {})
    assert "does not say where it can be reached" in waiting._refusal({"rank": 1, "arguments": {}, "at": at})
    waiting.close()


def test_a_machine_that_the_first_one_does_not_reach_is_refused_with_the_port(place: Meeting) -> None:
    waiting = machines.Machines(place, 2, {})
    with socket.create_server(("127.0.0.1", 0)) as there:
        at = there.getsockname()
        assert waiting._refusal({"rank": 1, "arguments": {}, "at": at}) == ""
    why = waiting._refusal({"rank": 1, "arguments": {}, "at": at})
    assert f"does not reach it at port {at[1]} of 127.0.0.1" in why and "open all ports between the machines" in why
    waiting.close()


def test_a_machine_is_fit_for_its_part_or_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = VllmPlan(checkpoint="", dtype="bfloat16", tensor_parallel=8, pipeline_parallel=2, nodes=2)
    gpu, cpu = Gpu("H200", "9.0"), Machine(gpus=(), no_gpu="none")
    free = {"now": 8 * 240 << 20}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(used=64 << 20, free=free["now"]))
    network = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "^docker", "VLLM_HOST_IP": "127.0.0.1"}
    check_machine(plan, network, shared=tmp_path, machine=cpu)
    check_machine(plan, {"NCCL_SOCKET_IFNAME": "ib,l"}, shared=tmp_path, machine=cpu)
    free["now"] -= 1
    with pytest.raises(ManifestError, match=r"1919 MB free; vLLM lays out 240 MB there for each .*, 1920 MB for 8") as refused:
        check_machine(plan, {}, shared=tmp_path, machine=cpu)
    assert "--shm-size=1985m" in (refused.value.hint or "")
    free["now"] += 1
    with pytest.raises(ManifestError, match="this machine has 1 of the 8 GPUs that its part of the engine needs"):
        check_machine(plan, {}, shared=tmp_path, machine=dataclasses.replace(cpu, gpus=(gpu,)))
    check_machine(plan, {}, shared=tmp_path, machine=dataclasses.replace(cpu, gpus=(gpu,) * 8))
