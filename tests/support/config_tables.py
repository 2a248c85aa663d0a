"""The tables of docs/config.md, from the declarations that the builder reads config.json by.

Run, to write them anew: PYTHONPATH=tests:builder:runtime python -m support.config_tables
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triune_builder.graph.arch import deepseek_config, llama, mistral, qwen2, qwen3
from triune_builder.graph.config import COMMON, EMPTY, HARMLESS
from triune_builder.graph.keys import REFUSED, Key
from triune_builder.graph.rope import TYPES

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
MARKS = "<!-- keys: written by tests/support/config_tables.py -->", "<!-- end of keys -->"
FAMILIES: dict[str, dict[str, Key]] = {
    "llama": llama.KEYS, "mistral": mistral.KEYS, "qwen2": qwen2.KEYS, "qwen3": qwen3.KEYS, "deepseek_v3": deepseek_config.KEYS,
}  # fmt: skip
IGNORED = {"llama": llama.IGNORED, "mistral": mistral.IGNORED, "qwen2": qwen2.IGNORED, "qwen3": qwen3.IGNORED}
SAID = {  # what None stands for, by key
    "head_dim": "hidden_size / heads", "num_key_value_heads": "as many as heads", "sliding_window": "none",
    "layer_types": "by max_window_layers", "q_lora_rank": "none: a full-rank query",
    "factor": "max_position_embeddings / original", "beta_fast": "32", "beta_slow": "1", "attention_factor": "by factor",
    "mscale": "none", "mscale_all_dim": "none",
}  # fmt: skip


def tables() -> str:
    """Markdown."""
    parts = ["### Every architecture", _table(COMMON)]
    for kind, keys in FAMILIES.items():
        parts += [f"### {kind}", _table({name: key for name, key in keys.items() if COMMON.get(name) is not key})]
        if kind in IGNORED:
            names = ", ".join(f"`{name}`" for name in IGNORED[kind])
            parts.append(f"Not read, as in transformers: {names}. A value that asks for something is said.")
    parts += [
        "### Rotary positions: keys of each rope_type",
        *(f"`{kind}`\n\n{_table(keys)}" for kind, keys in TYPES.items() if keys),
    ]
    parts += ["### Keys that change nothing", ", ".join(f"`{name}`" for name in sorted(HARMLESS)) + "; empty "
              + " and ".join(f"`{name}`" for name in EMPTY) + "; any key whose value is null."]  # fmt: skip
    return "\n\n".join(parts)


def _table(keys: Mapping[str, Key]) -> str:
    rows = [f"| `{name}` | {key.kind.expected} | {_meant(name, key.missing)} | {_meant(name, key.null)} |"
            for name, key in sorted(keys.items())]  # fmt: skip
    return "\n".join(["| key | value | missing means | null means |", "|---|---|---|---|", *rows])


def _meant(name: str, value: Any) -> str:
    if value is REFUSED:
        return "refused"
    if value is None:
        return SAID[name]
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else f"{value}"


def page() -> str:
    """The page with its tables written anew."""
    before, after = MARKS
    text = PAGE.read_text("utf-8")
    return re.sub(rf"{before}.*{after}", lambda _: f"{before}\n\n{tables()}\n\n{after}", text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
