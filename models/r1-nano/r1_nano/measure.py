"""What a trained model can do, measured in PyTorch: held-out accuracy by task, and how sparse its experts are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .decode import greedy
from .experts import MoE
from .model import Layout, Nano, example_mask
from .problems import MEASURED, held_out
from .recipe import Recipe
from .scoring import is_right
from .tokenizer import END_THINK, prompt_text

_MOST_TOKENS = 760


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    task: str
    asked: int
    right: int
    tokens: int  # generated, thinking included

    @property
    def accuracy(self) -> float:
        return self.right / self.asked


def accuracy(
    model: Nano, tokenizer: Tokenizer, recipe: Recipe, *, count: int, tasks: tuple[str, ...] = MEASURED
) -> tuple[list[Score], list[str]]:
    """So many held-out problems of each task, decoded greedily together; also a few wrong ones in full."""
    asked = [e for task in tasks for e in held_out(recipe, task, count)]
    prompts = [tokenizer.encode(prompt_text(e.messages, thinks=e.thinks), add_special_tokens=False).ids for e in asked]
    texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in greedy(model, prompts, most_tokens=_MOST_TOKENS)]
    right = [is_right(e, text.rpartition(END_THINK)[2]) for e, text in zip(asked, texts, strict=True)]
    scores = []
    for task in tasks:
        marks = [(r, len(tokenizer.encode(t).ids)) for e, r, t in zip(asked, right, texts, strict=True) if e.task == task]
        scores.append(Score(task=task, asked=len(marks), right=sum(r for r, _ in marks), tokens=sum(n for _, n in marks)))
    wrong = [
        f"[{e.task}] {e.messages[-1][1]!r} wants {e.answer!r}\n{text}"
        for e, text, r in zip(asked, texts, right, strict=True)
        if not r
    ]
    return scores, wrong


@torch.inference_mode()
def sparsity(model: Nano, tokens: Tensor, layout: Layout, recipe: Recipe) -> dict[str, Any]:
    """Of the chosen routed experts' hidden activations, the share near zero; of all, the share that is computed at all."""
    threshold = recipe.train.sparsity_threshold
    silent = torch.zeros((), device=tokens.device)
    seen = torch.zeros((), device=tokens.device)
    hooks = []

    def look(module: MoE, arguments: tuple[Tensor, Tensor, Tensor]) -> None:
        x, active, counted = arguments
        used = (module.gate(x, active, counted).weights > 0) & (counted > 0).unsqueeze(1)
        near_zero = module.experts.hidden(x).abs() < threshold
        silent.add_((near_zero & used.unsqueeze(-1)).sum())
        seen.add_(used.sum() * near_zero.shape[-1])

    for layer in model.layers[: recipe.model.num_hidden_layers]:
        if isinstance(layer.mlp, MoE):
            hooks.append(layer.mlp.register_forward_pre_hook(look))
    active = torch.tensor(recipe.model.num_experts_per_tok, device=tokens.device)
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.device.type == "cuda"):
        model.hidden(tokens, layout, example_mask(layout), active)
    for hook in hooks:
        hook.remove()
    return {
        "active_expert_share": recipe.model.num_experts_per_tok / recipe.model.n_routed_experts,
        "silent_share_of_active_hidden": round((silent / seen).item(), 4),
        "threshold": threshold,
    }


def as_rows(scores: list[Score]) -> list[dict[str, Any]]:
    return [{**asdict(s), "accuracy": round(s.accuracy, 4)} for s in scores]
