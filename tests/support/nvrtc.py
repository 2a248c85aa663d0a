"""Whether NVRTC is here: tests that compile for a GPU are skipped without it, and say so."""

from __future__ import annotations

import pytest


def _missing() -> str:
    """Why it cannot be used; empty: it can."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


needs_nvrtc = pytest.mark.skipif(bool(_missing()), reason=f"needs NVRTC, pip install nvidia-cuda-nvrtc: {_missing()}")
