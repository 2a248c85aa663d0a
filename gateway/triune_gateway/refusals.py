"""What OpenAI's clients may ask for and this server does not do: refused by name, never ignored.

A value that asks for what happens anyway (no functions, plain text) is welcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .errors import not_supported
from .schemas import Generation

Unserved = Mapping[str, tuple[tuple[Any, ...], str]]  # field -> the values that change nothing, and why any other is refused


def refuse_unserved(request: Generation, fields: Unserved) -> None:
    """Check that a request asks for nothing that this server does not do.

    Args:
        fields: those of its endpoint that are not served.

    Raises:
        ApiError: it does; names the field.
    """
    refuse_fields(request, fields)
    if request.best_of not in (None, request.n or 1) or isinstance(request.best_of, bool):
        raise not_supported("best_of", "best_of is not supported: this server returns every answer that it generates; use n.")


def refuse_fields(request: BaseModel, fields: Unserved) -> None:
    """Check that none of these fields asks for what this server does not do. Raises as `refuse_unserved`."""
    for name, (harmless, why) in fields.items():
        value = getattr(request, name)
        if value is not None and not any(value == one and type(value) is type(one) for one in harmless):
            raise not_supported(name, f"{name} is not supported: {why}.")
