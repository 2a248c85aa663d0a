"""Opens a folder as Hugging Face publishes models: config.json, safetensors, tokenizer.json. Downloads nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import BuildError
from .checkpoint import Checkpoint, stop_ids
from .fp8 import join_scales
from .safetensors_files import read_weights

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
VERIFICATION = "verification.json"
OPTIONAL = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", VERIFICATION)
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
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
    named_tokens = _json(folder / "special_tokens_map.json", optional=True) | tokenizer_config
    special = _special_ids(tokenizer, tokenizer_json)
    stored, weight_files = read_weights(folder)
    weights, config = join_scales(stored, config)
    special_tokens = {key: text for key in _SPECIAL if (text := _token_text(named_tokens.get(key))) is not None}
    named_end = special.get(special_tokens.get("eos_token", ""))
    bos = config.get("bos_token_id")
    return Checkpoint(
        name=name or folder.resolve().name,
        config=config,
        weights={n: t for n, t in weights.items() if not n.endswith(_COMPUTED)},
        tokenizer_json=tokenizer_json,
        chat_template=_chat_template(folder, tokenizer_config),
        special_tokens=special_tokens,
        stop_token_ids=stop_ids([config.get("eos_token_id"), generation.get("eos_token_id"), named_end], special),
        bos_token_id=bos if isinstance(bos, int) else special.get(special_tokens.get("bos_token", "")),
        generation_config=generation,
        verification=_json(folder / VERIFICATION, optional=True),
        files=(
            folder / CONFIG,
            tokenizer,
            *(folder / n for n in OPTIONAL if (folder / n).is_file()),
            *weight_files,
        ),
    )


def _text(path: Path) -> str:
    try:
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


def _token_text(entry: Any) -> str | None:
    """A token as its text, or as an object that has its text."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> str | None:
    """The file's own if there is one; else a string, or the one named default (or the only one) of a list."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return _text(path)
    entry = tokenizer_config.get("chat_template")
    if not isinstance(entry, list):
        return entry if isinstance(entry, str) else None
    try:
        named: dict[str, str] = {e["name"]: e["template"] for e in entry}
    except (KeyError, TypeError) as error:
        raise BuildError(f"{folder / 'tokenizer_config.json'} has a chat_template list that is not understood: {error!r}",
                         "each entry should have a name and a template") from error  # fmt: skip
    if "default" not in named and len(named) != 1:
        raise BuildError(
            f"{folder / 'tokenizer_config.json'} names its chat templates {', '.join(named) or 'nothing'}; none is default",
            "put the one to use into chat_template.jinja",
        )
    return named.get("default", next(iter(named.values())))
