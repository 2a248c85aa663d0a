"""The terminal chat: a conversation of many turns, its commands, what ctrl-C means. Knows no socket and no colour."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ._errors import ConnectError, TriuneError
from ._options import Message
from ._sync import Stream, SyncClient
from ._terminal import Terminal
from ._types import Completion

HELP = """\
/system TEXT   set the system message and start over (without TEXT: remove it)
/think on|off  have the model think before it answers, or not; auto: as it does by itself
/think N       at most N tokens of thinking
/reset         forget the conversation
/help          this list
ctrl-C         during an answer: cancel it; at the prompt: leave
ctrl-D         leave"""


_THINKING = {"on": True, "off": False, "auto": None}
_MOST_TOKENS = 2**31 - 1


class Chat:
    """One conversation with a model, on a terminal."""

    def __init__(self, client: SyncClient, terminal: Terminal, *, system: str | None = None) -> None:
        self._client = client
        self._terminal = terminal
        self._system = system
        self.messages: list[Message] = []
        self._reset()

    def run(self) -> None:
        """Reads lines and answers them until the user leaves."""
        self._terminal.note(f"{self._client.settings.model} at {self._client.url}; /help lists the commands")
        while True:
            try:
                line = self._terminal.read().strip()
            except (EOFError, KeyboardInterrupt):
                self._terminal.note("")
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._turn(line)

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name == "/help":
            self._terminal.note(HELP)
        elif name == "/think":
            self._think(rest.strip())
        elif name == "/reset":
            self._reset()
            self._terminal.note("the conversation is forgotten")
        elif name == "/system":
            self._system = rest.strip() or None
            self._reset()
            self._terminal.note("the system message is set" if self._system else "the system message is removed")
        else:
            self._terminal.error(f"no command {name}; /help lists them")

    def _think(self, choice: str) -> None:
        if choice in _THINKING:
            # A budget is of no use to who says on, off or auto: it ends with the choice that it was made for.
            self._client = self._client.with_options(enable_thinking=_THINKING[choice], thinking_budget=None)
            self._terminal.note(f"thinking is {choice}")
        elif choice.isdecimal() and int(choice) <= _MOST_TOKENS:
            self._client = self._client.with_options(thinking_budget=int(choice))
            self._terminal.note(f"at most {int(choice)} tokens of thinking")
        else:
            self._terminal.error(f"/think {choice}: on, off, auto or a number of tokens is expected".replace("  ", " "))

    def _reset(self) -> None:
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def _turn(self, line: str) -> None:
        self.messages.append({"role": "user", "content": line})
        answer = reasoning = ""
        try:
            completion = show(self._client.stream_chat(self.messages), self._terminal)
            answer, reasoning = completion.text, completion.reasoning
            self._terminal.note(summary(completion))
        except (TriuneError, ValueError) as error:  # ValueError: a line that is not text, such as a lone surrogate
            answer = getattr(error, "partial", "")
            self._terminal.error(explain(error))
        # An answer without text is no turn: the user's line is taken back with it.
        if answer:
            turn: Message = {"role": "assistant", "content": answer}
            self.messages.append({**turn, "reasoning_content": reasoning} if reasoning else turn)
        else:
            self.messages.pop()


def show(stream: Stream, terminal: Terminal) -> Completion:
    """Shows an answer, and the thinking before it, as they come. Ctrl-C cancels it and keeps what came.

    Raises:
        TriuneError: the call failed; what came before has been shown.
    """
    try:
        with _interruptible() as check, stream:
            with terminal.waiting():
                chunk = next(stream, None)
            while chunk is not None:
                check()
                if chunk.is_reasoning:
                    terminal.thought(chunk.reasoning)
                elif chunk.text:
                    if stream.reasoning and stream.text == chunk.text:
                        terminal.thought("\n\n")  # the thinking ends here
                    terminal.piece(chunk.text)
                chunk = next(stream, None)
    finally:
        if stream.text and not stream.text.endswith("\n"):
            terminal.piece("\n")
        elif stream.reasoning and not stream.text:
            terminal.thought("\n")
    return stream.completion


def summary(completion: Completion) -> str:
    """One line about an answer: tokens, speed, time to the first token, and how it ended if not by itself."""
    usage = completion.usage
    thinking = f", {usage.reasoning_tokens} of them thinking" if usage.reasoning_tokens else ""
    parts = [f"{usage.input_tokens} tokens in, {usage.output_tokens} out{thinking}"]
    if completion.tokens_per_second is not None:
        parts.append(f"{completion.tokens_per_second:.0f} tokens/s")
    if completion.time_to_first_token_s is not None:
        parts.append(f"first token after {completion.time_to_first_token_s * 1000:.0f} ms")
    if completion.finish_reason != "stop":
        parts.append({"length": "cut at max tokens"}.get(completion.finish_reason, completion.finish_reason))
    return " · ".join(parts)


def explain(error: Exception) -> str:
    """One sentence about an error, with what to do about it where that is known."""
    if isinstance(error, ConnectError):
        where = error.message.partition(": ")[0]  # "nothing answers at URL"
        return f"{where}: start it with `make up`, or name another server with --url"
    return str(error)


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C inside ends the block and not the program. The function it gives raises a KeyboardInterrupt that got lost.

    The interpreter drops exceptions that are raised inside a destructor or a callback, this one too.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, press) if is_main else None  # only the main thread may
    try:
        yield check
    except KeyboardInterrupt:
        return  # the stream around it is closed by now: the answer is cancelled, the program goes on
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)
