"""Gateways over a stand-in for the server. Run: pytest tests/gateway"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fakes.ensemble import Ensemble, Gateway
from triune_gateway.settings import Settings


@pytest.fixture
def ensemble() -> Ensemble:
    return Ensemble()


@pytest.fixture
def start(ensemble: Ensemble) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways with settings of a test's own."""
    begun: list[Gateway] = []

    def make(**settings: Any) -> Gateway:
        gateway = Gateway(ensemble, Settings(**settings))
        gateway.http.__enter__()
        begun.append(gateway)
        return gateway

    yield make
    for gateway in begun:
        gateway.http.__exit__(None, None, None)


@pytest.fixture
def gateway(start: Callable[..., Gateway]) -> Gateway:
    return start()
