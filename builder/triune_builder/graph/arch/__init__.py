"""Which architecture a checkpoint's `model_type` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...errors import BuildError
from . import decoder, deepseek_v3, llama, qwen2, qwen3


class Architecture(NamedTuple):
    """How to read config.json, and what to compute with what was read."""

    read: Callable[[Mapping[str, Any]], Any]
    forward: Callable[..., Any]
    mtp: Callable[..., Any] | None = None  # the graph that predicts the token after the next, where there is one


ARCHITECTURES: dict[str, Architecture] = {
    "deepseek_v3": Architecture(deepseek_v3.read, deepseek_v3.forward, deepseek_v3.mtp_forward),
    "llama": Architecture(llama.read, decoder.forward),
    "mistral": Architecture(llama.read, decoder.forward),
    "qwen2": Architecture(qwen2.read, decoder.forward),
    "qwen3": Architecture(qwen3.read, decoder.forward),
}


def find_architecture(model_type: str) -> Architecture:
    """The architecture of `model_type`.

    Raises:
        BuildError: there is none.
    """
    if model_type not in ARCHITECTURES:
        raise BuildError(
            f"no architecture for model_type {model_type!r}; known: {', '.join(sorted(ARCHITECTURES))}",
            f"add graph/arch/{model_type}.py and one line in graph/arch/__init__.py",
        )
    return ARCHITECTURES[model_type]
