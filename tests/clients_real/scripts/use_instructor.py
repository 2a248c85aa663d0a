"""Instructor: answers as objects of a class, in its default mode (tools) and in its others."""

from __future__ import annotations

from typing import Any, Literal

import instructor
from common import ADDRESSES, main
from openai import OpenAI
from pydantic import BaseModel

ASKED: Any = [{"role": "user", "content": "Which city is the capital of France? Paris or Rome?"}]
MODES = ("TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "RESPONSES_TOOLS")  # JSON sends no schema: it is up to the model


class Place(BaseModel):
    """A city."""

    city: Literal["Paris", "Rome"]
    large: bool


def client(**more: Any) -> Any:
    return instructor.from_openai(OpenAI(base_url=ADDRESSES["OPENAI"], api_key="none", max_retries=0), **more)


def objects() -> dict[str, Any]:
    ask: Any = {"model": "triune", "messages": ASKED, "response_model": Place, "temperature": 0, "max_retries": 0}
    found = {"default": client().chat.completions.create(**ask).model_dump()}
    for name in MODES:
        found[name] = client(mode=getattr(instructor.Mode, name)).chat.completions.create(**ask).model_dump()
    return found


def partial() -> dict[str, Any]:
    ask: Any = {"model": "triune", "messages": ASKED, "response_model": Place, "temperature": 0, "max_retries": 0}
    pieces = [piece.model_dump() for piece in client().chat.completions.create_partial(**ask)]
    return {"pieces": len(pieces), "last": pieces[-1], "whole": client().chat.completions.create(**ask).model_dump()}


main(objects, partial)
