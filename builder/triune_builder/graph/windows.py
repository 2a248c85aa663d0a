"""Which layers see only the latest positions: config.json's ways to say so, as transformers' architectures read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BuildError
from .keys import FLAG, LAYER_KINDS, Key, count, shown

_FULL, _WINDOWED = "full_attention", "sliding_attention"
USUAL_WINDOW = 4096  # what Mistral's and Qwen's configs mean where they do not say sliding_window
_WINDOW = Key(kind=count(), missing=USUAL_WINDOW, null=None)

MISTRAL: dict[str, Key] = {"sliding_window": _WINDOW}
QWEN: dict[str, Key] = {
    "use_sliding_window": Key(kind=FLAG, missing=False),
    "sliding_window": Key(kind=count(least=0), missing=USUAL_WINDOW, null=None),
    "max_window_layers": Key(kind=count(least=0), missing=28),
    "layer_types": Key(kind=LAYER_KINDS, missing=None, null=None),
}

Windows = tuple[int | None, ...]  # of each layer, how many positions a query sees, its own included; None: all


def mistral_windows(config: Mapping[str, Any], said: Mapping[str, Any]) -> Windows:
    """Every layer has the window.

    Raises:
        BuildError: `layer_types` or `use_sliding_window` contradict it; transformers' Mistral reads neither, others do.
    """
    window: int | None = said["sliding_window"]
    layers: int = said["num_hidden_layers"]
    kinds, switch = config.get("layer_types"), config.get("use_sliding_window")
    wanted = _FULL if window is None else _WINDOWED
    if kinds is not None and kinds != [wanted] * layers:
        raise BuildError(
            f"config.json: layer_types is {shown(kinds)}, and sliding_window, {'null' if window is None else window}, "
            f"makes all {layers} layers {wanted}",
            "remove layer_types, or say sliding_window: null if no layer has a window",
        )
    if switch not in (None, window is not None):
        raise BuildError(
            f"config.json: use_sliding_window is {shown(switch)}, sliding_window {'null' if window is None else window}",
            "remove use_sliding_window, or say sliding_window: null if no layer has a window",
        )
    return (window,) * layers


def qwen_windows(said: Mapping[str, Any]) -> Windows:
    """The window counts only where `use_sliding_window` is true, and only from layer `max_window_layers` on where
    `layer_types` does not name the layers.

    Raises:
        BuildError: the keys are malformed or do not agree.
    """
    layers, kinds = said["num_hidden_layers"], said["layer_types"]
    window = said["sliding_window"] if said["use_sliding_window"] else None
    if window == 0:
        raise BuildError("sliding_window is 0 in config.json", "it must be a number of positions, or null")
    if kinds is None:
        return tuple(window if i >= said["max_window_layers"] else None for i in range(layers))
    if len(kinds) != layers or set(kinds) - {_FULL, _WINDOWED}:
        raise BuildError(
            f"layer_types names {len(kinds)} layers, of kinds {shown(', '.join(sorted(set(kinds))))}",
            f"name each of the {layers} layers {_FULL} or {_WINDOWED}",
        )
    if _WINDOWED in kinds and window is None:
        raise BuildError(
            f"layer_types has layers of {_WINDOWED}, but no window is in force (sliding_window = "
            f"{said['sliding_window']!r}, use_sliding_window = {said['use_sliding_window']!r})",
            "give both, or neither",
        )
    return tuple(window if kind == _WINDOWED else None for kind in kinds)
