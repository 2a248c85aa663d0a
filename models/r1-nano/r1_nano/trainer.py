"""One training step, and the state of a run as one file. Knows no clock and no command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .data import Block
from .experts import MoE
from .model import Layout, Nano, Output, varlen_attn
from .optimizer import Optimizer
from .plan import active_experts, bias_step, learning_rate, mtp_weight
from .recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How a step is computed: all ways give the same result, some are faster and need more of the machine."""

    compiled: bool
    packed: bool  # examples told apart by their ends, not by a mask

    def __str__(self) -> str:
        return f"{'compiled' if self.compiled else 'eager'}, {'packed' if self.packed else 'masked'} attention"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    dense_to_sparse: bool = False
    l1: float = 0.0  # weight of the routed experts' mean absolute hidden activation in the loss


class Trainer:
    """The model, its optimizer and how far the run has come."""

    def __init__(self, recipe: Recipe, options: Options, device: torch.device) -> None:
        torch.manual_seed(recipe.train.seed)
        self.recipe, self.options, self.device = recipe, options, device
        self.model = Nano(recipe.model).to(device)
        self.model.learns_l1 = options.l1 > 0
        self.optimizer = Optimizer(self.model, recipe.train)
        self.routers = [layer.mlp.gate for layer in self.model.layers if isinstance(layer.mlp, MoE)]
        self.step_number = 0  # also the number of the next block
        self.elapsed_s = 0.0
        self.way = Way(compiled=False, packed=False)
        self._forward: Callable[..., Output] = self.model

    def choose_way(self, block: Block) -> list[str]:
        """Takes the fastest way that computes this block's gradients here; says why others were left out."""
        is_cuda = self.device.type == "cuda"
        compiled = (True, False) if is_cuda else (False,)
        packed = (True, False) if is_cuda and varlen_attn is not None else (False,)
        refused = []
        for way in [Way(compiled=c, packed=p) for c in compiled for p in packed]:
            self.way = way
            self._forward = torch.compile(self.model) if way.compiled else self.model
            try:
                self._losses(block, 0.0)
                self.optimizer.zero_grad(self.model)
                return refused
            except Exception as error:  # a compiler fails in many ways; the last way's failure is raised
                refused.append(f"{way}: {type(error).__name__}: {str(error)[:600]}")
                if not way.compiled and not way.packed:
                    raise
        return refused

    def step(self, block: Block, progress: float) -> Output:
        """One step on one block; `progress` is the fraction of the run that is done."""
        recipe = self.recipe.train
        output = self._losses(block, progress)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.gradient_clip)
        self.optimizer.step(learning_rate(progress, recipe))
        self.optimizer.zero_grad(self.model)
        nudge = bias_step(progress, recipe)
        with torch.no_grad():
            for router, load in zip(self.routers, output.loads, strict=True):
                router.e_score_correction_bias += nudge * torch.sign(load.mean() - load)
        self.step_number += 1
        return output

    def _losses(self, block: Block, progress: float) -> Output:
        """The losses of a block, their gradients left in the parameters."""
        tokens, targets, later, layout = on_device(block, self.device, packed=self.way.packed)
        active = active_experts(progress, self.recipe.model, self.recipe.train, dense_to_sparse=self.options.dense_to_sparse)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self._forward(tokens, targets, later, layout, torch.full((), active, device=self.device))
        loss = output.loss + mtp_weight(progress, self.recipe.train) * output.mtp_loss
        if self.options.l1:
            loss = loss + self.options.l1 * output.l1
        loss.backward()
        return Output(*(part.detach() for part in output))

    # -- the state of a run ------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes the state whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step_number": self.step_number,
            "elapsed_s": self.elapsed_s,
            "identity": self._identity(),
        }
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def load(self, path: Path) -> None:
        """
        Raises:
            ValueError: the file is of a run with another recipe or other options.
        """
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if state["identity"] != self._identity():
            raise ValueError(f"{path} is of another run ({state['identity']}); expected {self._identity()}: use another --work")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_number, self.elapsed_s = state["step_number"], state["elapsed_s"]

    def _identity(self) -> str:
        return f"{self.recipe} {self.options}"


def on_device(block: Block, device: torch.device, *, packed: bool) -> tuple[Tensor, Tensor, Tensor, Layout]:
    """A block's tokens, targets and later targets as int64, and its layout."""

    def moved(array: Any) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    layout = Layout(moved(block.positions).long(), moved(block.ends) if packed else None)
    return moved(block.tokens).long(), moved(block.targets).long(), moved(block.later_targets).long(), layout
