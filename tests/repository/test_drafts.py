"""What a response says of drafts. Run: pytest tests/repository/test_drafts.py"""

from __future__ import annotations

import dataclasses

from triune_runtime.request import Chunk, join
from triune_runtime.serving.sequence_tensors import chunk_arrays
from triune_runtime.text.cut import Cut

PIECE = Chunk(index=0, cut=Cut((3,), 0, 1), new_tokens=1)
LAST = dataclasses.replace(PIECE, cut=Cut((3,), 1, 2), finish_reason="length", drafted=8, accepted=6)
NAMES = {"acceptance_rate", "total_accepted_draft_tokens", "total_draft_tokens"}


def test_the_last_response_of_an_answer_with_drafts_tells_how_many_were_right() -> None:
    for chunk in (LAST, join(PIECE, LAST)):
        arrays = chunk_arrays(chunk, key=1, prompt_tokens=2)
        assert {name: arrays[name].tolist() for name in NAMES} == {
            "acceptance_rate": [[0.75]],
            "total_accepted_draft_tokens": [[6]],
            "total_draft_tokens": [[8]],
        }
        assert [arrays[name].dtype.name for name in sorted(NAMES)] == ["float32", "int32", "int32"]


def test_other_responses_say_nothing_of_drafts() -> None:
    for chunk in (PIECE, dataclasses.replace(LAST, drafted=0, accepted=0)):
        assert not NAMES & chunk_arrays(chunk, key=1, prompt_tokens=2).keys()
