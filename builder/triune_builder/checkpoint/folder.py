"""Opens a folder as Hugging Face publishes models: config.json, safetensors, tokenizer.json. Downloads nothing."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from ..errors import BuildError
from .chat_templates import TEMPLATE_FILES, read_chat_templates
from .checkpoint import Checkpoint, stop_ids
from .fp8 import join_scales
from .safetensors_files import read_weights

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
VERIFICATION = "verification.json"
OPTIONAL = (
    "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", *TEMPLATE_FILES, VERIFICATION,
)  # fmt: skip
_LARGEST = 1 << 30  # bytes of a file of text; the largest published are some 40 MB
_COMPUTED = ".rotary_emb.inv_freq"  # older checkpoints store this buffer; it follows from the config


def open_folder(folder: Path, *, name: str | None = None) -> Checkpoint:
    """The checkpoint in `folder`, under `name` (default: the folder's).

    Raises:
        BuildError: a file is missing or damaged; the message names it.
    """
    config = _json(folder / CONFIG)
    tokenizer = folder / TOKENIZER
    tokenizer_json = _text(tokenizer)
    generation = _json(folder / "generation_config.json", optional=True)
    tokenizer_config = _json(folder / "tokenizer_config.json", optional=True)
    special = _special_ids(tokenizer, tokenizer_json)
    stored, weight_files = read_weights(folder)
    weights, config = join_scales(stored, config)
    special_tokens = _named_tokens(tokenizer_config, _json(folder / "special_tokens_map.json", optional=True))
    chat_template, tool_template = read_chat_templates(folder, tokenizer_config, _text)
    named_end = special.get(special_tokens.get("eos_token", ""))
    bos = config.get("bos_token_id")
    return Checkpoint(
        name=name or folder.resolve().name,
        config=config,
        weights={n: t for n, t in weights.items() if not n.endswith(_COMPUTED)},
        tokenizer_json=tokenizer_json,
        chat_template=chat_template,
        tool_template=tool_template,
        special_tokens=special_tokens,
        stop_token_ids=stop_ids([config.get("eos_token_id"), generation.get("eos_token_id"), named_end], special),
        bos_token_id=bos if isinstance(bos, int) else special.get(special_tokens.get("bos_token", "")),
        generation_config=generation,
        verification=_json(folder / VERIFICATION, optional=True),
        files=(
            folder / CONFIG,
            tokenizer,
            *(path for name in OPTIONAL for path in sorted(folder.glob(name)) if path.is_file()),
            *weight_files,
        ),
    )


def _text(path: Path) -> str:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BuildError(f"{path} is no regular file", "put the file itself there")
        if found.st_size > _LARGEST:
            raise BuildError(f"{path} has {found.st_size:,} bytes; at most {_LARGEST:,} are read", "fetch the file again")
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise BuildError(f"{path.parent} has no {path.name}", _missing_hint(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{path} cannot be read: {error}", "fetch the file again") from error


def _missing_hint(path: Path) -> str:
    if path.name == TOKENIZER:
        return (
            "fetch tokenizer.json of the same model; if it is published with another kind of tokenizer only, convert it with "
            "`transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
        )
    return f"fetch {path.name} of the same model"


def _json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise BuildError(f"{path} is not valid JSON: {error}", "fetch the file again") from error
    if not isinstance(value, dict):
        raise BuildError(f"{path} holds a {type(value).__name__}, not an object", "fetch the file again")
    return value


def _special_ids(path: Path, tokenizer_json: str) -> dict[str, int]:
    try:
        added = json.loads(tokenizer_json).get("added_tokens") or []
        return {token["content"]: token["id"] for token in added if token["special"]}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise BuildError(f"{path} is not a readable tokenizer: {error!r}", "fetch the file again") from error


def _named_tokens(config: dict[str, Any], older: dict[str, Any]) -> dict[str, str]:
    """Special tokens by name, the publisher's own among them, as templates know them.

    Args:
        config: tokenizer_config.json.
        older: special_tokens_map.json, which counts for more where `config` is of the time before it listed added tokens.
    """
    named = older | config if "added_tokens_decoder" in config else config | older
    own = {key: value for key, value in named.items() if key.endswith("_token")}
    for key in ("extra_special_tokens", "model_specific_special_tokens"):
        if isinstance(named.get(key), dict):
            own |= named[key]
    return {key: text for key, value in own.items() if (text := _token_text(value)) is not None}


def _token_text(entry: Any) -> str | None:
    """A token as its text, or as an object that has its text."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None
