"""Finds out how a model marks its thinking, from its tokenizer and its chat template. Knows no weights and no answers."""

from __future__ import annotations

import re

from triune_runtime.manifest import ReasoningMarkers

PAIRS = (("<think>", "</think>"),)  # of the R1 family, Qwen3 and their descendants; one row a family


def reasoning_markers(tokenizer_json: str, chat_template: str | None) -> ReasoningMarkers | None:
    """The markers that a model's tokenizer has as tokens of their own, or that its chat template names; None if neither does.

    A model that knows the markers and does not think is served all the same: an answer without the opening one is all answer.

    Args:
        tokenizer_json: text of a tokenizer.json.
    """
    from tokenizers import Tokenizer  # not at the top: `triune --help` does without

    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    template = chat_template or ""
    for start, end in PAIRS:
        if {start, end} <= added or end in template:
            closing = tokenizer.encode(_closing(start, end, template), add_special_tokens=False).ids
            return ReasoningMarkers(start=start, end=end, closing_ids=tuple(closing))
    return None


def _closing(start: str, end: str, template: str) -> str:
    """What such a model writes where its thinking ends.

    Most of them keep the markers on lines of their own. Where the template writes the opening one, it shows.
    """
    breaks = rf"{re.escape(start)}(\\n|\n)|(\\n|\n){re.escape(end)}"
    if start in template and not re.search(breaks, template):
        return end
    return f"\n{end}\n\n"
