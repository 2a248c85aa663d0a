"""What came back: events of a protocol gathered into an answer, with their times. Nothing is judged here."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from .failures import of_message
from .request import Request

UNKNOWN = -1  # tokens of a chunk that says none


@dataclass(slots=True)
class CallPiece:
    """A piece of a tool call."""

    index: int
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Event:
    """One event of a stream, or a whole answer, in no protocol's terms."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()
    tokens: int | None = None  # that are new with this event
    total: int | None = None  # so far, where the server counts so instead
    index: int | None = None  # the server's number of this chunk
    finish: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None  # of the whole answer, from its end
    total_tokens: int | None = None  # prompt and answer, where the server adds them up
    identity: str | None = None  # which answer this belongs to
    done: bool = False  # the protocol's own end of a stream
    error: str | None = None
    queue_s: float | None = None  # that the request waited, by the server


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no whole answer."""

    kind: str  # one of `core.failures.KINDS`
    message: str


@dataclass(slots=True, eq=False)
class Answer:
    """A request and what became of it. Times are of the run's clock, in seconds."""

    request: Request
    intended: float  # when it should have been sent
    started: float = 0.0  # when the tool got to it
    sent: float = 0.0  # when it was on its way: a connection may have had to be opened
    ended: float = 0.0
    times: array[float] = field(default_factory=lambda: array("d"))  # of chunks that brought something
    tokens: array[int] = field(default_factory=lambda: array("i"))  # new ones in each; `UNKNOWN`
    sizes: array[int] = field(default_factory=lambda: array("i"))  # characters in each
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: dict[int, CallPiece] = field(default_factory=dict)
    indices: array[int] = field(default_factory=lambda: array("i"))
    identities: dict[str, None] = field(default_factory=dict)  # in order
    finish: str | None = None
    finishes: int = 0
    dones: int = 0
    after_end: int = 0  # chunks with text after a finish reason, and anything after the end
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    queue_s: float | None = None
    seen: float = 0.0  # when anything came last
    longest_silence_s: float = 0.0  # between two events
    malformed: list[tuple[str, str]] = field(default_factory=list)  # check, what was wrong: seen by the decoder
    failure: Failure | None = None
    cancelled: bool = False  # by this client, as planned
    closed: bool = False  # the connection's own end was in order

    def take(self, at: float, event: Event) -> None:
        """The next event."""
        self.longest_silence_s = max(self.longest_silence_s, at - (self.seen or self.sent))
        self.seen = at
        if self.dones:
            self.after_end += 1
        brought = len(event.text) + len(event.reasoning) + sum(len(c.arguments) + len(c.name) for c in event.calls)
        new = event.tokens
        if event.total is not None:
            new = event.total - sum(self.tokens)
            if new < 0:
                self.malformed.append(("counts", f"the count of tokens went back to {event.total}"))
                new = 0
        if brought or new:
            if self.finish is not None and brought:
                self.after_end += 1
            self.times.append(at)
            self.tokens.append(UNKNOWN if new is None else new)
            self.sizes.append(brought)
        if event.text:
            self.texts.append(event.text)
        if event.reasoning:
            self.thoughts.append(event.reasoning)
        for piece in event.calls:
            call = self.calls.setdefault(piece.index, CallPiece(piece.index))
            call.name += piece.name
            call.arguments += piece.arguments
        self._note(event)

    def _note(self, event: Event) -> None:
        if event.index is not None:
            self.indices.append(event.index)
        if event.identity:
            self.identities[event.identity] = None
        if event.finish is not None:
            self.finish = event.finish
            self.finishes += 1
        if event.done:
            self.dones += 1
        for name in ("input_tokens", "output_tokens", "total_tokens", "queue_s"):
            if (value := getattr(event, name)) is not None:
                setattr(self, name, value)
        if event.error is not None and self.failure is None:
            self.failure = Failure(of_message(event.error), event.error[:300])

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def whole(self) -> bool:
        """It came to its end: neither failed nor left."""
        return self.failure is None and not self.cancelled

    @property
    def content(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """All that greedy repeats must have in common."""
        calls = tuple((call.name, call.arguments) for _, call in sorted(self.calls.items()))
        return self.text, "".join(self.thoughts), calls

    @property
    def token_count(self) -> int:
        """Tokens of the answer: what the server said, else what its chunks said, else a token for each chunk."""
        if self.output_tokens is not None:
            return self.output_tokens
        return sum(1 if n == UNKNOWN else n for n in self.tokens)

    def tokens_of_chunks(self) -> list[int]:
        """Tokens of each chunk; where the server does not say, the answer's tokens by the length of the chunks."""
        if UNKNOWN not in self.tokens:
            return list(self.tokens)
        total, chunks = self.token_count, len(self.tokens)
        if total == chunks:
            return [1] * chunks
        shares, seen, given, size = [], 0, 0, max(1, sum(self.sizes))
        for one in self.sizes:
            seen += one
            upto = round(total * seen / size)
            shares.append(upto - given)
            given = upto
        return shares
