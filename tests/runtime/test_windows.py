"""What a windowed buffer holds, and taking drafts back, against plain lists. Run: pytest tests/runtime/test_windows.py"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triune_runtime.manifest import CacheTensor, EngineManifest, Limits
from triune_runtime.targets.cpu.windows import WindowedBuffers


class Op:
    """The attention op's part: appends to the buffer, drops the oldest when it is full. Entries are positions and tokens."""

    def __init__(self, window: int, capacity: int, slots: int) -> None:
        self.window, self.capacity = window, capacity
        self.buffer = np.zeros((slots, 1, capacity, 2), np.int64)
        self.buffers = WindowedBuffers(window, [self.buffer])

    def resident(self, total: int) -> int:
        """The op's documented rule."""
        step = self.capacity - self.window + 1
        return total if total <= self.capacity else total - step * -(-(total - self.capacity) // step)

    def run(self, slot: int, start: int, tokens: list[int], drafts: int) -> list[list[tuple[int, int]]]:
        """What each token's query sees: (position, token) of the keys in its window, which the op knows by their places."""
        self.buffers.prepare(slot, start, len(tokens), drafts)
        held = self.resident(start)
        rows = [tuple(row) for row in self.buffer[slot, 0, :held].tolist()]
        rows += [(start + i, token) for i, token in enumerate(tokens)]
        seen = [rows[max(0, held + i + 1 - self.window) : held + i + 1] for i in range(len(tokens))]
        kept = rows[len(rows) - self.resident(start + len(tokens)) :]
        self.buffer[slot] = -1  # what is not kept is unspecified
        self.buffer[slot, 0, : len(kept)] = kept
        return seen


@settings(max_examples=300, deadline=None)
@given(window=st.integers(1, 12), slack=st.integers(0, 9), data=st.data())
def test_every_query_sees_its_window_after_any_runs_drafts_moves_and_restarts(
    window: int, slack: int, data: st.DataObject
) -> None:
    op, texts = Op(window, window + slack, 3), {0: [], 1: [], 2: []}  # type: ignore[var-annotated]
    last = {0: 0, 1: 0, 2: 0}  # drafts that may still be taken back
    for _ in range(data.draw(st.integers(1, 25))):
        slot = data.draw(st.integers(0, 2))
        back = data.draw(st.integers(0, last[slot]))
        text = texts[slot][: len(texts[slot]) - back]
        match data.draw(st.sampled_from(["run", "run", "run", "draft", "copy", "restart"])):
            case "restart":
                text = []
            case "copy":
                other = (slot + 1) % 3
                op.buffers.copy(slot, other, len(text))
                texts[slot], texts[other] = text, list(text)
                last[slot] = last[other] = 0
                continue
        count = data.draw(st.integers(1, 30))
        drafts = data.draw(st.integers(0, count - 1)) if count <= window else 0
        tokens = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
        whole = list(enumerate([*text, *tokens]))
        seen = op.run(slot, len(text), tokens, drafts)
        for i, keys in enumerate(seen):
            stop = len(text) + i + 1
            assert keys == whole[max(0, stop - window) : stop]
        texts[slot], last[slot] = [*text, *tokens], drafts


def test_going_back_further_than_the_drafts_is_our_own_bug() -> None:
    op = Op(4, 6, 1)
    op.run(0, 0, list(range(20)), drafts=0)
    with pytest.raises(AssertionError, match="has dropped positions below"):
        op.run(0, 12, [1], drafts=0)
    op.run(0, 0, list(range(5)), drafts=0)
    with pytest.raises(AssertionError, match="a run of 5 tokens, 4 of them drafts, for a window of 4"):
        op.run(0, 5, list(range(5)), drafts=4)


def manifest(*windows: int | None, max_length: int) -> EngineManifest:
    cache = tuple(CacheTensor(name=f"{i}.key", heads=2, dim=8, window=w) for i, w in enumerate(windows))
    return EngineManifest(
        model="m", architecture="llama", target="cpu", precision="fp32", engine="model.onnx", vocab_size=9, cache=cache,
        stop_token_ids=(), limits=Limits(max_length=max_length),
    )  # fmt: skip


def test_bytes_grow_up_to_a_windows_buffer_and_no_further() -> None:
    windowed, mixed = manifest(512, 512, max_length=8192), manifest(None, 512, max_length=8192)
    assert windowed.kv_bytes_per_token == mixed.kv_bytes_per_token == 2 * 2 * 8 * 4
    assert windowed.kv_bytes(100) == mixed.kv_bytes(100) == 100 * 128
    assert windowed.kv_bytes(576) == windowed.kv_bytes(8192) == (512 + 64) * 128
    assert mixed.kv_bytes(8192) == 8192 * 64 + 576 * 64
    assert mixed.kv_bytes(9000) == mixed.kv_bytes(8192)


@pytest.mark.parametrize(
    ("window", "max_length", "positions"),
    [(None, 2048, 2048), (512, 2048, 576), (4, 2048, 20), (512, 540, 540), (512, 100, 512), (4096, 131072, 4608)],
)
def test_a_buffer_has_an_eighth_more_than_its_window(window: int | None, max_length: int, positions: int) -> None:
    assert CacheTensor(name="0.key", heads=1, dim=8, window=window).positions(max_length) == positions
