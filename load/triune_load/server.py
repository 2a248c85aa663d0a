"""What is found out about a server before a load: its models, which fields it takes, what its answers promise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import httpx

from .core.answer import Answer
from .core.checks import Promises
from .core.metrics_text import held, parse_metrics
from .core.request import Request
from .driver import Clock, Driver, Limits
from .errors import LoadError
from .protocols.adapter import Dialect
from .protocols.table import PROTOCOLS
from .settings import Target
from .transports.http import HttpTransport
from .transports.transport import Transport

_TRIES = 3  # of the first request, for a fault that comes and goes


@dataclass(frozen=True)
class Found:
    """A server that answers."""

    dialect: Dialect
    promises: Promises
    reuse: bool  # of connections


def make_transport(target: Target, dialect: Dialect, clock: Clock, *, reuse: bool = True) -> Transport:
    """The transport for a target's protocol.

    Raises:
        LoadError: the URL is wrong, or an extra is not installed.
    """
    info = PROTOCOLS[target.protocol]
    if info.adapter is not None:
        return HttpTransport(
            target.url, info.adapter(dialect), headers=target.headers, trust=target.trust, reuse=reuse, now=clock.now
        )
    from .transports.grpc import GrpcTransport

    return GrpcTransport(
        target.url, dialect, streams=info.streams, headers=target.headers, trust=target.trust, now=clock.now
    )  # fmt: skip


async def look_at(target: Target, clock: Clock, *, chat: bool) -> Found:
    """Asks a server once, and what it takes of the fields that not every server knows.

    Raises:
        LoadError: it does not answer.
    """
    model = target.model or PROTOCOLS[target.protocol].model or await first_model(target)
    full = Dialect(
        model=model, extra=target.extra, running_usage=target.running_usage, perf_metrics=target.perf_metrics,
        sampling=target.sampling,
    )  # fmt: skip
    plain = replace(full, running_usage=False, perf_metrics=False)
    request = Request(
        identity="load-probe", part="probe", messages=({"role": "user", "content": "Count from one to ten."},), chat=chat,
        max_tokens=8, temperature=0.0, seed=0,
    )  # fmt: skip
    answer = None
    for dialect in (full, plain, replace(plain, sampling=False)):
        for _ in range(_TRIES):
            answer, reuse = await _ask(target, dialect, clock, request)
            if answer.failure is None:
                marked = answer.dones > 0
                return Found(dialect, Promises.of(answer, marked=marked), reuse)
            if answer.failure.kind == "refused":
                break  # it does not take a field, perhaps
    assert answer is not None and answer.failure is not None
    raise LoadError(
        f"{target.url} does not answer {PROTOCOLS[target.protocol].about}: {answer.failure.kind}: {answer.failure.message}",
        "see that the server runs, and that --url, --protocol and --model are right",
    )


async def _ask(target: Target, dialect: Dialect, clock: Clock, request: Request) -> tuple[Answer, bool]:
    transport = make_transport(target, dialect, clock)
    driver = Driver(transport, clock, Limits(timeout_s=30.0), streams=PROTOCOLS[target.protocol].streams, ended=lambda _: None)
    try:
        return await driver.one(request), await transport.stays_open()
    finally:
        await transport.close()


async def first_model(target: Target) -> str:
    """The first model that an OpenAI-compatible server lists.

    Raises:
        LoadError: it lists none.
    """
    url = f"{target.url.rstrip('/').removesuffix('/v1')}/v1/models"
    try:
        async with httpx.AsyncClient(timeout=10.0, trust_env=False, verify=target.trust.context) as client:
            reply = await client.get(url, headers=dict(target.headers), extensions=target.trust.extensions)
        return str(reply.json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise LoadError(f"{url} names no model: {error!r:.200}", "is the server up? Name the model with --model") from None


async def held_requests(target: Target) -> float | None:
    """Requests that the server holds by its own metrics; None if it does not say."""
    if not target.metrics_url:
        return None
    try:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False, verify=target.trust.context) as client:
            return held(parse_metrics((await client.get(target.metrics_url, extensions=target.trust.extensions)).text))
    except httpx.HTTPError:
        return None
