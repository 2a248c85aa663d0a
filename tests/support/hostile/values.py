"""Values that nobody expects where they are put, and how a JSON text comes to hold them."""

from __future__ import annotations

import json
import math
import random
from typing import Any


class Raw(str):
    """A text that stands in JSON as it is: no value of Python's is written so."""

    __slots__ = ()


def nested(depth: int, opened: str = "[", closed: str = "]") -> Raw:
    """A value in `depth` brackets."""
    return Raw(opened * depth + "1" + closed * depth)


NUMBERS: list[Any] = [
    0,
    -1,
    1,
    2,
    3,
    7,
    255,
    1000,
    4096,
    65536,
    10**6,
    2**31 - 1,
    2**31,
    2**32 - 1,
    10**9,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    10**400,
    -(2**31),
    -(10**18),
    0.0,
    -0.0,
    0.5,
    1.0,
    1.5,
    -1.5,
    1e-300,
    1e-45,
    3.4e38,
    1e300,
    1.7e308,
    math.nan,
    math.inf,
    -math.inf,
    Raw("1e999"),
    Raw("9" * 5000),
    Raw("1" + "0" * 4000),
    Raw("0." + "3" * 5000),
    Raw("-0"),
    Raw("1E400"),
]
TEXTS: list[Any] = [
    "",
    "x",
    "0",
    "1.0",
    "true",
    "null",
    "NaN",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "line\nbreak",
    "carriage\rreturn",
    "tab\t",
    "nul\x00",
    "\x85\u2028\u2029",
    "\u202eright to left",
    "\ufeff",
    "\ud800",
    "\udfff\ud800",
    "é",
    "世界",
    "😀",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "%s%n{}{0}{x}",
    "{{ 7 * 7 }}",
    "{% for %}",
    "../../etc/passwd",
    "/dev/zero",
    "a/b",
    "..",
    "C:\\x",
    "'; --",
    "[bold]rich[/bold]",
    "<think>",
    "<|im_end|>",
    "<0x00>",
    "▁",
    "Ġ",
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "llama",
    "qwen3",
    "deepseek_v3",
    "mistral",
    "gpt2",
    "yarn",
    "llama3",
    "linear",
    "dynamic",
    "longrope",
    "default",
    "silu",
    "gelu",
    "fp8",
    "gptq",
    "awq",
    "bitsandbytes",
    "compressed-tensors",
    "modelopt",
    "gptq_v2",
    "gemm",
    "pack-quantized",
    "float8_e4m3fn",
    "bfloat16",
    "sigmoid",
    "softmax",
    "noaux_tc",
    "F32",
    "BF16",
    "F8_E4M3",
    "I8",
    "U8",
    "I32",
    "Q8_0",
]
OTHERS: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [{}],
    {"": None},
    [None],
    [0] * 3,
    [1.5, "x", None],
    {"a": {"b": {"c": []}}},
    ["full_attention"] * 2,
    {"rope_type": "yarn", "factor": 0},
    {"content": 5},
    {"type": "Sequence"},
    {"type": None},
]
_LARGE = (1000, 20_000, 200_000)


def hostile(dice: random.Random) -> Any:
    """A value, small for the most part."""
    match dice.randrange(20):
        case 0:
            return nested(dice.choice([50, 400, 900, 990, 1100, 10**5]), *dice.choice([("[", "]"), ('{"a":', "}")]))
        case 1:
            return [dice.choice([0, 1, "x", None, [], 1.5])] * dice.choice(_LARGE)
        case 2:
            return dice.choice(["x", "\x1b", "😀", "a b", "\\", '"']) * dice.choice(_LARGE)
        case 3:
            return {f"k{i}": dice.choice([0, None, "x"]) for i in range(dice.choice(_LARGE) // 10)}
        case 4 | 5 | 6 | 7:
            return dice.choice(TEXTS)
        case 8 | 9 | 10:
            return dice.choice(OTHERS)
        case _:
            return dice.choice(NUMBERS)


def dumps(value: Any, dice: random.Random) -> bytes:
    """JSON, in which a `Raw` stands as it is."""
    raws: list[str] = []

    def plain(part: Any) -> Any:
        if isinstance(part, Raw):
            raws.append(part)
            return f"@@raw{len(raws) - 1}@@"
        if isinstance(part, dict):
            return {key: plain(inner) for key, inner in part.items()}
        if isinstance(part, list) and any(isinstance(inner, Raw | dict | list) for inner in part):
            return [plain(inner) for inner in part]
        return part

    text = json.dumps(plain(value), ensure_ascii=dice.random() < 0.8)
    for number, raw in enumerate(raws):
        text = text.replace(f'"@@raw{number}@@"', raw)
    return text.encode("utf-8", "surrogatepass")


def words(value: Any, most: int = 40) -> str:
    """A value as a few words."""
    shown = ascii(value)
    return shown if len(shown) <= most else f"{shown[:most]}..."
