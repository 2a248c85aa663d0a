"""What a publisher recommends for choosing tokens: checked, and with `do_sample` taken at its word. Opens no file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import BuildError, quoted

# key -> least, most, in words. Of the server's range what means the same to it as to transformers.
_RANGES: Mapping[str, tuple[float, float, str]] = {
    "temperature": (0, 1000, "a number from 0 to 1000"),
    "top_p": (math.ulp(0.0), 1, "a number above 0 and at most 1"),
    "top_k": (-1, 2**31 - 1, "a whole number from -1"),
    "min_p": (0, 1, "a number from 0 to 1"),
    "repetition_penalty": (0.01, 100, "a number from 0.01 to 100"),
}
_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p")  # without meaning where the best token is taken


def recommended(values: Mapping[str, Any], *, names: Mapping[str, str], hint: str) -> dict[str, Any]:
    """The publisher's defaults by generation_config.json's names.

    `do_sample: false` means the best token, whatever else is there; `do_sample: true` without a temperature means 1, as in
    transformers. Where `do_sample` is not there, the values are taken as they are, as vLLM does: publishers who name a
    temperature mean it.

    Args:
        values: generation_config.json, or what stands for it under the same names.
        names: what errors call a key, with its file.

    Raises:
        BuildError: a value of another type or range; names it.
    """
    given = {key: values[key] for key in _RANGES if values.get(key) is not None}
    found = {key: _checked(names[key], key, value, hint) for key, value in given.items()}
    sample = values.get("do_sample")
    if sample is not None and not isinstance(sample, bool):
        raise BuildError(f"{names['do_sample']} = {quoted(sample)}; true or false is expected", hint)
    if sample is False:
        return {key: value for key, value in found.items() if key not in _OF_SAMPLING}
    return ({"temperature": 1.0} if sample else {}) | found


def of_generation_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """`recommended` of a generation_config.json.

    Raises:
        BuildError: see there.
    """
    file = "generation_config.json"
    names = {key: f"{file} has {key}" for key in (*_RANGES, "do_sample")}
    return recommended(
        values, names=names, hint=f"correct it in {file}, or remove the key: then the server's own default holds"
    )


def _checked(name: str, key: str, value: Any, hint: str) -> int | float:
    least, most, words = _RANGES[key]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = key == "top_k"
    if not number or not least <= value <= most or (whole and value != int(value)):
        raise BuildError(f"{name} = {quoted(value)}; {words} is expected", hint)
    return int(value) if whole else float(value)
