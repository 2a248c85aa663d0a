"""Text -> token ids, with the tokenizer.json that lies beside the engine. Imports nothing heavier than `tokenizers`."""

from __future__ import annotations

import logging
from pathlib import Path

from tokenizers import Tokenizer

from ..allocator import return_free_memory
from ..errors import ManifestError, RequestError
from ..manifest import EngineManifest, ReasoningMarkers
from .growth import check_growth
from .literal import LiteralText
from .tools import format_of
from .vocabulary import TokenBytes, token_bytes

LOG = logging.getLogger(__name__)


class TextTokenizer:
    """The model's tokenizer."""

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, markers: ReasoningMarkers | None = None, chat_template: str | None = None
    ) -> None:
        """
        Args:
            markers: text in an answer even where they are special tokens, as are the tool calls' of the model's template.

        Raises:
            ManifestError: see `check_growth`.
        """
        check_growth(tokenizer)
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self.literal = LiteralText(tokenizer)
        self._shown = (*(() if markers is None else (markers.start, markers.end)), *format_of(chat_template).markers)

    @classmethod
    def load(cls, folder: Path, manifest: EngineManifest) -> TextTokenizer:
        """The tokenizer of the engine in `folder`.

        Raises:
            ManifestError: the file is missing or malformed.
        """
        path = folder / manifest.tokenizer
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exceptions
            raise ManifestError(f"cannot load {path}: {error}", "build the engine again") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, manifest.vocab_size, manifest.reasoning, manifest.tool_template or manifest.chat_template)

    def encode(self, text: str) -> list[int]:
        """Ids of a raw prompt, with whatever the tokenizer puts before it (a beginning-of-sequence token, say).

        Raises:
            RequestError: the tokenizer cannot take it.
        """
        return self._encoded(text, special=True)

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of text that already holds its special tokens, such as a rendered chat.

        Raises:
            RequestError: the tokenizer cannot take it.
        """
        return self._encoded(text, special=False)

    def _encoded(self, text: str, *, special: bool) -> list[int]:
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=special).ids)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library's panics are no Exceptions; a pattern that searches for too long is one
            LOG.error("the tokenizer failed: %s", str(error).partition("\n")[0])
            said = "the model's tokenizer cannot make tokens of this text"
            raise RequestError(said, "send another text", code="unsupported") from None

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, special ones included."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def names(self, ids: list[int]) -> list[str]:
        """Tokens as the vocabulary has them; "" for those of the model that the tokenizer does not know."""
        return [self._tokenizer.id_to_token(token) or "" for token in ids]

    def token_bytes(self) -> TokenBytes:
        """The bytes of every token."""
        return token_bytes(self._tokenizer, self._vocab_size, self._shown)


def load_token_bytes(folder: Path, manifest: EngineManifest) -> TokenBytes:
    """The bytes of every token of the engine in `folder`, and nothing else of its tokenizer kept in memory.

    Raises:
        ManifestError: see `TextTokenizer.load`.
    """
    table = TextTokenizer.load(folder, manifest).token_bytes()
    return_free_memory()
    return table
