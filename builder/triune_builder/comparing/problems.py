"""Problems with known answers that a model of the project is asked: what its precisions get right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer

from r1_nano.questions import MOST_TOKENS, is_answered, prompt_ids, questions

from .rows import Score


class Problems:
    """So many held-out problems of each kind, as tokens."""

    most_tokens = MOST_TOKENS

    def __init__(self, tokenizer_json: str, count: int) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._asked = questions(count)
        self.prompts = [prompt_ids(self._tokenizer, drawn) for drawn in self._asked]

    def score(self, answers: Sequence[Sequence[int]]) -> Score:
        """How many of the answers, one for each prompt, are right."""
        asked, right = Counter[str](), Counter[str]()
        for drawn, answer in zip(self._asked, answers, strict=True):
            asked[drawn.task] += 1
            right[drawn.task] += is_answered(self._tokenizer, drawn, list(answer))
        return Score(asked=dict(asked), right=dict(right))
