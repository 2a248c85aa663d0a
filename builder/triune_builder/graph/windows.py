"""Which layers see only the latest positions: config.json's ways to say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BuildError

SLIDING = frozenset({"sliding_window", "layer_types"})  # keys that any architecture may carry
SWITCHED = frozenset({"use_sliding_window", "max_window_layers"})  # and Qwen's own
_FULL, _WINDOWED = "full_attention", "sliding_attention"
_QWEN_FULL_LAYERS = 28  # what Qwen's configs mean where they do not say max_window_layers


def read_windows(config: Mapping[str, Any], *, switched: bool = False) -> tuple[int | None, ...]:
    """Of each layer, how many positions a query sees, its own included; None: all.

    Args:
        switched: the window counts only where `use_sliding_window` is true, and only from layer `max_window_layers` on
            where `layer_types` does not name the layers (Qwen's rules).

    Raises:
        BuildError: the keys are malformed or do not agree.
    """
    layers, window = config["num_hidden_layers"], config.get("sliding_window")
    if switched and not config.get("use_sliding_window", False):
        window = None
    elif window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise BuildError(f"sliding_window is {window!r} in config.json", "it must be a number of positions, or null")
    kinds = config.get("layer_types")
    if kinds is None:
        first = config.get("max_window_layers", _QWEN_FULL_LAYERS) if switched else 0
        kinds = [_WINDOWED if i >= first and window is not None else _FULL for i in range(layers)]
    unknown = sorted({str(kind) for kind in kinds} - {_FULL, _WINDOWED})
    if len(kinds) != layers or unknown:
        raise BuildError(
            f"layer_types names {len(kinds)} layers, of kinds {', '.join(sorted(map(str, set(kinds))))}",
            f"name each of the {layers} layers {_FULL} or {_WINDOWED}",
        )
    if _WINDOWED in kinds and window is None:
        raise BuildError(
            f"layer_types has layers of {_WINDOWED}, but no window is in force (sliding_window = "
            f"{config.get('sliding_window')!r}, use_sliding_window = {config.get('use_sliding_window')!r})",
            "give both, or neither",
        )
    return tuple(window if kind == _WINDOWED else None for kind in kinds)
