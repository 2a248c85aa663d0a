"""Guides -> constraints: the only file that speaks to llguidance. It is imported when the first guide comes, not before."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import llguidance
import numpy as np
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from ..errors import RequestError
from ..text.vocabulary import TokenBytes
from .bits import Bits, places, words
from .guide import Guide

# The library's own measures of work; with them a grammar compiles within a second and a mask takes 15 ms at the very most.
_LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=50_000,  # of 1 to 2 kB
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


class GrammarCompiler:
    """Compiles guides for one vocabulary."""

    def __init__(self, token_bytes: TokenBytes, hidden: Collection[bytes] = ()) -> None:
        """
        Args:
            hidden: texts of tokens that are no part of an answer, such as the markers of thinking.
        """
        vocabulary = _Vocabulary(token_bytes, hidden)
        self.beginnings = vocabulary.beginnings
        self._tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(vocabulary))

    def compile(self, guide: Guide) -> llguidance.LLMatcher:
        """A matcher at its beginning; `GrammarConstraint` takes a copy of it.

        Raises:
            RequestError: the guide is wrong, not supported or too large; says what of it.
        """
        matcher = llguidance.LLMatcher(self._tokenizer, _lark(guide), log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise _refusal(guide[0], matcher.get_error())
        return matcher


class GrammarConstraint:
    """See `Constraint`."""

    def __init__(
        self, matcher: llguidance.LLMatcher, end_ids: Sequence[int], size: int, beginnings: Beginnings | None = None
    ) -> None:
        """
        Args:
            matcher: used up by this constraint.
            end_ids: tokens that end the answer and have no text: allowed where the answer may end.
            size: tokens in the vocabulary's table.
            beginnings: of the matcher's vocabulary, if it has any.
        """
        self._matcher = matcher
        self._beginnings = beginnings or Beginnings(made_up={})
        self._beginning = True  # no text yet
        self._ends = frozenset(end_ids)
        self._end_words, self._end_bits = places(sorted(end_ids))
        self._size = size
        self._bits = np.zeros(words(size + 1 + len(self._beginnings.made_up)), np.uint32)  # more: see `_Vocabulary`
        self._ended = False
        self.active = True

    @property
    def finished(self) -> bool:
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    @property
    def error(self) -> str:
        why = self._matcher.get_error().partition("\n")[0]
        return f"the answer's grammar cannot go on: {why}" if self._matcher.is_error() else ""

    def allowed(self, bits: Bits) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        bits.fill(0)
        if self._matcher.is_error():
            return
        if self._beginning and self._beginnings.made_up:
            self._beginnings.move(self._bits)
        # What is made up is no token of the model, whose vocabulary may have others behind the table.
        self._bits[self._size // 32] &= np.uint32((1 << self._size % 32) - 1)
        self._bits[self._size // 32 + 1 :] = 0
        if self._matcher.is_accepting():
            self._bits[self._end_words] |= self._end_bits
        else:
            self._bits[self._end_words] &= ~self._end_bits
        count = min(len(bits), len(self._bits))
        bits[:count] = self._bits[:count]

    def push(self, token_id: int) -> None:
        if token_id in self._ends:
            self._ended = True
        else:
            self._matcher.consume_token(self._beginnings.made_up.get(token_id, token_id) if self._beginning else token_id)
            self._beginning = False

    def follow(self) -> None:
        self._beginning = False


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
        body = f"start: /{llguidance.regex_to_lark(pattern)}/" if pattern else 'start: ""'
    elif "::=" in source:
        try:
            body = gbnf_to_lark(source)
        except GbnfToLarkError as error:
            raise _refusal("GBNF grammar", str(error)) from None
    else:
        body = source
    return llguidance.LLMatcher.grammar_from_lark(body + _FREE_TOKENS)


def _refusal(kind: str, why: str) -> RequestError:
    # The library shows where in the Lark text that it was given; of a schema or a regex, that is not what the client sent.
    shown = why if "grammar" in kind else re.sub(r"(?s)\n +\d+ \| .*", "", re.sub(r"^at \d+\(\d+\): ", "", why))
    shown = " ".join(shown.removeprefix("failed to compile JSON schema: ").split())
    said = f"the {kind.replace('_', ' ')} cannot be served: {shown[:500]}"
    return RequestError(said, "see docs/structured.md for what can", code="unsupported")
