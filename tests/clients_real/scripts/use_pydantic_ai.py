"""Pydantic AI, against each of the three protocols that it speaks."""

from __future__ import annotations

import asyncio
from typing import Any

from common import ADDRESSES, QUESTION, main
from pydantic import BaseModel
from pydantic_ai import Agent, ModelSettings
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

OPENAI = OpenAIProvider(base_url=ADDRESSES["OPENAI"], api_key="none")
ANTHROPIC = AnthropicProvider(base_url=ADDRESSES["OPENAI"].removesuffix("/v1"), api_key="none")
MODELS = {
    "responses": OpenAIResponsesModel("triune", provider=OPENAI),
    "chat": OpenAIChatModel("triune", provider=OPENAI),
    "messages": AnthropicModel("triune", provider=ANTHROPIC),
}


GREEDY = ModelSettings(temperature=0)


class City(BaseModel):
    city: str


def agent() -> dict[str, Any]:
    return asyncio.run(_agent())


async def _agent() -> dict[str, Any]:
    found = {}
    for name, model in MODELS.items():
        whole = await Agent(model, model_settings=GREEDY).run(QUESTION)
        async with Agent(model, model_settings=GREEDY).run_stream(QUESTION) as stream:
            streamed = await stream.get_output()
        more = await Agent(model, model_settings=GREEDY).run("And of Spain?", message_history=whole.all_messages())
        typed = await Agent(model, output_type=City, model_settings=GREEDY).run(QUESTION)
        found[name] = {"text": whole.output, "streamed": streamed, "more": more.output, "city": typed.output.city}
    return found


main(agent)
