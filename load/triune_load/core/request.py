"""A request as the run plans it: what is asked for and how the client will behave. No protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, complete."""

    identity: str  # sent to servers that take an id; no two of a run are equal
    part: str  # of the workload
    messages: tuple[Message, ...]  # at least one; the last is what is asked now
    chat: bool  # through the model's own template; else the text of the messages is continued
    max_tokens: int
    temperature: float
    seed: int
    stream: bool = True
    repeat: str | None = None  # greedy requests of one name must get one answer
    schema: Mapping[str, Any] | None = None  # of the answer
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "required"
    ignore_eos: bool = False
    cancel_after: int | None = None  # chunks after which the client leaves; 0: at once
    read_delay_s: float = 0.0  # of a slow reader, after every chunk

    @property
    def text(self) -> str:
        """The messages as one text, for protocols without any."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n".join(f"{m['role']}: {m['content']}" if m["role"] != "system" else m["content"] for m in self.messages)
