"""What the endpoints of one gateway share: its settings, its client of the server behind, and its counts."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request

from triune_client import TriuneError

from .answering import Answer, TextClient
from .calls import Call
from .errors import ApiError
from .gates import Gates
from .intake import Intake
from .metrics import Metrics
from .responses.store import Store
from .room import Room
from .routes import Routes
from .settings import Settings
from .shapes import AnswerShape
from .tracing import Tracer
from .trial import Trial

_PATIENCE_S = 2.0  # for what an answer can do without


class Serving:
    """One gateway at work; of each request a copy, whose client is that of the model which was asked for."""

    client: TextClient  # while the application runs

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = int(time.time())
        self.metrics = Metrics()
        self.routes = Routes(settings)
        self.intake = Intake(settings.draining_file)
        self.gates = Gates(room=Room.of_environment())
        self.trial = Trial()
        self.tracer = None if settings.otlp is None else Tracer(settings.otlp)
        self.responses = Store(
            most=settings.max_responses, most_bytes=settings.max_responses_bytes, file=settings.responses_file
        )

    def check_model(self, name: str) -> None:
        """Check that a model is served under a name, and go on with that model.

        Raises:
            ApiError: none is.
        """
        routes = self.routes.known()
        if name not in routes:
            known = ", ".join(routes)
            raise ApiError(404, f"The model '{name}' does not exist; served here: {known}.", code="model_not_found")
        if routes[name].ensemble != self.settings.model:
            self.client = self.client.with_options(model=routes[name].ensemble, tokenizer=routes[name].tokenizer)

    async def max_model_len(self) -> int | None:
        """Most tokens of a prompt and its answer together, of the model checked last; None while the server cannot say."""
        try:
            return (await asyncio.wait_for(self.client.tokenize((0,)), _PATIENCE_S)).max_length
        except (TriuneError, TimeoutError):
            return None

    def answer(self, calls: Sequence[Call], shape: AnswerShape, *, stream: bool) -> Answer:
        """The answer that these calls make, which they do when it is sent."""
        return Answer(self.client, calls, shape, self.metrics, self.intake, self.gates, stream=stream)


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return copy.copy(serving)


Served = Annotated[Serving, Depends(_serving)]  # how an endpoint asks for it
