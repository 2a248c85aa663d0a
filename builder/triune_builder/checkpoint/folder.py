"""Opens a folder as Hugging Face publishes models: config.json, safetensors, tokenizer.json. Downloads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BuildError
from .chat_templates import TEMPLATE_FILES, read_chat_templates
from .checkpoint import Checkpoint
from .files import CONFIG_BYTES, TOKENIZER_BYTES, exists, parse_object, read_text
from .fp8_config import KEY
from .safetensors_files import read_weights
from .sampling import of_generation_config
from .stored_forms import join_stored
from .tensor import Tensor
from .token_ids import SILENT, check_padding, of_json, stop_ids
from .tokenizer_file import Tokens, read_tokens

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
GENERATION, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
VERIFICATION = "verification.json"
# What older releases of tools write in place of a key of config.json: file -> quant_method, and the key of it all in that file.
_QUANTIZATION = {
    "hf_quant_config.json": ("modelopt", "quantization"),
    "quantize_config.json": ("gptq", None),
    "quant_config.json": ("awq", None),
}
_BITS = ("quant_algo", "bits", "w_bit")  # without which such a file says nothing
_COMPRESSION = "compression_config"  # of config.json, in older releases of compressed-tensors
OPTIONAL = (GENERATION, TOKENIZER_CONFIG, "special_tokens_map.json", *TEMPLATE_FILES, VERIFICATION, *_QUANTIZATION)
_COMPUTED = ".rotary_emb.inv_freq"  # older checkpoints store this buffer; it follows from the config
_EMBEDDING = "model.embed_tokens.weight"


def open_folder(folder: Path, *, name: str | None = None) -> Checkpoint:
    """The checkpoint in `folder`, under `name` (default: the folder's).

    Raises:
        BuildError: a file is missing or damaged, or names tokens or values that no server can use; the message names it.
    """
    config = _json(folder / CONFIG)
    tokenizer = folder / TOKENIZER
    tokenizer_json = _text(tokenizer, TOKENIZER_BYTES)
    generation = _json(folder / GENERATION, optional=True)
    tokenizer_config = _json(folder / TOKENIZER_CONFIG, optional=True)
    special_tokens = _named_tokens(tokenizer_config, _json(folder / "special_tokens_map.json", optional=True))
    chat_template, tool_template = read_chat_templates(folder, tokenizer_config, _text)
    stored, weight_files = read_weights(folder)
    weights, config = join_stored(stored, with_quantization(folder, config))
    count = _token_count(config, weights)
    tokens = read_tokens(tokenizer, tokenizer_json, count)
    stops, bos = _token_ids(config, generation, special_tokens, tokens, count)
    return Checkpoint(
        name=name or folder.resolve().name,
        config=config,
        weights={n: t for n, t in weights.items() if not n.endswith(_COMPUTED)},
        tokenizer_json=tokens.text,
        chat_template=chat_template,
        tool_template=tool_template,
        special_tokens=special_tokens,
        stop_token_ids=stops,
        bos_token_id=bos,
        generation_config=of_generation_config(generation),
        verification=_json(folder / VERIFICATION, optional=True),
        notes=(*tokens.notes, *(() if stops else (SILENT,))),
        files=(
            folder / CONFIG,
            tokenizer,
            *(path for name in OPTIONAL for path in sorted(folder.glob(name)) if path.is_file()),
            *weight_files,
        ),
    )


def with_quantization(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """config.json with what another key, or a file beside it, says of quantized weights, where it does not say it itself."""
    older = config.get(_COMPRESSION)
    rest = {key: value for key, value in config.items() if key != _COMPRESSION}
    if config.get(KEY) is not None:
        return rest
    if isinstance(older, dict) and older:
        return rest | {KEY: {"quant_method": "compressed-tensors"} | older}
    for name, (method, key) in _QUANTIZATION.items():
        found = _json(folder / name, optional=True)
        said = found if key is None else found.get(key)
        if isinstance(said, dict) and any(said.get(bits) is not None for bits in _BITS):
            return rest | {KEY: {"quant_method": method} | said}
    return rest


def _token_count(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> int | None:
    """Tokens that the model has embeddings for; that config.json says as many is for the architecture to check."""
    if _EMBEDDING in weights and weights[_EMBEDDING].shape:
        return weights[_EMBEDDING].shape[0]
    said = config.get("vocab_size")
    return said if isinstance(said, int) and said > 0 else None


def _token_ids(
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    special_tokens: Mapping[str, str],
    tokens: Tokens,
    count: int | None,
) -> tuple[tuple[int, ...], int | None]:
    """The tokens that end an answer, and the one that begins a text.

    generation_config.json has the say over config.json, as in transformers; the tokenizer's own end is always one.
    """
    ours, theirs = of_json(CONFIG, config, count), of_json(GENERATION, generation, count)
    texts = {key: tokens.ids[text] for key, text in special_tokens.items() if text in tokens.ids}
    named = of_json(TOKENIZER_CONFIG, texts, count)
    for ids in (ours, theirs):
        check_padding(ids)
    ends, others, own = ours.several("eos_token_id"), theirs.several("eos_token_id"), named.one("eos_token")
    stops = stop_ids([*(others or ends), *(() if own is None else (own,))], tokens.special)
    begins = (ours.one("bos_token_id"), theirs.one("bos_token_id"), named.one("bos_token"))
    return stops, next((i for i in begins if i is not None), None)


def _text(path: Path, most: int = CONFIG_BYTES) -> str:
    try:
        return read_text(path, most)
    except FileNotFoundError as error:
        raise BuildError(f"{path.parent} has no {path.name}", _missing_hint(path)) from error


def _missing_hint(path: Path) -> str:
    if path.name == TOKENIZER:
        return (
            "fetch tokenizer.json of the same model; if it is published with another kind of tokenizer only, convert it with "
            "`transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
        )
    return f"fetch {path.name} of the same model"


def _json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    return {} if optional and not exists(path) else parse_object(path, _text(path))


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
