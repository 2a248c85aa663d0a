"""Which architecture a checkpoint's `model_type` names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from ...errors import BuildError
from . import decoder, deepseek_config, deepseek_v3, llama, mistral, qwen2, qwen3
from .promised import Promised


class Architecture(NamedTuple):
    """How to read config.json, which weights it promises, and what to compute with what was read."""

    read: Callable[[Mapping[str, Any]], Any]
    promises: Callable[[Any], Promised]
    forward: Callable[..., Any]
    settle: Callable[[Any, Collection[str]], Any] = lambda cfg, stored: cfg  # what the names of stored weights decide
    mtp: Callable[..., Any] | None = None  # the graph that predicts the token after the next, where there is one


ARCHITECTURES: dict[str, Architecture] = {
    "deepseek_v3": Architecture(
        deepseek_config.Config.read,
        deepseek_config.promises,
        deepseek_v3.forward,
        settle=deepseek_config.Config.settle,
        mtp=deepseek_v3.mtp_forward,
    ),
    "llama": Architecture(llama.read, decoder.promises, decoder.forward),
    "mistral": Architecture(mistral.read, decoder.promises, decoder.forward),
    "qwen2": Architecture(qwen2.read, decoder.promises, decoder.forward),
    "qwen3": Architecture(qwen3.read, decoder.promises, decoder.forward),
}


def find_architecture(model_type: object, also: Iterable[str] = ()) -> Architecture:
    """The architecture that config.json's `model_type` names.

    Args:
        also: others that the caller knows.

    Raises:
        BuildError: there is none.
    """
    if isinstance(model_type, str) and model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    said = "config.json has no model_type" if model_type is None else f"no architecture for model_type {model_type!r}"
    near = get_close_matches(str(model_type), ARCHITECTURES, n=1)
    raise BuildError(
        f"{said}; known: {', '.join(sorted((*ARCHITECTURES, *also)))}",
        (f"did you mean {near[0]!r}? " if near else "")
        + ("is it the config.json of a model? " if model_type is None else "")
        + "Choose a model of a known architecture; README.md says how one is added",
    )
