"""What a quantized weight was and became, for the build's report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Change:
    """One weight that was quantized. `error` and `note` are known once its bytes have been written."""

    name: str
    scheme: str
    bytes_before: int  # as float32
    bytes_after: int
    error: float = float("nan")  # root mean square of the difference over that of the float weight
    note: str = ""
