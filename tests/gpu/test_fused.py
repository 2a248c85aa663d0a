"""The fused decode kernel on a real GPU: right, and timed. Run: pytest -m gpu -s tests/gpu/test_fused.py (needs PyTorch)"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.gpu


def test_steps_equal_pytorch_and_are_timed() -> None:
    from support.fused_trial import main  # imports PyTorch

    main()


def test_attention_equals_pytorch_and_is_timed() -> None:
    from support.attention_trial import main

    main()
