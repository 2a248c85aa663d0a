"""The endpoints, a file each: path, schema, what is asked of the server, and what the answer looks like.

To add one: its file, and its row here.
"""

from __future__ import annotations

from . import chat, completions, health, messages, metrics, models, responses, tokens
from .endpoint import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    chat.ENDPOINT,
    completions.ENDPOINT,
    responses.CREATE,
    responses.ONE,
    responses.FORGET,
    responses.INPUT_ITEMS,
    responses.CANCEL,
    messages.ENDPOINT,
    messages.COUNT_TOKENS,
    tokens.TOKENIZE,
    tokens.DETOKENIZE,
    models.LIST,
    models.ONE,
    health.READY,
    health.READY_TOO,
    health.LIVE,
    health.DEEP,
    metrics.ENDPOINT,
)
