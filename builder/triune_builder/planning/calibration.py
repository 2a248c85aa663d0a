"""What the roofline's limits are multiplied with: fitted to this project's own runs on GPUs (docs/cuda-log.md)."""

from __future__ import annotations

from dataclasses import dataclass

# Between the 1.5B and the 7B shape, one sequence on an H200, 11.05 GB more of weights take 2.65 ms more: 4.17 of 4.8 TB/s.
BANDWIDTH_SHARE = 0.87
# Of a step's codes in the fused kernel, which it unpacks as it reads: 7B shape in int4, one sequence, 2.00 ms between tokens.
CODES_SHARE = 0.56
# Of keys and values in eight bits: 256 sequences behind prompts of 3,500, 8.16 ms between tokens.
KV8_SHARE = 0.505
# "The prompts' 32,768 tokens ... at some 700 TFLOP/s": of 989.4.
MATRIX_SHARE = 0.71
# Passes over hidden + inner numbers of a token and layer in 16 bits: norms, rotation, activation, sums, copies. With them a
# prompt of 2,048 tokens takes the 12.9 (1.5B) and 48 ms (7B) that were measured.
ELEMENTWISE_PASSES = 12
# Not measured in this project: a small all-reduce over NVLink, over PCIe; a message between machines.
NVLINK_LATENCY, PCIE_LATENCY, NETWORK_LATENCY = 8e-6, 25e-6, 15e-6
LINK_SHARE = 0.75  # of a link's rate that large collectives reach; not measured here either
FUSED_ROWS = 8  # up to so many sequences one kernel of ours computes the whole step, weights of four bits as they are


@dataclass(frozen=True)
class Engine:
    """What a step takes besides what the hardware bounds, in seconds: launches, barriers, the host."""

    name: str
    layer: float  # of each layer
    row: float  # of each layer, for each sequence that decodes
    fused_layer: float | None = None  # of each layer, up to FUSED_ROWS sequences
    fused_row: float = 0.0
    # Weights of four bits: read as they are up to FUSED_ROWS rows, at `codes`; `widens`: to 16 in memory in each larger step.
    widens: bool = False
    codes: float = BANDWIDTH_SHARE
    kv8: float = BANDWIDTH_SHARE  # keys and values of eight bits

    def overhead(self, layers: int, rows: float) -> float:
        if self.fused_layer is not None and 0 < rows <= FUSED_ROWS:
            return layers * (self.fused_layer + self.fused_row * (rows - 1))
        return layers * (self.layer + self.row * rows)


# Ours: 1.13, 1.36, 2.28 and 3.78 ms between tokens at 1, 8, 64, 256 (1.5B, H200). vLLM 0.24: 1.97, 1.98, 3.19, 6.17.
TRIUNE = Engine(
    "triune", layer=43e-6, row=0.0, fused_layer=14e-6, fused_row=1.0e-6, widens=True, codes=CODES_SHARE, kv8=KV8_SHARE
)
VLLM = Engine("vllm", layer=47e-6, row=0.31e-6)
ENGINES = {engine.name: engine for engine in (TRIUNE, VLLM)}
