"""Everything a request asks for besides its prompt, as JSON between the steps. Reads no inputs: that is parsing.py."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ..errors import RequestError
from ..request import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything a request asks for besides its prompt."""

    params: SamplingParams = field(default_factory=SamplingParams)
    stream: bool = False
    timeout_s: float | None = None
    echo: bool = False  # the prompt comes before the answer
    cancel: bool = False  # not a request: ends the one with the same id
    batched: bool = False  # the client's tensors have a batch dimension, and so must the indices it gets
    n: int = 1  # answers that come back
    best_of: int = 1  # answers that are made; those with the best cumulative log probability come back
    timed: bool = False  # say when things happened
    vllm: bool = False  # log probabilities, finish reasons and several answers as vLLM gives them
    prompt_tokens: int | None = None  # of the prompts behind each other in one tensor, this one's; None: it has all
    request_id: str = ""  # where the client could only send it as a parameter (HTTP's generate)
    enable_thinking: bool | None = None  # None: as the model's template does by itself
    separate_reasoning: bool | None = None  # None: for messages, not for a raw prompt
    thinking_open: bool = False  # the prompt holds the opening marker; tokenize finds that out
    tool_format: str = ""  # how the answer's tool calls are written, if it may have any

    def to_json(self) -> str:
        """Compact JSON; defaults are left out."""
        return json.dumps({"params": _changed(self.params)} | _changed(self, skip="params"), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Options:
        """What `to_json` wrote.

        Raises:
            RequestError: anything else.
        """
        try:
            raw = json.loads(text)
            if not isinstance(raw, dict) or not isinstance(raw.get("params", {}), dict):
                raise TypeError("an object is expected, and in it one of the name params")
            params = raw.pop("params", {})
            tupled = {k: _tupled(v) for k, v in params.items()}
            return cls(params=SamplingParams(**tupled), **raw)
        except (ValueError, TypeError, AttributeError) as error:
            said, hint = f"options {text[:200]!r} cannot be read: {error}", "send the JSON that tokenize gives"
            raise RequestError(said, hint, code="invalid_value", param="options") from None


def _changed(value: Any, skip: str = "") -> dict[str, Any]:
    fields = [f for f in dataclasses.fields(value) if f.name != skip]
    return {f.name: getattr(value, f.name) for f in fields if getattr(value, f.name) != f.default}


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
