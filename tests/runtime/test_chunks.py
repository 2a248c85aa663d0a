"""What a response says is declared in `Chunk`, with how two neighbours become one. Run: pytest tests/runtime/test_chunks.py"""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from fakes.runtime import TOKENS
from triune_runtime.options.wire import Options
from triune_runtime.request import Chunk, KvCounts, Request, Times, TokenLogprob, join
from triune_runtime.serving.sequence_tensors import SequenceTensors
from triune_runtime.text.cut import Cut

KV = KvCounts(new_blocks=3, reused_blocks=2, reused_tokens=32)
FIRST = Chunk(4, Cut((3,), 0, 1), 2, None, (TokenLogprob(3, -1.0),), Times(1.0, 2.0), 0, 0, scores=(TokenLogprob(2, -0.5),))
SECOND = Chunk(5, Cut((5,), 0, 1, "x"), 1, "stop", (TokenLogprob(5, -2.0),), Times(1.0, 2.0, 3.0), 8, 6, KV)
counts = st.integers(0, 9)
chunks = st.builds(
    Chunk, counts, st.builds(Cut, st.tuples(counts), st.just(0), st.just(1)), counts, st.none(),
    st.just(()), st.none(), counts, counts, st.builds(KvCounts, counts, counts, counts),
)  # fmt: skip


def test_every_field_of_two_chunks_is_in_the_joined_one() -> None:
    joined = {field.name: getattr(join(FIRST, SECOND), field.name) for field in dataclasses.fields(Chunk)}
    assert joined == {
        "index": 4,
        "cut": Cut((3, 5), 0, 2, "x"),
        "new_tokens": 3,
        "finish_reason": "stop",
        "logprobs": (TokenLogprob(3, -1.0), TokenLogprob(5, -2.0)),
        "times": Times(1.0, 2.0, 3.0),
        "drafted": 8,
        "accepted": 6,
        "kv": KV,
        "scores": (TokenLogprob(2, -0.5),),
    }


@given(chunks, chunks, chunks)
def test_in_which_order_neighbours_are_joined_changes_nothing(one: Chunk, two: Chunk, three: Chunk) -> None:
    assert join(join(one, two), three) == join(one, join(two, three))


def test_a_cancelled_request_s_only_chunk_is_empty_and_the_last() -> None:
    assert (Chunk.cancelled().finish_reason, Chunk.cancelled().new_tokens, Chunk.cancelled().cut.has_text) == (
        "cancelled", 0, False,
    )  # fmt: skip


def test_a_response_tells_the_blocks_that_its_chunk_counted() -> None:
    request = Request(key=1, prompt=(3, 4), timed=True)
    for chunk, expected in ((FIRST, [1, 0, 1]), (SECOND, [3, 2, 3])):
        arrays = SequenceTensors(request, Options(), TOKENS, first=True).of(chunk)
        names = ("kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks")
        assert [arrays[name].tolist() for name in names] == [[[count]] for count in expected]
