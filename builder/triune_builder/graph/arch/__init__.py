"""Which architecture a checkpoint's `model_type` names."""

from __future__ import annotations

from types import ModuleType

from ...errors import BuildError
from . import llama

ARCHITECTURES: dict[str, ModuleType] = {"llama": llama}


def find_architecture(model_type: str) -> ModuleType:
    """The module of `model_type`.

    Raises:
        BuildError: there is none.
    """
    if model_type not in ARCHITECTURES:
        raise BuildError(
            f"no architecture for model_type {model_type!r}; known: {', '.join(sorted(ARCHITECTURES))}",
            f"add graph/arch/{model_type}.py and one line in graph/arch/__init__.py",
        )
    return ARCHITECTURES[model_type]
