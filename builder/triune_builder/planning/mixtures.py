"""Qwen3's mixtures of experts: planned, not built. What they read and hold beside a Qwen3 of the same keys is this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import BuildError
from ..graph.arch import qwen3
from ..graph.arch.decoder import Config
from ..graph.arch.decoder import promises as dense_promises
from ..graph.arch.promised import Promised
from ..graph.keys import FLAG, Key, Kind, count, read_keys

MODEL_TYPE = "qwen3_moe"
_LAYERS = Kind("a list of layers' numbers", lambda value: isinstance(value, list) and all(type(v) is int for v in value))
KEYS: dict[str, Key] = {
    "num_experts": Key(kind=count(most=1 << 14), missing=128),
    "num_experts_per_tok": Key(kind=count(), missing=8),
    "moe_intermediate_size": Key(kind=count(), missing=768),
    "decoder_sparse_step": Key(kind=count(), missing=1),
    "mlp_only_layers": Key(kind=_LAYERS, missing=(), null=()),
    "norm_topk_prob": Key(kind=FLAG, missing=False),
}
_TRAINING = ("output_router_logits", "router_aux_loss_coef")


class Mixture(NamedTuple):
    """A Qwen3, and what the experts in its layers are."""

    dense: Config
    said: Mapping[str, Any]

    def has_experts(self, layer: int) -> bool:
        """Whether that layer is a mixture; the others are dense."""
        return layer not in self.said["mlp_only_layers"] and (layer + 1) % self.said["decoder_sparse_step"] == 0


def read(config: Mapping[str, Any]) -> Mixture:
    """What config.json says.

    Raises:
        BuildError: a key that may change the maths is not understood.
    """
    said = read_keys(config, KEYS)
    if said["num_experts_per_tok"] > said["num_experts"]:
        raise BuildError(
            f"config.json: {said['num_experts_per_tok']} of {said['num_experts']} experts cannot be chosen",
            "correct num_experts_per_tok or num_experts",
        )
    return Mixture(qwen3.read({k: v for k, v in config.items() if k not in KEYS and k not in _TRAINING}), said)


def promises(mixture: Mixture) -> Promised:
    """The weights that a checkpoint of it holds."""
    cfg, said = mixture.dense, mixture.said
    promised, experts = dense_promises(cfg), Promised()
    for layer in filter(mixture.has_experts, range(cfg.num_hidden_layers)):
        name = f"model.layers.{layer}.mlp"
        for weight in [w for w in promised.required if w.startswith(f"{name}.")]:
            del promised.required[weight]
        experts.required[f"{name}.gate.weight"] = (said["num_experts"], cfg.hidden_size)
        for expert in range(said["num_experts"]):
            experts.gated_mlp(f"{name}.experts.{expert}", cfg.hidden_size, said["moe_intermediate_size"])
    promised.required |= experts.required
    return promised
