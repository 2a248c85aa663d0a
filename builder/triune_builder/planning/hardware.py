"""GPUs as their makers' data sheets describe them. Rates are dense: most sheets print twice that, for sparse matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from ..errors import BuildError

GB, GIB = 1e9, 1 << 30
PCIE4, PCIE5 = 31.5, 63.0  # GB/s each way of 16 lanes


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. Gigabytes and seconds as on data sheets: 10^9 bytes; `memory` is what a program can have, in GiB."""

    name: str
    memory: float  # GiB that a program can have, all in all
    bandwidth: float  # GB/s of its memory
    rates: Mapping[str, float] = field(hash=False)  # TFLOP/s of matrix products, by type: bf16 (and fp16), fp8
    link: float  # GB/s each way to its neighbours in the machine
    link_name: str  # NVLink, Infinity Fabric or PCIe
    power: float  # W
    peers: int = 0  # above 0: `link` is shared by links to so many, each to one of them; 0: a switch gives all of it to any

    @property
    def bytes(self) -> int:
        return round(self.memory * GIB)

    def rate(self, kind: str) -> float:
        """FLOP/s of products of that type; a GPU without eight-bit floats computes in 16 bits."""
        return self.rates.get(kind, self.rates["bf16"]) * 1e12

    def link_among(self, gpus: int) -> float:
        """Bytes/s each way of one of so many GPUs that all send to each other."""
        share = min((gpus - 1) / self.peers, 1.0) if self.peers else 1.0
        return self.link * 1e9 * share


def _gpu(
    name: str, memory: float, bandwidth: float, bf16: float, fp8: float | None, link: float, kind: str, power: float,
    peers: int = 0,
) -> Gpu:  # fmt: skip
    rates = {"bf16": bf16} | ({} if fp8 is None else {"fp8": fp8})
    return Gpu(name=name, memory=memory, bandwidth=bandwidth, rates=rates, link=link, link_name=kind, power=power, peers=peers)


# Memory: all that CUDA (ROCm) gives a program, as errors of PyTorch quote it ("a total capacity of 139.80 GiB"); drivers and
# boards differ by up to 0.2 GiB, and this is the least that is common. nvidia-smi shows more (H200: 143,771 MiB). The rest is
# the data sheet's: rates are half of those "with sparsity", links half of those both ways together.
GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        # NVIDIA Ada GPU architecture whitepaper 2.1, appendix A; FP8 and FP16 with FP32 sums, half of those with FP16 sums
        _gpu("rtx4090", 23.64, 1008, 165.2, 330.3, PCIE4, "PCIe 4", 450),
        # NVIDIA RTX Blackwell GPU architecture whitepaper 1.1; with FP32 sums (cuBLAS was measured at 211 and 430)
        _gpu("rtx5090", 31.34, 1792, 209.5, 419.0, PCIE5, "PCIe 5", 575),
        # L4 data sheet: 242 and 485 with sparsity
        _gpu("l4", 22.03, 300, 121, 242.5, PCIE4, "PCIe 4", 72),
        # L40S data sheet: 362.05 | 733 and 733 | 1,466, the second with sparsity
        _gpu("l40s", 44.39, 864, 362.05, 733, PCIE4, "PCIe 4", 350),
        # A100 data sheet, SXM4
        _gpu("a100-40", 39.38, 1555, 312, None, 300, "NVLink 3", 400),
        _gpu("a100-80", 79.14, 2039, 312, None, 300, "NVLink 3", 400),
        # H100 data sheet, SXM5 and PCIe (a bridge joins two: --link 300); 989.4 is the architecture whitepaper's
        _gpu("h100", 79.11, 3350, 989.4, 1978.9, 450, "NVLink 4", 700),
        _gpu("h100-pcie", 79.11, 2000, 756, 1513, PCIE5, "PCIe 5", 350),
        # H200 data sheet, SXM: the H100's rates
        _gpu("h200", 139.8, 4800, 989.4, 1978.9, 450, "NVLink 4", 700),
        # DGX B200 data sheet: 8 GPUs have 64 TB/s and 72 PFLOP/s of sparse FP8 (drivers tell of 7,680 bits at 3,996 MHz: 7,672)
        _gpu("b200", 178.35, 8000, 2250, 4500, 900, "NVLink 5", 1000),
        # GB200 NVL72 data sheet: 72 GPUs have 13.4 TB and 576 TB/s; all 72 are neighbours (--gpus-per-machine 72)
        _gpu("gb200", 184.31, 8000, 2500, 5000, 900, "NVLink 5", 1200),
        # AMD Instinct MI300X data sheet: a link of 64 GB/s each way to each of seven others
        _gpu("mi300x", 191.69, 5300, 1307.4, 2614.9, 448, "Infinity Fabric", 750, peers=7),
    )
}

# What nobody has named: whether anything fits in it is not judged.
UNNAMED = _gpu("unnamed", 1 << 20, 1000, 100, None, PCIE4, "PCIe 4", 0)


def find_gpu(
    name: str, *, memory: float | None = None, bandwidth: float | None = None, rate: float | None = None,
    link: float | None = None,
) -> Gpu:  # fmt: skip
    """The GPU of that name, with what is given in place of the table's. A name that is not in the table needs memory,
    bandwidth and rate.

    Args:
        memory: GB, as its maker says.
        bandwidth: GB/s of its memory.
        rate: TFLOP/s of dense 16-bit products.
        link: GB/s each way to its neighbours.

    Raises:
        BuildError: no such GPU, or a figure that none can have.
    """
    for flag, value in (("--gpu-memory", memory), ("--bandwidth", bandwidth), ("--matrix-rate", rate), ("--link", link)):
        if value is not None and not 0 < value < 1e7:
            raise BuildError(f"{flag} is {value:g}; it is a number above 0", "give GB, GB/s or TFLOP/s, e.g. --gpu-memory 80")
    known = GPUS.get(_plain(name))
    if known is None:
        if memory is None or bandwidth is None or rate is None:
            near = get_close_matches(_plain(name), GPUS, n=1)
            raise BuildError(
                f"unknown GPU {name!r}; known: {', '.join(GPUS)}",
                (f"did you mean {near[0]}? " if near else "")
                + "Of another give --gpu-memory GB --bandwidth GB/s --matrix-rate TFLOP/s",
            )
        known = _gpu(name, memory * GB / GIB, bandwidth, rate, None, link or PCIE4, "PCIe 4", 0)
    changes: dict[str, Any] = {
        "memory": None if memory is None else memory * GB / GIB,
        "bandwidth": bandwidth,
        "rates": None if rate is None else {kind: rate * each / known.rates["bf16"] for kind, each in known.rates.items()},
        "link": link,
    }
    return replace(known, **{key: value for key, value in changes.items() if value is not None})


def _plain(name: str) -> str:
    """`NVIDIA H100 80GB HBM3`, `A100-80GB` and `RTX 4090` as the table has them."""
    words = name.lower().replace("_", "-")
    for maker in ("nvidia", "geforce", "amd", "instinct"):
        words = words.replace(maker, "")
    plain = "-".join(words.replace("80gb", "80").replace("40gb", "40").split()).strip("-")
    plain = plain.replace("rtx-", "rtx").replace("-sxm5", "").replace("-sxm4", "").replace("-sxm", "").removesuffix("-hbm3")
    return {"a100": "a100-80", "h100-80": "h100", "4090": "rtx4090", "5090": "rtx5090"}.get(plain, plain)
