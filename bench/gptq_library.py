"""llm-compressor's GPTQ on a folder of float weights: writes the numbers that its codes of four bits stand for.

Runs under a Python that has llmcompressor (and with it torch and transformers), and nothing of the project:
`python gptq_library.py FOLDER GROUP DAMPING FILE`; FOLDER holds a model and `calibration.json`, a list of lists of
token ids. `bench.rounding` does that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def main(folder: Path, group: int, damping: float, written: Path) -> None:
    texts = json.loads((folder / "calibration.json").read_text("utf-8"))
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in texts]
    weights = QuantizationArgs(num_bits=4, group_size=group, strategy="group", symmetric=False, actorder="static")
    recipe = GPTQModifier(
        ignore=["lm_head"],
        config_groups={"products": QuantizationScheme(targets=["Linear"], weights=weights)},
        dampening_frac=damping,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    oneshot(
        model=model,
        processor=PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<|endoftext|>"),
        dataset=Dataset.from_list(rows),
        recipe=recipe,
        num_calibration_samples=len(rows),
        max_seq_length=max(map(len, texts)),
        shuffle_calibration_samples=False,
    )
    chosen = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name.endswith("_proj.weight")}
    save_file(chosen, written)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
