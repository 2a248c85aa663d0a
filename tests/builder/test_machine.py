"""What figures say that they were measured on. Run: pytest tests/builder/test_machine.py"""

from __future__ import annotations

import platform

import pytest

from triune_builder import machine
from triune_runtime.machine import Processor


def test_of_the_instructions_those_are_told_that_quantized_products_use(monkeypatch: pytest.MonkeyPatch) -> None:
    has = frozenset({"fpu", "avx512_vnni", "avx2", "amx_int8"})
    monkeypatch.setattr(machine, "this_processor", lambda: Processor(name="A processor", instructions=has))
    host = machine.this_host()
    assert (host.processor, host.instructions) == ("A processor", "avx2 avx512_vnni amx_int8")
    assert f"cores of A processor (avx2 avx512_vnni amx_int8), {host.memory_gb} GB" in str(host)


def test_of_a_processor_that_linux_does_not_name_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "this_processor", Processor)
    host = machine.this_host()
    assert (host.processor, host.instructions) == (platform.processor(), "") and "(" not in str(host)
