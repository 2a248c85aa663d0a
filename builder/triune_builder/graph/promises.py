"""Whether a checkpoint holds the weights that its config.json promises; the architecture says which. Reads no matrix."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..checkpoint import GroupedTensor
from ..errors import BuildError
from .arch import Architecture, find_architecture
from .arch.promised import Promised
from .arch.promised import Shape as Shape
from .keys import shown
from .weights import Source

_SHOWN = 10  # problems that an error lists
_BIAS_FLAGS = (("attention_bias", ".self_attn."), ("mlp_bias", ".mlp."))


def settled_config(config: Mapping[str, Any], stored: Collection[str]) -> tuple[Architecture, Any]:
    """The architecture, and what it reads of config.json beside weights of the names `stored`.

    Raises:
        BuildError: an unknown architecture, or a key that is missing, malformed or not understood.
    """
    architecture = find_architecture(config.get("model_type"))
    return architecture, architecture.settle(architecture.read(config), stored)


def promised_weights(config: Mapping[str, Any]) -> Promised:
    """What the checkpoint of that config.json holds, all that is optional for the config alone included.

    Raises:
        BuildError: as `settled_config`.
    """
    architecture = find_architecture(config.get("model_type"))
    return architecture.promises(architecture.read(config))


def check_weights(config: Mapping[str, Any], weights: Mapping[str, Source]) -> None:
    """Compare a checkpoint's weights with what its config.json promises; reads no weight but biases that are not promised.

    Raises:
        BuildError: as `settled_config`; or names missing, spare and misshapen weights, all in one.
    """
    architecture, cfg = settled_config(config, weights.keys())
    promised = architecture.promises(cfg)
    known = promised.required | promised.optional
    missing = [name for name in promised.required if name not in weights]
    spare = [name for name in without_idle_biases(promised, weights) if name not in known]
    misshapen = [f"{name} is {list(weights[name].shape)}, not {list(shape)}"
                 for name, shape in known.items() if name in weights and tuple(weights[name].shape) != shape]  # fmt: skip
    kinds = (("missing", missing), ("spare", spare), ("misshapen", misshapen))
    problems = [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]
    if problems:
        biases = [name for name in (*missing, *spare) if name.endswith(".bias")]
        flags = {flag: config.get(flag, False) for flag, part in _BIAS_FLAGS if any(part in name for name in biases)}
        said = "".join(f"; {flag} is {shown(value)} in config.json" for flag, value in flags.items())
        raise BuildError(
            f"the weights are not those that config.json promises of {config.get('model_type')}: {'; '.join(problems)}{said}",
            "is the checkpoint complete, and of the model and version of its config.json?"
            + (" If these biases are the model's own, correct the key" if flags else ""),
        )


def without_idle_biases(promised: Promised, weights: Mapping[str, Source]) -> dict[str, Source]:
    """The weights but biases of zeros that nobody promised: the first releases of AutoGPTQ gave every packed matrix one."""
    known = promised.required | promised.optional

    def is_idle(name: str) -> bool:
        module, _, kind = name.rpartition(".")
        packed = kind == "bias" and isinstance(weights.get(f"{module}.weight"), GroupedTensor)
        return packed and name not in known and not weights[name].float32().any()

    return {name: weight for name, weight in weights.items() if not is_idle(name)}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
