"""The same weights in R1's native block FP8: codes (E4M3) with one scale for each 128 x 128 block. Needs no PyTorch.

Run: python -m r1_nano.fp8 [--checkpoint DIR] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

BLOCK = 128  # rows and columns that share a scale, as published
LARGEST = 448.0  # of an E4M3 number
_FOLDER = Path(__file__).parents[1]
_KEPT = ("embed_tokens.weight", "lm_head.weight", "head.weight", "norm.weight", "mlp.gate.weight", "eh_proj.weight")


def is_quantized(name: str, shape: tuple[int, ...]) -> bool:
    """Whether R1 stores a weight in FP8: every matrix but embeddings, head, routers and what joins the MTP layer's inputs."""
    return len(shape) == 2 and not name.endswith(_KEPT)


def quantize(weight: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Codes [rows, columns] and `weight_scale_inv` [ceil(rows / 128), ceil(columns / 128)]; value = code * scale."""
    rows, columns = weight.shape
    tall, wide = -(-rows // BLOCK), -(-columns // BLOCK)
    padded = np.zeros((tall * BLOCK, wide * BLOCK), np.float32)
    padded[:rows, :columns] = weight
    blocks = padded.reshape(tall, BLOCK, wide, BLOCK)
    scale = np.maximum(np.abs(blocks).max(axis=(1, 3)), 1e-12).astype(np.float32) / np.float32(LARGEST)
    codes = (blocks / scale[:, None, :, None]).reshape(padded.shape)[:rows, :columns]
    return codes.astype(ml_dtypes.float8_e4m3fn), scale


def convert(checkpoint: Path, out: Path) -> None:
    """Writes `checkpoint` (a folder with bf16 weights) to the folder `out` in block FP8, tokenizer and all."""
    out.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {}
    for name, array in read(checkpoint / "model.safetensors").items():
        if is_quantized(name, array.shape):
            tensors[name], tensors[f"{name}_scale_inv"] = quantize(array.astype(np.float32))
        else:
            tensors[name] = array
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    for path in checkpoint.iterdir():
        if path.name not in ("model.safetensors", "config.json"):
            shutil.copy(path, out / path.name)
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    config["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK],
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def read(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a safetensors file, bf16 ones as `ml_dtypes.bfloat16`."""
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m r1_nano.fp8", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=_FOLDER / "checkpoint", help="folder with the bf16 weights")
    parser.add_argument("--out", type=Path, default=_FOLDER / "checkpoint-fp8", help="folder to write")
    arguments = parser.parse_args()
    convert(arguments.checkpoint, arguments.out)
    print(f"{arguments.out}: {(arguments.out / 'model.safetensors').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
