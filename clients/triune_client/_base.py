"""What all four clients share and no socket is needed for: settings, and turning arguments into a flow."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Sequence
from typing import Any, Self, Unpack

from ._flow import Flow
from ._options import ClientParams, Message, Options, Settings, check_token_ids
from ._several import GroupFlow
from ._wire import Call


class ClientBase:
    """A server's URL and the settings of calls to it."""

    def __init__(
        self, url: str, *, model: str, timeout_s: float | None, deadline_s: float | None, max_retries: int,
        options: Options | None,
    ) -> None:  # fmt: skip
        self.url = url.rstrip("/")
        self.settings = Settings(
            model=model,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            max_retries=max_retries,
            options=options or Options(),
        )
        self._owns_connections = True
        self._closed = threading.Event()  # shared with derived clients, as the connections are

    def with_options(self, **changes: Unpack[ClientParams]) -> Self:
        """A client with other settings or default options, on the connections of this one.

        Closing the derived client closes nothing.

        Raises:
            TypeError: an unknown name, or a value of the wrong type.
            ValueError: a value out of range.
        """
        derived = copy.copy(self)
        derived.settings = self.settings.derive(changes)
        derived._owns_connections = False
        return derived

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, model={self.settings.model!r})"

    def _flow_of_prompt(self, prompt: str | Sequence[int], params: Any, *, whole: bool = False) -> Flow:
        return _flow(self._call_of_prompt(prompt, params), whole=whole)

    def _flow_of_chat(self, messages: str | Sequence[Message], params: Any, *, whole: bool = False) -> Flow:
        return _flow(self._call_of_chat(messages, params), whole=whole)

    def _call_of_prompt(self, prompt: str | Sequence[int], params: Any) -> Call:
        if isinstance(prompt, bytes) or not isinstance(prompt, str | Sequence):
            raise TypeError(f"prompt is a {type(prompt).__name__}; expected a str or token ids (for a conversation, use chat)")
        if not isinstance(prompt, str):
            prompt = check_token_ids("prompt", prompt)
        return self._call(params, prompt=prompt, messages=None)

    def _call_of_chat(self, messages: str | Sequence[Message], params: Any) -> Call:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return self._call(params, prompt=None, messages=messages)

    def _call(self, params: dict[str, Any], *, prompt: str | Sequence[int] | None, messages: Sequence[Message] | None) -> Call:
        changes = dict(params)
        request_id = changes.pop("request_id", None) or uuid.uuid4().hex
        settings = self.settings.derive(changes)
        return Call(request_id=request_id, settings=settings, prompt=prompt, messages=messages)


def _flow(call: Call, *, whole: bool) -> Flow:
    if (n := call.settings.options.n or 1) == 1:
        return Flow(call)
    if whole:
        raise ValueError(f"n is {n}, but one answer is returned here; use stream or stream_chat, which have all in completions")
    return GroupFlow(call)
