"""What the endpoints of one gateway share: its settings, its client of the server behind, and its counts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request

from .answering import Answer, TextClient
from .calls import Call
from .errors import ApiError
from .metrics import Metrics
from .routes import Routes
from .settings import Settings
from .shapes import Shape


class Serving:
    """One gateway at work; of each request a copy, whose client is that of the model which was asked for."""

    client: TextClient  # while the application runs

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.routes = Routes(settings)

    def check_model(self, name: str) -> None:
        """Check that a model is served under a name, and go on with that model.

        Raises:
            ApiError: none is.
        """
        ensembles = self.routes.ensembles()
        if name not in ensembles:
            known = ", ".join(ensembles)
            raise ApiError(404, f"The model '{name}' does not exist; served here: {known}.", code="model_not_found")
        if ensembles[name] != self.settings.model:
            self.client = self.client.with_options(model=ensembles[name])

    def answer(self, calls: Sequence[Call], shape: Shape, *, stream: bool) -> Answer:
        """The answer that these calls make, which they do when it is sent."""
        return Answer(self.client, calls, shape, self.metrics, stream=stream)


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return copy.copy(serving)


Served = Annotated[Serving, Depends(_serving)]  # how an endpoint asks for it
