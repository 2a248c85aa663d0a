"""A fake DeepSeek-V3 checkpoint as a model of transformers; imports torch, so tests import it once they know torch is there."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from .tiny_llama import FakeCheckpoint


def load(checkpoint: FakeCheckpoint) -> Any:
    """The model, without MTP layers."""
    config = {k: v for k, v in checkpoint.config.items() if k not in ("auto_map", "architectures")}
    model = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**config)).eval()
    beyond = f"model.layers.{config['num_hidden_layers']}."
    state = {name: tensor for name, tensor in rename_experts(checkpoint).items() if not name.startswith(beyond)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(n == "lm_head.weight" or "shared_experts" in n for n in missing), missing  # tied, or of size zero
    return model


def rename_experts(checkpoint: FakeCheckpoint) -> dict[str, Any]:
    """The weights by the names of transformers, which stacks a layer's experts."""
    state: dict[str, Any] = {name: torch.tensor(t.array) for name, t in checkpoint.weights.items()}
    every = range(checkpoint.config["n_routed_experts"])
    for name in [n for n in state if n.endswith("mlp.gate.weight")]:
        layer = name.removesuffix("gate.weight") + "experts."
        parts = {n: [state.pop(f"{layer}{e}.{n}_proj.weight") for e in every] for n in ("gate", "up", "down")}
        pairs = zip(parts["gate"], parts["up"], strict=True)
        state[f"{layer}gate_up_proj"] = torch.stack([torch.cat(pair) for pair in pairs])
        state[f"{layer}down_proj"] = torch.stack(parts["down"])
    return state
