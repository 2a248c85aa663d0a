"""Rotary tables have the same bits whichever of a processor's instructions NumPy uses."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc

import numpy as np

from triune_builder.graph.rope import Rope

WITHOUT = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
PROGRAM = """
import hashlib
from triune_builder.graph.rope import Rope
cos, sin = Rope(dim=64, theta=100000.0).tables(8192)
print(hashlib.sha256(cos.tobytes() + sin.tobytes()).hexdigest())
"""


def test_tables_are_the_same_with_avx512_and_without() -> None:
    """One sine of this table was not, where it was computed from doubles."""

    def found(disabled: str) -> str:
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert found("") == found(WITHOUT) != ""


def test_long_tables_take_little_more_memory_than_they_have_bytes_and_are_those_of_short_ones() -> None:
    rope = Rope(dim=64, theta=100000.0)
    tracemalloc.start()
    cos, sin = rope.tables(50_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * (cos.nbytes + sin.nbytes)
    for long, short in zip((cos, sin), rope.tables(5000), strict=True):
        assert len(long) == 50_000 and np.array_equal(long[:5000], short)
    angle = np.longdouble(49_999 * 100000.0 ** (-2 / 64))
    assert cos[-1, 1] == np.float32(np.cos(angle)) and sin[-1, 1] == np.float32(np.sin(angle))
