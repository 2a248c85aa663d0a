"""Rotary tables have the same bits whichever of a processor's instructions NumPy uses."""

from __future__ import annotations

import os
import subprocess
import sys

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
