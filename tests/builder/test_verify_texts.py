"""The texts a build judges by: the bundled ones, or the model's own. Run: pytest tests/builder/test_verify_texts.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from triune_builder.checkpoint.folder import open_folder
from triune_builder.errors import BuildError
from triune_builder.verify.measure import Sizes, text_windows
from triune_builder.verify.texts import texts_of

OWN: dict[str, Any] = {"calibration": ["a"], "evaluation": ["b", "c"], "prompts": ["d\nd"]}
NANO = Path(__file__).parents[2] / "models" / "r1-nano" / "checkpoint"


def test_a_model_without_texts_is_judged_by_the_bundled_ones() -> None:
    texts = texts_of({})
    assert len(texts.evaluation) == len(texts.calibration) == 1 and len(texts.prompts) == 16


def test_a_models_own_texts_take_their_place_and_decide_the_build() -> None:
    checkpoint = open_folder(NANO)
    texts = texts_of(checkpoint.verification)
    assert texts.prompts[0].startswith("<｜begin▁of▁sentence｜>") and len(texts.evaluation) == 16
    assert NANO / "verification.json" in checkpoint.files


@pytest.mark.parametrize(
    "change", [{"prompts": []}, {"prompts": "d"}, {"evaluation": [3]}, {"calibration": [""]}, {"more": ["x"]}]
)
def test_texts_that_are_no_lists_of_texts_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match=r"verification\.json") as caught:
        texts_of(OWN | change)
    (name,) = change
    assert name in str(caught.value)
    assert texts_of(json.loads(json.dumps(OWN))).prompts == ("d\nd",)


def test_each_text_is_read_from_an_empty_cache_and_none_is_read_twice() -> None:
    texts = [list(range(10)), list(range(100, 103)), list(range(200, 240))]
    windows, _ = text_windows(texts, Sizes(text=40, window=16), 1000)
    assert [len(w.tokens) for w in windows] == sorted((len(w.tokens) for w in windows), reverse=True)
    read = {w.tokens[0]: w for w in windows}
    assert read[0].tokens == tuple(range(9)) and read[0].followers == tuple(range(1, 10))
    assert read[100].followers == (101, 102)
    assert sum(len(w.followers) for w in windows) == 40
