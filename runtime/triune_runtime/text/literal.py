"""Text that spells the tokenizer's special tokens and yet is text: what a user types is never the beginning of a turn.

Before a chat is rendered, every such spelling in its messages is broken by a mark, a letter that nothing else in it has.
What is whole in the rendered text is then the template's. It is encoded by a second tokenizer, in which the special tokens
have names that nobody can guess, so that all rules of the first hold: those of the template become these names, the marks
go, and the rest is text. A chat that spells none is encoded as ever.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from ..errors import RequestError

_CONTROL = re.compile(r"<.+>|\[.+\]", re.DOTALL)  # how tokens look that steer a model, whether or not they are called special
_MARKS = [chr(code) for code in range(0xE000, 0xF8FF)]  # letters that mean nothing
_NAME = chr(0xF8FF)  # another, around the names of special tokens
_NEVER = -1e9  # the score of a piece that is not chosen


class LiteralText:
    """The special tokens of a tokenizer: those that are called so, and those in angle or square brackets."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        self._controls = sorted({one.content for one in added if one.special or _CONTROL.fullmatch(one.content)})

    def marked(
        self, messages: Sequence[dict[str, Any]], *others: Any, answers: Collection[str] = ()
    ) -> tuple[str, list[dict[str, Any]], list[Any]]:
        """A chat, and what else its template is told, with a mark inside all that spells a special token.

        Args:
            answers: those that mean something to the template in what the assistant has said, such as the markers of thinking.

        Returns:
            The mark, and what is marked; an empty one where nothing spells any.
        """
        kept = [answers if message.get("role") == "assistant" else () for message in messages]
        spells = any(map(self._spelled, messages, kept)) or self._spelled(list(others), ())
        if not spells:
            return "", list(messages), list(others)
        source = json.dumps([list(messages), others], ensure_ascii=False, default=str)
        mark = next(one for one in _MARKS if one not in source and _escaped(one) not in source)
        return (
            mark,
            [self._marked(*one, mark) for one in zip(messages, kept, strict=True)],
            self._marked(list(others), (), mark),
        )

    def _spelled(self, value: Any, kept: Collection[str]) -> bool:
        """Whether a text in `value` (lists, dicts and texts) spells one, as it is or as the tokenizer normalizes it."""
        if isinstance(value, str):
            pattern, normalizer = self._pattern(kept), self._tokenizer.normalizer
            if pattern is None:
                return False
            normal = value if normalizer is None or value.isascii() else normalizer.normalize_str(value)
            return bool(pattern.search(value) or pattern.search(normal))
        if isinstance(value, dict):
            value = [*value, *value.values()]
        return isinstance(value, list) and any(self._spelled(part, kept) for part in value)

    def _marked(self, value: Any, kept: Collection[str], mark: str) -> Any:
        if isinstance(value, str):
            pattern = self._pattern(kept)
            return value if pattern is None else pattern.sub(lambda found: found[0] + mark, value)
        if isinstance(value, dict):
            return {self._marked(name, kept, mark): self._marked(part, kept, mark) for name, part in value.items()}
        return [self._marked(part, kept, mark) for part in value] if isinstance(value, list) else value

    def _pattern(self, kept: Collection[str]) -> re.Pattern[str] | None:
        return _pattern(tuple(self._controls), frozenset(kept))

    def encode(self, rendered: str, mark: str) -> list[int]:
        """Ids of a rendered chat whose literal text is marked.

        Raises:
            RequestError: this tokenizer makes special tokens of text all the same.
        """
        tokenizer, names, ids = self._renamed
        whole = re.compile("|".join(re.escape(one) for one in sorted(self._controls, key=len, reverse=True)))
        meant = [found[0] for found in whole.finditer(rendered)]
        text = whole.sub(lambda found: names[found[0]], rendered)
        text = text.replace(mark, "").replace(_escaped(mark), "")
        found = [ids.get(one, one) for one in tokenizer.encode(text, add_special_tokens=False).ids]
        controls = {self._tokenizer.token_to_id(one) for one in self._controls}
        if sum(one in controls for one in found) > len(meant):
            said = "messages spell a special token, which this model's tokenizer cannot tell from text"
            hint = "leave it out, or send split_special_tokens false"
            raise RequestError(said, hint, code="unsupported", param="messages")
        return found

    @functools.cached_property
    def _renamed(self) -> tuple[Tokenizer, Mapping[str, str], Mapping[int, int]]:
        """The tokenizer whose special tokens have other names; these names; and the ids of its added tokens -> the model's."""
        secret = secrets.token_hex(8)
        names = {content: f"{_NAME}{secret}.{number}{_NAME}" for number, content in enumerate(self._controls)}
        made = json.loads(self._tokenizer.to_str())
        for one in made["added_tokens"]:
            one["content"] = names.get(one["content"], one["content"])
        made["post_processor"] = None  # it knows them by their old names; and is not asked here
        if made["model"]["type"] == "Unigram":
            made["model"]["vocab"] = [[piece, _NEVER if piece in names else score] for piece, score in made["model"]["vocab"]]
        tokenizer = Tokenizer.from_str(json.dumps(made))
        ids: dict[int, int] = {}
        for old, one in self._tokenizer.get_added_tokens_decoder().items():
            new = tokenizer.token_to_id(names.get(one.content, one.content))
            assert new is not None, "an added token is known by its name"
            ids[new] = old
        return tokenizer, names, ids


def _escaped(mark: str) -> str:
    """How a template has it that writes JSON in ASCII."""
    return json.dumps(mark)[1:-1]


@functools.lru_cache(maxsize=8)
def _pattern(controls: tuple[str, ...], kept: frozenset[str]) -> re.Pattern[str] | None:
    """Finds the first letter of what spells a token, also inside another; those of one letter cannot be broken."""
    wanted = [one for one in controls if one not in kept and len(one) > 1]
    rests = {first: [re.escape(one[1:]) for one in wanted if one[0] == first] for first in sorted({one[0] for one in wanted})}
    return re.compile("|".join(f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items())) if wanted else None
