"""What is asked: parts of several kinds, drawn by weight. Every request follows from the seed and its number alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import LoadError
from .lengths import Lengths, parse_lengths
from .prompts import Prompt, made_up
from .request import Message, Request

KINDS = ("text", "chat", "json", "tools")
_PROMPT, _ANSWER = Lengths("fixed", (128.0,)), Lengths("fixed", (64.0,))
_AT_ONCE, _EARLY, _SLOWLY = Lengths("fixed", (0.0,)), Lengths("uniform", (0.0, 16.0)), Lengths("fixed", (0.05,))
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 16}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of request of a workload."""

    name: str = "main"
    weight: float = 1.0
    kind: str = "chat"
    input_tokens: Lengths = _PROMPT
    output_tokens: Lengths = _ANSWER
    prompts: Sequence[Prompt] = ()  # asked in turn, instead of made-up ones
    prefix_tokens: int = 0  # of a text that many requests begin with
    prefixes: int = 1  # how many such texts
    turns: int = 1  # of a conversation
    think: Lengths = _AT_ONCE  # seconds between an answer and the next turn
    temperature: float = 0.0
    ignore_eos: bool = False
    repeats: float = 0.1  # share of greedy requests that were asked before, to compare the answers
    repeated: int = 2  # different ones among them
    cancel: float = 0.0  # share that the client leaves
    cancel_after: Lengths = _EARLY  # chunks
    slow: float = 0.0  # share of slow readers
    read_delay: Lengths = _SLOWLY  # seconds after every chunk
    schema: Mapping[str, Any] = field(default_factory=lambda: SCHEMA)
    tools: tuple[Mapping[str, Any], ...] = (TOOL,)

    def __post_init__(self) -> None:
        """Raises:
        LoadError: a setting is out of its range.
        """
        if self.kind not in KINDS:
            raise LoadError(f"kind is {self.kind!r}; expected one of {', '.join(KINDS)}")
        for name in ("repeats", "cancel", "slow"):
            if not 0 <= getattr(self, name) <= 1:
                raise LoadError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1")
        for name, least in (("turns", 1), ("prefixes", 1), ("prefix_tokens", 0), ("repeated", 1), ("weight", 0)):
            if getattr(self, name) < least:
                raise LoadError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if self.turns > 1 and self.kind != "chat":
            raise LoadError(f"turns is {self.turns} and kind is {self.kind!r}; expected kind chat with several turns")


@dataclass(frozen=True)
class Turn:
    """A request that is asked once the turns before it are answered."""

    request: Request
    wait_s: float  # after the answer before it


@dataclass(frozen=True)
class Session:
    """A request, or a conversation of several."""

    turns: tuple[Turn, ...]

    def request(self, turn: int, history: Sequence[Message]) -> Request:
        """The request of a turn, after what has been said."""
        asked = self.turns[turn].request
        return replace(asked, messages=(*history, *asked.messages)) if history else asked


class Workload:
    """All requests of a run, by number."""

    def __init__(self, parts: Sequence[Part], *, seed: int = 0, name: str = "load") -> None:
        """`name` begins the ids of requests.

        Raises:
            LoadError: there is no part, or none has a weight.
        """
        if not parts or not sum(part.weight for part in parts) > 0:
            raise LoadError("the workload has no part; expected one with a weight above 0")
        self.parts, self.seed, self._name = tuple(parts), seed, name
        self._weights = [part.weight for part in parts]

    def session(self, number: int, *, lengths: tuple[int, int] | None = None) -> Session:
        """The session of this number; `lengths`, of prompt and answer in tokens, are a trace's."""
        rng = random.Random(f"{self.seed}/{number}")
        (part,) = rng.choices(self.parts, self._weights)
        identity = f"{self._name}-{number}"
        if lengths is None and part.turns == 1 and rng.random() < part.repeats:
            request = self._repeat(part, rng.randrange(part.repeated), identity)
            return Session((Turn(self._manners(part, request, rng), 0.0),))
        turns = []
        for turn in range(part.turns):
            request = self._request(part, rng, number, f"{identity}-{turn}" if part.turns > 1 else identity, lengths)
            if turn:
                request = replace(request, messages=request.messages[-1:])  # the shared prefix was in the first turn
            turns.append(Turn(self._manners(part, request, rng), part.think.draw(rng) if turn else 0.0))
        return Session(tuple(turns))

    def repeats(self) -> Iterator[Request]:
        """Every request that comes again and again, whole: to ask once without a stream, for the answer to expect."""
        for part in self.parts:
            if part.repeats and part.turns == 1 and part.weight:
                for which in range(part.repeated):
                    request = self._repeat(part, which, f"{self._name}-whole-{part.name}-{which}")
                    yield replace(request, stream=False)

    def _repeat(self, part: Part, which: int, identity: str) -> Request:
        rng = random.Random(f"{self.seed}/repeat/{part.name}/{which}")
        request = self._request(part, rng, which, identity, None)
        return replace(request, temperature=0.0, seed=0, repeat=f"{part.name}-{which}")

    def _request(self, part: Part, rng: random.Random, number: int, identity: str, lengths: tuple[int, int] | None) -> Request:
        input_tokens, output_tokens = lengths or (part.input_tokens.draw_tokens(rng), part.output_tokens.draw_tokens(rng))
        messages: tuple[Message, ...]
        if part.prompts:
            prompt = part.prompts[number % len(part.prompts)]
            messages = prompt.messages
            output_tokens = prompt.max_tokens or output_tokens
        else:
            messages = ({"role": "user", "content": made_up(rng, input_tokens)},)
        if part.prefix_tokens:
            which = rng.randrange(part.prefixes)
            prefix = made_up(random.Random(f"{self.seed}/prefix/{part.name}/{which}"), part.prefix_tokens)
            messages = ({"role": "system", "content": prefix}, *messages)
        return Request(
            identity=identity, part=part.name, messages=messages, chat=part.kind != "text", max_tokens=output_tokens,
            temperature=part.temperature, seed=rng.randrange(1 << 31), ignore_eos=part.ignore_eos,
            schema=part.schema if part.kind == "json" else None, tools=part.tools if part.kind == "tools" else (),
        )  # fmt: skip

    @staticmethod
    def _manners(part: Part, request: Request, rng: random.Random) -> Request:
        """The request with how its client behaves."""
        leaves, slow = rng.random() < part.cancel, rng.random() < part.slow
        return replace(
            request,
            cancel_after=int(part.cancel_after.draw(rng)) if leaves else None,
            read_delay_s=part.read_delay.draw(rng) if slow else 0.0,
        )


_LENGTHS = ("input_tokens", "output_tokens", "think", "cancel_after", "read_delay")


def part_of(raw: Mapping[str, Any], *, prompts: Sequence[Prompt] = ()) -> Part:
    """The part that a table of a workload file, or the command line, describes.

    Raises:
        LoadError: a name is unknown, or a value is out of its range.
    """
    known = set(Part.__dataclass_fields__) - {"prompts"}
    if unknown := set(raw) - known:
        raise LoadError(f"a part of the workload has {', '.join(sorted(unknown))}; expected {', '.join(sorted(known))}")
    made: dict[str, Any] = dict(raw)
    for name in _LENGTHS:
        if name in made:
            made[name] = parse_lengths(str(made[name]), name)
    if "tools" in made:
        made["tools"] = tuple(made["tools"])
    try:
        return Part(**made, prompts=tuple(prompts))
    except TypeError as error:
        raise LoadError(f"a part of the workload has a value of the wrong type: {error}") from None
