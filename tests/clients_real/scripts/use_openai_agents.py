"""OpenAI's agents' kit, against /v1/responses, which it uses unless it is told otherwise."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from common import ADDRESSES, QUESTION, main
from openai import AsyncOpenAI

set_tracing_disabled(True)
MODEL = OpenAIResponsesModel("triune", AsyncOpenAI(base_url=ADDRESSES["OPENAI"], api_key="none", max_retries=0))
ASKED: list[str] = []


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    ASKED.append(city)
    return f"It is sunny in {city}, 18 degrees."


def agent() -> dict[str, Any]:
    return asyncio.run(_agent())


async def _agent() -> dict[str, Any]:
    plain = Agent(name="plain", model=MODEL, model_settings=ModelSettings(temperature=0))
    whole = await Runner.run(plain, QUESTION)
    stream = Runner.run_streamed(plain, QUESTION)
    pieces = [
        event.data.delta
        async for event in stream.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    more = await Runner.run(plain, "And of Spain?", previous_response_id=whole.last_response_id)
    return {"text": whole.final_output, "pieces": pieces, "streamed": stream.final_output, "more": more.final_output}


def tools() -> dict[str, Any]:
    return asyncio.run(_tools())


async def _tools() -> dict[str, Any]:
    settings = ModelSettings(max_tokens=150, temperature=0, tool_choice="required")
    asking = Agent(name="asking", instructions="Answer briefly.", model=MODEL, tools=[weather], model_settings=settings)
    found: dict[str, Any] = {}
    for name, kept in (("sent", False), ("kept", True)):
        whole = await Runner.run(asking, "Weather in Paris?", auto_previous_response_id=kept)
        stream = Runner.run_streamed(asking, "Weather in Paris?", auto_previous_response_id=kept)
        items = [event.name async for event in stream.stream_events() if event.type == "run_item_stream_event"]
        found[name] = {"text": whole.final_output, "streamed": stream.final_output, "items": items}
    return found | {"asked": ASKED}


main(agent, tools)
