"""Guides -> constraints: with `beside.py` all that speaks to llguidance. Imported when the first guide comes, not before."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import llguidance
import numpy as np
from llguidance.gbnf_to_lark import gbnf_to_lark

from ..text.vocabulary import TokenBytes
from .beside import NICEST, Beside
from .bits import Bits, places, words
from .guide import Guide
from .pool import Job, Lane, Pool
from .telling import FAILED, refusal, shown

LOG = logging.getLogger(__name__)
TOKEN_SECONDS, ANSWER_SECONDS = 5.0, 60.0  # what an answer may wait for its grammar: once, and in all
_USUAL_SECONDS = 0.02  # of each wait, what does not count for the sum
_SLOW_SECONDS = 0.005  # for what may come next; after more than that the next one is worked out with what others leave over
# Of a grammar: beyond these its tokens are taken in beside. That costs 20 us a token; otherwise one may keep others for 130 ms.
_HEAVY_COMPILE_S, _HEAVY_TOKEN_S = 0.02, 0.001
# The library's own measures of work: a grammar compiles within a second or two, and a mask of most takes 15 ms at the most.
# Some take seconds all the same.
_LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=20_000,  # of 1 to 2 kB, kept as long as the guide is
    max_grammar_size=200_000,
    verbose_errors=False,
)
# The library would force the one tokenization of a text that its copy of the tokenizer gives; the model chooses its own.
_FREE_TOKENS = '\n%llguidance {"no_forcing": true}\n'


@dataclass(frozen=True)
class Beginnings:
    """The tokens that have other bytes at the beginning of a text, and the made up ones that have these bytes everywhere."""

    made_up: dict[int, int]

    def move(self, bits: Bits) -> None:
        """Let each of the tokens come where the one that is made up for it may."""
        each = np.unpackbits(bits.view(np.uint8), bitorder="little")
        each[list(self.made_up)] = each[list(self.made_up.values())]
        bits[:] = np.packbits(each, bitorder="little").view(np.uint32)


@dataclass(frozen=True, slots=True)
class Found:
    """What the library says of one state of a matcher."""

    bits: Bits  # of its own vocabulary: see `_Vocabulary`
    accepting: bool  # the answer may end here
    stopped: bool  # and must
    error: str  # empty: none

    @classmethod
    def of(cls, matcher: llguidance.LLMatcher, size: int, beside: Beside | None = None) -> Found:
        """Work it out.

        Args:
            size: tokens of the library's vocabulary.
            beside: where; None: here.
        """
        if beside is not None:
            bits = beside.mask(matcher, size)
        else:
            bits = np.zeros(words(size), np.uint32)
            matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        if matcher.is_error():
            return cls(bits, accepting=False, stopped=True, error=shown("grammar", matcher.get_error()))
        return cls(bits, matcher.is_accepting(), matcher.is_stopped(), "")


class Compiled:
    """A guide, compiled."""

    def __init__(
        self, matcher: llguidance.LLMatcher, vocabulary: _Vocabulary, beside: Beside, behind: Beside, began: float
    ) -> None:
        """
        Args:
            beside: for tokens that take long.
            behind: for what takes long altogether.
            began: when its compiling did, on the clock of this thread's processor time.
        """
        self.matcher, self.beginnings, self.size = matcher, vocabulary.beginnings, len(vocabulary.tokens)
        self.lane = Lane()  # of all that is made of it
        self.failed = False  # an answer could not go on: it is at one of the limits
        self.first = Found.of(matcher, self.size)
        self._beside, self._behind = beside, behind
        self._heavy = time.thread_time() - began > _HEAVY_COMPILE_S

    def advance(self, matcher: llguidance.LLMatcher, token_id: int, *, slow: bool) -> Found:
        """What may come after a token, by a matcher that is made of it.

        Args:
            slow: that takes long.
        """
        if slow:
            self._behind.consume(matcher, token_id)
        elif self._heavy:
            self._beside.consume(matcher, token_id)
        else:
            began = time.thread_time()
            matcher.consume_token(token_id)
            self._heavy = time.thread_time() - began > _HEAVY_TOKEN_S
        return Found.of(matcher, self.size, self._behind if slow else None)


class GrammarCompiler:
    """Compiles guides for one vocabulary."""

    def __init__(self, token_bytes: TokenBytes, hidden: Collection[bytes] = ()) -> None:
        """
        Args:
            hidden: texts of tokens that are no part of an answer, such as the markers of thinking.
        """
        self._vocabulary = _Vocabulary(token_bytes, hidden)
        self._tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(self._vocabulary))
        end = self._vocabulary.eos_token_id
        self._beside, self._behind = (Beside(self._tokenizer, end, nicer=nicer) for nicer in (0, NICEST))

    def compile(self, guide: Guide) -> Compiled:
        """A guide whose first tokens are known.

        Raises:
            RequestError: the guide is wrong, not supported or too large, or has no answer; says what of it.
        """
        began = time.thread_time()
        matcher = llguidance.LLMatcher(self._tokenizer, _lark(guide), log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise refusal(guide[0], matcher.get_error())
        compiled = Compiled(matcher, self._vocabulary, self._beside, self._behind, began)
        if compiled.first.error:
            raise refusal(guide[0], compiled.first.error)
        return compiled


class GrammarConstraint:
    """See `Constraint`."""

    def __init__(self, compiled: Compiled, end_ids: Sequence[int], size: int, pool: Pool) -> None:
        """
        Args:
            end_ids: tokens that end the answer and have no text: allowed where the answer may end.
            size: tokens in the vocabulary's table.
            pool: where what may come next is worked out.
        """
        self._matcher, self._beginnings, self._found = compiled.matcher.deep_copy(), compiled.beginnings, compiled.first
        self._compiled, self._pool = compiled, pool
        self._beginning = True  # no text yet
        self._ends = frozenset(end_ids)
        self._end_words, self._end_bits = places(sorted(end_ids))
        self._size = size
        self._ended = False
        self._job: Job | None = None  # that works out what may come next
        self._slow = False  # the last one took long
        self._late = False  # it took longer than it may
        self._asked = self._waited = 0.0  # when that was begun; how long earlier ones took beyond what is usual
        self.active = True

    @property
    def finished(self) -> bool:
        return self._ended or (self._job is None and self._found.stopped and not self._found.error)

    @property
    def error(self) -> str:
        if self._late:
            return "the answer's grammar takes too long: what may come next is not known in time"
        return f"the answer's grammar cannot go on: {self._found.error}" if self._found.error else ""

    def settle(self, until: float, *, only_quick: bool = False) -> bool:
        job = self._job
        if job is None:
            return True
        done, waited = job.wait(0.0 if only_quick and self._slow else until), time.monotonic() - self._asked
        if not done:
            self._pool.give_way(job)
            self._late = self._late or waited > TOKEN_SECONDS or waited + self._waited > ANSWER_SECONDS
            return False
        self._job, self._slow = None, job.seconds > _SLOW_SECONDS
        self._waited += max(waited - _USUAL_SECONDS, 0.0)
        if job.error is not None:
            LOG.error("the grammar library failed", exc_info=job.error)
            self._found = replace(self._found, stopped=True, error=FAILED)
        return True

    def allowed(self, bits: Bits) -> None:
        bits.fill(0)
        if not self.settle(0.0):
            self._late = True
        if self.error:
            return
        found = self._found.bits.copy()
        if self._beginning and self._beginnings.made_up:
            self._beginnings.move(found)
        # What is made up is no token of the model, whose vocabulary may have others behind the table.
        found[self._size // 32] &= np.uint32((1 << self._size % 32) - 1)
        found[self._size // 32 + 1 :] = 0
        if self._found.accepting:
            found[self._end_words] |= self._end_bits
        else:
            found[self._end_words] &= ~self._end_bits
        count = min(len(bits), len(found))
        bits[:count] = found[:count]

    def push(self, token_id: int) -> None:
        if token_id in self._ends:
            self._ended = True
            return
        known = self._beginnings.made_up.get(token_id, token_id) if self._beginning else token_id
        self._beginning = False
        if self._job is None:
            self._asked = time.monotonic()
        self._job = self._pool.put(self._compiled.lane, partial(self._advance, known, slow=self._slow), slow=self._slow)

    def follow(self) -> None:
        self._beginning = False

    def _advance(self, token_id: int, *, slow: bool) -> None:
        """On a thread of the pool."""
        self._found = self._compiled.advance(self._matcher, token_id, slow=slow)
        self._compiled.failed |= bool(self._found.error)


class _Vocabulary:
    """What llguidance asks of a tokenizer. Its one end-of-text token is made up: a model may have several of its own.

    So are tokens behind that: those which begin a text with other bytes than they have elsewhere, with these bytes.
    """

    bos_token_id = None

    def __init__(self, token_bytes: TokenBytes, hidden: Collection[bytes]) -> None:
        self.tokens = [b"" if raw in hidden else raw for raw in token_bytes] + [b""]
        self.eos_token_id = len(token_bytes)
        differing = [token for token, raw in enumerate(self.tokens) if raw and token_bytes.at_beginning(token) != raw]
        self.beginnings = Beginnings(made_up={token: len(self.tokens) + at for at, token in enumerate(differing)})
        self.tokens += [token_bytes.at_beginning(token) for token in differing]
        self.special_token_ids = [token for token, raw in enumerate(self.tokens) if not raw]

    def __call__(self, text: bytes) -> list[int]:
        """Asked only to force tokens, which grammars are told not to do."""
        return []


def _lark(guide: Guide) -> str:
    kind, source = guide
    if kind == "json_schema":
        body = f"start: %json {source}"
    elif kind == "regex":
        # A whole answer is matched anyway, and the library knows no anchors inside.
        pattern = re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1", source.removeprefix("^"))
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:  # it would escape what ends the pattern in the grammar
            raise refusal(kind, "it ends with a backslash that escapes nothing")
        body = f"start: /{llguidance.regex_to_lark(pattern)}/" if pattern else 'start: ""'
    elif "::=" in source:
        try:
            body = gbnf_to_lark(source)
        except RecursionError:
            raise refusal("GBNF grammar", "it is nested too deeply") from None
        except Exception as error:  # it raises plain ones too
            raise refusal("GBNF grammar", str(error)) from None
    else:
        body = source
    return llguidance.LLMatcher.grammar_from_lark(body + _FREE_TOKENS)
