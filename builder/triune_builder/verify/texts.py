"""The texts over which a model is calibrated and judged: the bundled ones, or those that its publisher put beside the weights.

A model of a narrow domain (arithmetic, one language) says nothing sensible of ordinary English, and so neither does its
perplexity of it: its folder may hold `verification.json` with texts of its own. Its user may have texts, too: files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import BuildError

_FOLDER = Path(__file__).parent / "text"
_FIRST = "english"
_OWN = "own"  # kind of a model's own texts: its publisher chose them together
_FEWEST = 200  # characters of a user's text, some 50 tokens: of fewer nothing can be said
_MOST = 1_000_000  # characters of it that are read


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Lists of texts; the special tokens written in them count as such."""

    calibration: tuple[str, ...]  # what the sizes of activations are observed on
    evaluation: tuple[tuple[str, str], ...]  # kind, text: what perplexity is measured on; each is read from an empty cache
    prompts: tuple[str, ...]  # what is continued greedily


@dataclass(frozen=True, kw_only=True)
class UserText:
    """A file of the user's. Two of the same contents are the same, wherever they lie."""

    kind: str
    file: str  # as it was named
    text: str

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_user_text(said: str, asked_by: str, kind: str = "") -> UserText:
    """The text of a file; of one that is very long its beginning.

    Args:
        said: how its user named it.
        asked_by: the option that it was said to, for errors.
        kind: of the text; by default the file's name without its ending.

    Raises:
        BuildError: it cannot be read, is no UTF-8, or too short.
    """
    path = Path(said).expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST)
    except UnicodeDecodeError as error:
        raise BuildError(
            f"{asked_by} is {said}, which is no text in UTF-8: byte {error.start:,} fits none",
            "convert it, or name another file",
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # the latter of a home that there is not, and of a name with a zero
        why = error.strerror if isinstance(error, OSError) else error
        raise BuildError(f"{asked_by} is {said}, which cannot be read: {why}", "name a file of text that is there") from None
    if len(text.strip()) < _FEWEST:
        raise BuildError(
            f"{asked_by} is {said}, which has {len(text.strip())} characters of text; at least {_FEWEST} are needed",
            "name a longer text, of the kind that the model is to read",
        )
    return UserText(kind=kind or path.stem, file=said, text=text)


def texts_of(own: Mapping[str, Any]) -> Texts:
    """The model's own texts (`own` is its verification.json), or the bundled ones if it has none.

    Raises:
        BuildError: `own` is not three lists of texts.
    """
    names = [field.name for field in fields(Texts)]
    if not own:
        lines = tuple((_FOLDER / "prompts.txt").read_text("utf-8").splitlines())
        calibration = tuple(text for _, text in _bundled("calibration"))
        return Texts(calibration=calibration, evaluation=_bundled("evaluation"), prompts=lines)
    wrong = [name for name in names if not _is_texts(own.get(name))]
    if wrong or own.keys() - set(names):
        raise BuildError(
            f"verification.json has {', '.join(own)}, of which {', '.join(wrong) or 'none'} is no list of texts; "
            f"expected {', '.join(names)}, each a list with at least one text",
            "correct the file, or remove it: then the bundled texts are used",
        )
    evaluation = tuple((_OWN, text) for text in own["evaluation"])
    return Texts(calibration=tuple(own["calibration"]), evaluation=evaluation, prompts=tuple(own["prompts"]))


def further_texts(own: Mapping[str, Any]) -> tuple[str, ...]:
    """What is read beside `Texts.calibration` where codes are chosen by it; nothing for a model that has its own texts."""
    return () if own else tuple(text for _, text in _bundled("further"))


def token_ids(tokenizer_json: str, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, all of them whatever the file says of truncation: a server cuts no prompt either.

    Raises:
        BuildError: no text has any, or the tokenizer fails.
    """
    from tokenizers import Tokenizer  # not at the top: `triune --help` does without

    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        found = [list(tokenizer.encode(text).ids) for text in texts]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are no Exceptions; a pattern that searches for too long is one
        raise BuildError(
            f"the tokenizer fails at the texts that a build is judged by: {str(error).partition(chr(10))[0]}",
            "fetch tokenizer.json again; its patterns are not the model's",
        ) from None
    if not any(found):
        raise BuildError(
            f"the tokenizer makes no token of the texts that a build is judged by, such as {texts[0][:40]!r}",
            "fetch tokenizer.json again; a model of other texts needs them in verification.json",
        )
    return found


def evaluation_ids(tokenizer_json: str, texts: Texts) -> list[tuple[str, list[int]]]:
    """Kind and tokens of each text that perplexity is measured on."""
    ids = token_ids(tokenizer_json, [text for _, text in texts.evaluation])
    return [(kind, tokens) for (kind, _), tokens in zip(texts.evaluation, ids, strict=True)]


def _bundled(folder: str) -> tuple[tuple[str, str], ...]:
    """Kind and text, English first: what is read of all texts as one begins with it."""
    files = sorted((_FOLDER / folder).glob("*.txt"), key=lambda path: (path.stem != _FIRST, path.stem))
    return tuple((path.stem, path.read_text("utf-8")) for path in files)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text for text in value)
