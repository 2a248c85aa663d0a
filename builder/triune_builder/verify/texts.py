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


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Each is a list of texts; the special tokens written in them count as such."""

    calibration: tuple[str, ...]  # what the sizes of activations are observed on
    evaluation: tuple[str, ...]  # what perplexity is measured on; each is read from an empty cache
    prompts: tuple[str, ...]  # what is continued greedily


def texts_of(own: Mapping[str, Any]) -> Texts:
    """The model's own texts (`own` is its verification.json), or the bundled ones if it has none.

    Raises:
        BuildError: `own` is not three lists of texts.
    """
    names = [field.name for field in fields(Texts)]
    if not own:
        bundled = {name: (_FOLDER / f"{name}.txt").read_text("utf-8") for name in names}
        lines = tuple(bundled["prompts"].splitlines())
        return Texts(calibration=(bundled["calibration"],), evaluation=(bundled["evaluation"],), prompts=lines)
    wrong = [name for name in names if not _is_texts(own.get(name))]
    if wrong or own.keys() - set(names):
        raise BuildError(
            f"verification.json has {', '.join(own)}, of which {', '.join(wrong) or 'none'} is no list of texts; "
            f"expected {', '.join(names)}, each a list with at least one text",
            "correct the file, or remove it: then the bundled texts are used",
        )
    return Texts(**{name: tuple(own[name]) for name in names})


def token_ids(tokenizer_json: str, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text."""
    from tokenizers import Tokenizer  # not at the top: `triune --help` does without

    tokenizer = Tokenizer.from_str(tokenizer_json)
    return [tokenizer.encode(text).ids for text in texts]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text for text in value)
