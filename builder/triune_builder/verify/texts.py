"""The texts over which a model is calibrated and judged: the bundled ones, or those that its publisher put beside the weights.

A model of a narrow domain (arithmetic, one language) says nothing sensible of ordinary English, and so neither does its
perplexity of it: its folder may hold `verification.json` with texts of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import BuildError

_FOLDER = Path(__file__).parent / "text"
_FIRST = "english"
_OWN = "own"  # kind of a model's own texts: its publisher chose them together


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Lists of texts; the special tokens written in them count as such."""

    calibration: tuple[str, ...]  # what the sizes of activations are observed on
    evaluation: tuple[tuple[str, str], ...]  # kind, text: what perplexity is measured on; each is read from an empty cache
    prompts: tuple[str, ...]  # what is continued greedily


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
