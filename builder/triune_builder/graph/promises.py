"""Whether a checkpoint holds the weights that its config.json promises; the architecture says which. Reads no weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BuildError
from .arch import find_architecture
from .arch.promised import Promised
from .arch.promised import Shape as Shape
from .weights import Source

_SHOWN = 10  # problems that an error lists


def promised_weights(config: Mapping[str, Any]) -> Promised:
    """What the checkpoint of that config.json holds.

    Raises:
        BuildError: an unknown architecture, or a key that is missing or not understood.
    """
    architecture = find_architecture(config.get("model_type"))
    return architecture.promises(architecture.read(config))


def check_weights(config: Mapping[str, Any], weights: Mapping[str, Source]) -> None:
    """Compare a checkpoint's weights with what its config.json promises; reads no weight.

    Raises:
        BuildError: as `promised_weights`; or names missing, spare and misshapen weights, all in one.
    """
    promised = promised_weights(config)
    known = promised.required | promised.optional
    missing = [name for name in promised.required if name not in weights]
    spare = [name for name in weights if name not in known]
    misshapen = [f"{name} is {list(weights[name].shape)}, not {list(shape)}"
                 for name, shape in known.items() if name in weights and tuple(weights[name].shape) != shape]  # fmt: skip
    kinds = (("missing", missing), ("spare", spare), ("misshapen", misshapen))
    problems = [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]
    if problems:
        raise BuildError(
            f"the weights are not those that config.json promises of {config.get('model_type')}: {'; '.join(problems)}",
            "is the checkpoint complete, and of the model and version of its config.json?",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
