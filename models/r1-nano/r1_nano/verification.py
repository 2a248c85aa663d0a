"""The model's own texts, over which a build calibrates and judges its engines: arithmetic, not English."""

from __future__ import annotations

from .examples import Example
from .problems import example, held_out
from .recipe import Recipe
from .tokenizer import END_THINK, EOS, prompt_text

_TASKS = ("add", "subtract", "multiply", "divide", "compare", "expression", "word", "follow_up")
_FIRST = 1 << 40  # training examples that no run reaches


def verification(recipe: Recipe) -> dict[str, list[str]]:
    """verification.json: whole conversations, and prompts to continue."""
    seed, data = recipe.train.seed, recipe.data
    calibration = [example(seed, "train", _FIRST + i, data, task) for task in _TASKS for i in range(4)]
    asked = [drawn for task in _TASKS for drawn in held_out(recipe, task, 4)]
    return {
        "calibration": [_whole(drawn) for drawn in calibration],
        "evaluation": [_whole(drawn) for drawn in asked[::2]],
        "prompts": [prompt_text(drawn.messages, thinks=drawn.thinks) for drawn in asked[1::2]],
    }


def _whole(drawn: Example) -> str:
    answer = f"{drawn.thinking}{END_THINK}\n\n{drawn.answer}" if drawn.thinks else drawn.answer
    return f"{prompt_text(drawn.messages, thinks=drawn.thinks)}{answer}{EOS}"
