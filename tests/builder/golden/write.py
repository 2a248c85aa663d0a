"""Writes goldens.npz: what transformers computes of the checkpoints of tests/support/golden_cases.py.

Run where transformers is installed, from the repository's root: PYTHONPATH=tests python tests/builder/golden/write.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.golden_recipe import recipe_positions, recipe_tokens, recipe_weights
from support.golden_cases import CASES, Case

FIXTURE = Path(__file__).with_name("goldens.npz")


def published(case: Case) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Names and shapes of the case's stored weights, and of which others some have the numbers."""
    import transformers
    from safetensors import safe_open

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(case.config))
        config = transformers.AutoConfig.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_config(config)
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", "np") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no mapping)
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    if case.head:
        shapes[head] = shapes[table]
    return dict(sorted(shapes.items())), {head: table} if case.head == "copy" else {}


def logits(case: Case, shapes: dict[str, list[int]], copies: dict[str, str]) -> NDArray[np.float32]:
    """transformers' logits [positions, vocab] of the case, read from a folder as a user would."""
    import torch
    import transformers
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(case.config))
        save_file(recipe_weights(shapes, copies), Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    tokens = torch.tensor([recipe_tokens(case.length, case.config["vocab_size"])])
    with torch.no_grad():
        every = model.eval()(tokens, use_cache=False).logits[0].numpy()
    return np.asarray(every[recipe_positions(case.length)], np.float32)


def main() -> None:
    entries: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, case in enumerate(CASES):
        shapes, copies = published(case)
        arrays[f"logits.{number}"] = logits(case, shapes, copies)
        entries.append({"name": case.name, "config": case.config, "length": case.length, "shapes": shapes, "copies": copies})
    arrays["cases"] = np.frombuffer(json.dumps(entries).encode(), np.uint8)
    np.savez_compressed(FIXTURE, **arrays)
    print(f"{len(entries)} cases, {FIXTURE.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
