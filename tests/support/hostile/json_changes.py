"""Changes to a JSON value that is the content of a file: other values, other types, keys gone, doubled or renamed."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from triune_builder.graph.arch import deepseek_config, llama, mistral, qwen2, qwen3
from triune_builder.graph.rope import TYPES

from .values import NUMBERS, TEXTS, dumps, hostile, words

_MODULES = (llama, mistral, qwen2, qwen3, deepseek_config)
KEYS = sorted(
    {key for module in _MODULES for key in module.KEYS}
    | {key for keys in TYPES.values() for key in keys}
    | set("""model_type rope_scaling rope_parameters rope_theta original_max_position_embeddings partial_rotary_factor
    quantization_config eos_token_id bos_token_id pad_token_id architectures torch_dtype pruned_heads weight_map __metadata__
    temperature top_k top_p min_p do_sample repetition_penalty chat_template add_bos_token normalizer pre_tokenizer decoder
    post_processor added_tokens model vocab merges type""".split())
)  # fmt: skip
_ENCODINGS = ("utf-8-sig", "utf-16", "utf-32", "latin-1")


def change_json(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """A changed content, and what was done in words; what is no JSON any more is changed as text."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return change_text(content, dice)
    if dice.random() < 0.12:
        return change_text(content, dice)
    if dice.random() < 0.02:
        value = hostile(dice)
        return dumps(value, dice), f"is {words(value)}"
    if dice.random() < 0.05 and isinstance(value, dict) and value:
        return _doubled(content, value, dice)
    done = _change(value, dice)
    try:
        return dumps(value, dice), done
    except RecursionError:  # an earlier change has nested it
        return change_text(content, dice)


def change_text(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Another text or other bytes in a file that should hold text."""
    at = dice.randrange(len(content) + 1)
    match dice.randrange(8):
        case 0:
            return content[:at], f"ends at byte {at}"
        case 1:
            return b"", "is empty"
        case 2:
            put = dice.choice(
                [b"\x00", b"\xff\xfe", b"\x1b[2J", b"\n", b"//x\n", b",", b"}", b"]", b'"', b"\\u", b"\xed\xa0\x80", b"NaN"]
            )
            return content[:at] + put + content[at:], f"has {put!r} at byte {at}"
        case 3:
            encoding = dice.choice(_ENCODINGS)
            return content.decode("utf-8", "replace").encode(encoding, "replace"), f"is {encoding}"
        case 4:
            return content + dice.choice([b" ", b"x", content[:100], b"\x00" * 100]), "goes on behind its end"
        case 5 | 6:
            changed = bytearray(content or b" ")
            for _ in range(dice.randint(1, 4)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            return bytes(changed), "has other bytes"
        case _:
            end = min(len(content), at + dice.randint(1, 60))
            return content[:at] + content[end:], f"lacks bytes {at} to {end}"


def _doubled(content: bytes, value: dict[str, Any], dice: random.Random) -> tuple[bytes, str]:
    key, other = dice.choice(sorted(value)), dumps(hostile(dice), dice)
    entry = json.dumps(key).encode() + b": " + other
    inner = content.strip()[1:-1]
    parts = [entry, inner] if dice.random() < 0.5 else [inner, entry]
    return b"{" + b", ".join(parts) + b"}", f"{key} is there twice, once as {other[:40]!r}"


def _change(root: Any, dice: random.Random) -> str:
    """Change something inside of a list or an object; returns what."""
    container, path = root, ""
    while True:
        inner = _inner(container)
        if not inner or dice.random() < (0.55 if path == "" else 0.35):
            break
        key = dice.choice(inner)
        container, path = container[key], f"{path}.{key}"
    if isinstance(container, dict):
        return _change_object(container, path, dice)
    if isinstance(container, list):
        return _change_list(container, path, dice)
    return "nothing"


def _inner(container: Any) -> list[Any]:
    """Keys of what lists and objects a list or an object has; of a long list the first few."""
    if isinstance(container, dict):
        return [key for key, value in container.items() if isinstance(value, dict | list)]
    return (
        [i for i, value in enumerate(container[:20]) if isinstance(value, dict | list)] if isinstance(container, list) else []
    )


def _change_object(found: dict[str, Any], path: str, dice: random.Random) -> str:
    kind = dice.randrange(14)
    if kind <= 1 or not found:
        key = dice.choice([*KEYS, *(str(t) for t in TEXTS[:30])])
        found[key] = hostile(dice)
        return f"{path}.{words(key)} added: {words(found[key])}"
    key = dice.choice(sorted(found))
    if kind == 2:
        del found[key]
        return f"{path}.{words(key)} gone"
    if kind == 3:
        other = dice.choice([*KEYS, key.upper(), key + " ", "", f"{key}\x1b", dice.choice(TEXTS)])
        found[other] = found.pop(key)
        return f"{path}.{words(key)} is named {words(other)}"
    if kind == 4:
        other = dice.choice(sorted(found))
        found[key], found[other] = found[other], found[key]
        return f"{path}.{words(key)} and {words(other)} change places"
    found[key] = _another(found[key], dice)
    return f"{path}.{words(key)} = {words(found[key])}"


def _change_list(found: list[Any], path: str, dice: random.Random) -> str:
    if not found or dice.random() < 0.2:
        found.insert(dice.randrange(len(found) + 1), hostile(dice))
        return f"{path} has one more"
    at = dice.randrange(len(found))
    match dice.randrange(5):
        case 0:
            del found[at]
            return f"{path}[{at}] gone"
        case 1:
            found += [found[at]] * dice.choice([1, 2, 1000, 20_000])
            return f"{path}[{at}] many times"
        case 2:
            dice.shuffle(found)
            return f"{path} shuffled"
        case _:
            found[at] = _another(found[at], dice)
            return f"{path}[{at}] = {words(found[at])}"


def _another(value: Any, dice: random.Random) -> Any:
    """In the place of `value`: of its type and near to it, or anything."""
    if dice.random() < 0.4:
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return dice.choice(
                [value + 1, value - 1, -value, value * 2, value // 2, float(value), str(value), [value], dice.choice(NUMBERS)]
            )
        if isinstance(value, float):
            whole = int(value) if math.isfinite(value) else value
            return dice.choice([-value, value * 1e30, whole, str(value), dice.choice(NUMBERS)])
        if isinstance(value, str):
            return dice.choice(
                [value + "\x1b[7m", value[:-1], value.upper(), value * 2, [value], {"content": value}, dice.choice(TEXTS)]
            )
        if isinstance(value, list):
            return dice.choice(
                [value * 2, value[:-1], {str(i): each for i, each in enumerate(value[:100])}, value[0] if value else 0]
            )
        if isinstance(value, dict):
            return dice.choice([list(value), [value], {}, str(value)[:200]])
    return hostile(dice)
