"""Checks of software and of the engine, passing and failing. Run: pytest tests/server/doctor/test_engine.py"""

from __future__ import annotations

import dataclasses
import platform
import types
from pathlib import Path
from typing import Any

import pytest

from fakes.machine_files import machine
from fakes.nvml import Driver, gpu
from fakes.repository import fake_repository, tensorrt_repository
from triune_runtime.manifest import CacheTensor, EngineManifest
from triune_server.background import Health
from triune_server.doctor import engine, software
from triune_server.doctor.context import Context
from triune_server.doctor.finding import Finding, Verdict
from triune_server.errors import ServerError


def built(folder: Path, **changes: Any) -> Path:
    """A repository whose manifest has `changes`."""
    repository = fake_repository(folder / "repository")
    place = repository / "generate" / "1"
    dataclasses.replace(EngineManifest.load(place), **changes).save(place)
    return repository


def one(found: list[Finding]) -> Finding:
    (only,) = found
    return only


def test_an_engine_that_is_there_and_runs_is_well(tmp_path: Path) -> None:
    context = machine(tmp_path, repository=built(tmp_path))
    found = [finding for check in engine.CHECKS for finding in check(context)]
    assert [finding.verdict for finding in found] == [Verdict.GOOD] * 3 and "16 sequences of up to 2,048" in found[0].found


def test_an_engine_that_is_not_built_or_not_named_is_not_known_and_nothing_else_is_said(tmp_path: Path) -> None:
    context = machine(tmp_path, repository=tmp_path / "nothing", said="MODEL=x")
    found = one([finding for check in engine.CHECKS for finding in check(context)])
    assert found.verdict is Verdict.UNKNOWN and "not built" in found.found and "make engine MODEL=x;" in found.remedy
    assert "--model" in one(list(engine.built(machine(tmp_path)))).remedy


def test_an_engine_that_cannot_be_read_or_was_never_verified_is_said(tmp_path: Path) -> None:
    repository = built(tmp_path, verified="none")
    unverified = one(list(engine.built(machine(tmp_path, repository=repository))))
    assert unverified.verdict is Verdict.POOR and "make verify" in unverified.remedy
    (repository / "generate/1/engine.json").write_text("{}")
    broken = one(list(engine.built(machine(tmp_path, repository=repository))))
    assert broken.verdict is Verdict.BAD and "build the engine again" in broken.remedy


def test_what_its_target_asks_of_a_machine_is_said_in_its_own_words(tmp_path: Path) -> None:
    found = one(list(engine.runs(machine(tmp_path, repository=tensorrt_repository(tmp_path / "repository")))))
    assert found.verdict is Verdict.BAD and "no supported GPU" in found.found and found.remedy


@pytest.mark.parametrize(
    ("available", "verdict"), [(60_000_000, Verdict.GOOD), (3_000_000, Verdict.POOR), (500_000, Verdict.BAD)]
)
def test_memory_must_hold_weights_and_cache(available: int, verdict: Verdict, tmp_path: Path) -> None:
    # 2,048 tokens of 0.1 MB: 0.2 GB a sequence, 3.4 GB for 16.
    repository = built(tmp_path, cache=(CacheTensor(name="0.key", heads=256, dim=100),))
    (repository / "generate/1/model.data").write_bytes(bytes(1000))
    files: dict[str, str | None] = {"proc/meminfo": f"MemTotal: 67108864 kB\nMemAvailable: {available} kB\n"}
    found = one(list(engine.fits(machine(tmp_path, files, repository=repository))))
    assert found.verdict is verdict and found.subject == "memory" and "0.7 GB for one sequence, 3.9 GB for all" in found.found
    assert ("PRECISION" in found.remedy) == (verdict is not Verdict.GOOD)


def test_what_a_server_that_runs_has_taken_can_be_had(tmp_path: Path) -> None:
    context = machine(tmp_path, repository=built(tmp_path))
    alone = engine._room(context)
    assert alone is not None
    context.__dict__ |= {"running": object(), "health": Health(True, 10**9, {})}
    assert engine._room(context) == alone + 10**9


@pytest.mark.parametrize(("free", "verdict"), [(10**11, Verdict.GOOD), (10**8, Verdict.BAD), (None, Verdict.UNKNOWN)])
def test_an_engine_of_a_gpu_must_fit_into_its_memory(free: int | None, verdict: Verdict, tmp_path: Path) -> None:
    repository = built(tmp_path, target="cuda")
    gpus = (gpu(free_bytes=free),) if free else ()
    found = one(list(engine.fits(machine(tmp_path, repository=repository, gpus=gpus))))
    assert found.verdict is verdict and found.subject == "GPU memory"


def test_sequences_that_share_memory_need_not_all_be_long(tmp_path: Path) -> None:
    repository = built(tmp_path, target="cuda", cache=(CacheTensor(name="0.key", heads=256, dim=100, dtype="float16"),))
    context = machine(tmp_path, repository=repository, gpus=(gpu(free_bytes=10**9),))
    found = one(list(engine.fits(context)))
    assert found.verdict is Verdict.GOOD and "not all sequences can be long at once" in found.found


def test_what_divides_its_engine_itself_is_not_judged_by_one_device(tmp_path: Path) -> None:
    for gpus, place in (((), "memory"), ((gpu(free_bytes=1),), "GPU memory")):
        context = machine(tmp_path, repository=built(tmp_path / place, target="vllm"), gpus=gpus)
        found = one(list(engine.fits(context)))
        assert found.verdict is Verdict.UNKNOWN and found.subject == place


def test_the_gpu_that_this_process_may_use_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = machine(tmp_path, repository=built(tmp_path, target="cuda"), gpus=(gpu(0, free_bytes=10**8), gpu(1)))
    for said, verdict in (("", Verdict.BAD), ("1", Verdict.GOOD), ("1,0", Verdict.GOOD), ("GPU-8f2a", Verdict.BAD)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert one(list(engine.fits(context))).verdict is verdict


def test_memory_that_nobody_tells_is_not_known(tmp_path: Path) -> None:
    found = one(list(engine.fits(machine(tmp_path, {"proc/meminfo": None}, repository=built(tmp_path)))))
    assert found.verdict is Verdict.UNKNOWN


def installed(folder: Path, **versions: str) -> tuple[Path, ...]:
    """A folder of packages."""
    for name, version in versions.items():
        place = folder / "site" / f"{name}-{version}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    return (folder / "site",)


def test_what_is_installed_is_said_with_its_version(tmp_path: Path) -> None:
    packages = installed(
        tmp_path, onnxruntime_gpu="1.31.1", nvidia_cudnn_cu13="9.14.0", tensorrt="10.14.1", onnxruntime="1.32.0"
    )
    found = one(list(software.packages(machine(tmp_path, packages=packages))))
    told = "ONNX Runtime 1.32.0, ONNX Runtime for CUDA 1.31.1, cuDNN 9.14.0, TensorRT 10.14.1"
    assert found.verdict is Verdict.GOOD and found.found == f"Python {platform.python_version()}, {told}"


def test_packages_of_the_server_that_lack_are_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "missing", lambda extra: ["jinja2"])
    found = list(software.packages(machine(tmp_path)))[-1]
    assert found.verdict is Verdict.BAD and "jinja2" in found.found and "pip install" in found.remedy


@pytest.mark.parametrize(("here", "verdict"), [("1.32.0", Verdict.GOOD), ("1.33.0", Verdict.POOR), (None, Verdict.BAD)])
def test_an_engine_is_run_with_what_it_was_proved_with(here: str | None, verdict: Verdict, tmp_path: Path) -> None:
    repository = built(tmp_path, target="cpu", built_with={"onnxruntime": "1.32.0"})
    packages = installed(tmp_path, **({"onnxruntime": here} if here else {"numpy": "1"}))
    found = one(list(software.proved_with(machine(tmp_path, repository=repository, packages=packages))))
    assert found.verdict is verdict and bool(found.remedy) == (verdict is not Verdict.GOOD)


def test_a_triton_that_is_not_there_or_does_not_run_here_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_TRITON_HOME", str(tmp_path / "nowhere"))
    found = one(list(software.triton(machine(tmp_path))))
    assert found.verdict is Verdict.BAD and "nowhere" in found.found and found.remedy

    def none(folder: Path) -> None:
        raise ServerError("needs glibc 2.35", "use a container")

    monkeypatch.setattr(software, "find_binaries", none)
    assert one(list(software.triton(machine(tmp_path)))).remedy == "use a container"
    monkeypatch.setattr(software, "find_binaries", lambda folder: types.SimpleNamespace(server=tmp_path / "tritonserver"))
    assert one(list(software.triton(machine(tmp_path)))).verdict is Verdict.GOOD


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "Linux 6.1.0"),
        ({".dockerenv": ""}, "Linux 6.1.0, in a container (Docker): its limits hold"),
        ({"proc/1/environ": "container=lxc"}, "Linux 6.1.0, in a container (of another kind): its limits hold"),
        ({"proc/sys/kernel/osrelease": None}, "Linux of a version that is not told"),
    ],
)
def test_a_container_is_recognized(files: dict[str, str | None], said: str, tmp_path: Path) -> None:
    assert one(list(software.system(machine(tmp_path, files)))).found == said


def test_a_driver_says_its_version_and_cudas(tmp_path: Path) -> None:
    found = one(list(software.driver(machine(tmp_path, gpus=(gpu(),), nvml=Driver()))))
    assert found.found == "580.95.05, runs CUDA 13.0 or earlier"
    assert not list(software.driver(machine(tmp_path)))


def test_a_context_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    context = Context(run_folder=tmp_path, nvml_library="no-nvml.so", cuda_library="no-cuda.so")
    assert context.gpus == () and context.engine is None and context.running is None and not context.wants_gpu
