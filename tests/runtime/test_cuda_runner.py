"""The runner of paged engines, on a device without a GPU, equals a model by hand whatever is in a step and in flight.

Run: pytest tests/runtime/test_cuda_runner.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.cuda_engines import CACHE, HostPaged
from fakes.paged import logits_of
from fakes.paged_launches import BLOCK, LENGTH, MANIFEST, SLOTS, VOCAB, ByHand, check
from triune_runtime.errors import DeviceLost, TriuneError
from triune_runtime.runner import Copy, CopyBlock, Table, Want, Work
from triune_runtime.targets.cuda.decodes import batch_buckets, width_buckets
from triune_runtime.targets.cuda.parts import Sizes
from triune_runtime.targets.cuda.pool import block_bytes
from triune_runtime.targets.cuda.warming import warm_steps
from triune_runtime.targets.device.host import HostDevice


def paged(**options: Any) -> HostPaged:
    made = HostPaged(MANIFEST, **({"blocks": 80} | options))
    made.runner.warm_up()
    return made


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), record=st.booleans(), chooses=st.booleans(), lag=st.integers(0, 3))
def test_any_launches_with_others_in_flight_equal_a_model_by_hand(seed: int, record: bool, chooses: bool, lag: int) -> None:
    made = paged(record=record, chooses=frozenset({"greedy"}) if chooses else None)
    hand, flying = ByHand(seed, made.runner, feeds=chooses), list[Any]()
    allocations = made.device.allocations
    for _ in range(12):
        flying.append(hand.launch())
        while len(flying) > lag:
            check(*flying.pop(0), chooses=chooses)
    for flight in flying:
        check(*flight, chooses=chooses)
    assert made.device.allocations == allocations, "memory is all there before the first launch"
    made.runner.close()
    assert made.program.closed


def prompts(made: HostPaged, count: int, length: int = 5) -> list[list[int]]:
    """Prompts in the first slots, with room for 20 tokens each."""
    texts = [[(slot * 7 + n) % VOCAB for n in range(length)] for slot in range(count)]
    orders = [Table(slot, tuple(range(5 * slot, 5 * slot + 5))) for slot in range(count)]
    made.runner.launch([Work(s, 0, tuple(t), 0, Want.TOKEN) for s, t in enumerate(texts)], orders).collect()
    return texts


def test_a_step_waits_for_nothing_and_a_flight_for_its_own_step_only() -> None:
    made = paged()
    texts = prompts(made, 3)
    ran = made.program.ran
    first = made.runner.launch([Work(s, 5, (0,), 0, Want.TOKEN, True) for s in range(3)])
    second = made.runner.launch([Work(s, 6, (0,), 0, Want.TOKEN, True) for s in range(3)])
    assert made.program.ran == ran, "nothing has been waited for"
    tokens = first.collect().best.tokens.tolist()
    assert made.program.ran == ran + 1 and made.device.queued, "the second step may go on"
    for text, token in zip(texts, tokens, strict=True):
        text += [int(logits_of(text, VOCAB).argmax())]
        assert token == logits_of(text, VOCAB).argmax()
    assert second.collect().best.tokens.tolist() == [
        logits_of([*text, token], VOCAB).argmax() for text, token in zip(texts, tokens, strict=True)
    ]


def test_prompts_that_go_on_from_a_copied_block_are_queued_while_the_first_runs() -> None:
    """As many as begin alike: nothing of the second step is waited for by the host, nor is anything of the first."""
    made = paged()
    text = tuple(n % VOCAB for n in range(10))
    made.device.synchronize()
    ran = made.program.ran
    first = made.runner.launch([Work(0, 0, text, 0, Want.LOGITS)], [Table(0, (0, 1, 2))])
    orders = [order for n in range(1, 6) for order in (CopyBlock(2, 10 + n), Table(n, (0, 1, 10 + n)))]
    second = made.runner.launch([Work(n, 9, (n, n + 1), 0, Want.LOGITS) for n in range(1, 6)], orders)
    assert made.program.ran == ran, "nothing has been waited for"
    assert np.array_equal(first.collect().logits[0], logits_of(text, VOCAB))
    for n, row in enumerate(second.collect().logits, 1):
        assert np.array_equal(row, logits_of([*text[:9], n, n + 1], VOCAB))


def test_decodes_are_replayed_with_what_the_buffers_hold_by_then() -> None:
    """After warm-up no decode is queued kernel by kernel, whatever its batch, its slots and its blocks."""
    made = paged()
    texts = prompts(made, SLOTS)
    shapes = len(made.program.shapes)
    for step, count in enumerate((6, 6, 6, 6, 3, 5, 1, 2, 4, 3, 6, 5)):  # padded to 1, 2, 4 or 6
        slots = sorted((s + step) % SLOTS for s in range(count))
        work = [Work(s, len(texts[s]), (step + s,), 0, Want.LOGITS) for s in slots]
        found = made.runner.launch(work).collect().logits
        for row, slot in enumerate(slots):
            texts[slot].append(step + slot)
            assert np.array_equal(found[row], logits_of(texts[slot], VOCAB))
    assert len(made.program.shapes) == shapes


def test_what_comes_back_of_a_decode_is_tokens_and_their_logits_alone() -> None:
    made = paged()
    prompts(made, 4)
    before = made.device.downloaded
    made.runner.launch([Work(s, 5, (1,), 0, Want.TOKEN) for s in range(4)]).collect()
    assert made.device.downloaded - before == 4 * (8 + 4)
    made.runner.launch([Work(s, 6, (1,), 0, Want.LOGITS if s == 2 else Want.TOKEN) for s in range(4)]).collect()
    assert made.device.downloaded - before == 2 * 4 * (8 + 4) + 4 * VOCAB


def test_decodes_run_apart_from_prompts_unless_they_are_few() -> None:
    made = paged()
    prompts(made, 5)
    made.program.shapes.clear()
    decodes = [Work(s, 5, (1,), 0, Want.TOKEN) for s in range(5)]
    chunk = Work(5, 0, (1, 2, 3), 0, Want.TOKEN)
    made.runner.launch([*decodes, chunk], [Table(5, (40,))]).collect()
    assert [(s.tokens, s.sequences) for s in made.program.shapes] == [(3, 1)], "the decodes are a recorded launch"
    made.runner.launch([*(d._replace(start=6) for d in decodes[:2]), chunk]).collect()
    assert [(s.tokens, s.sequences) for s in made.program.shapes] == [(3, 1), (5, 3)]


@pytest.mark.parametrize("replays", [True, False])
def test_a_device_that_cannot_record_leaves_it_to_the_program_or_queues_call_by_call(
    replays: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(HostDevice, "capture", lambda device, queue: None)
    made = paged(replays=replays)
    assert ("CUDA graphs of ONNX Runtime" if replays else "each kernel is queued by itself") in caplog.text
    texts = prompts(made, 3)
    found = made.runner.run([Work(s, 5, (9,), 0, Want.LOGITS) for s in range(3)])
    assert all(np.array_equal(row, logits_of([*text, 9], VOCAB)) for row, text in zip(found, texts, strict=True))
    assert (made.program.numbers[-1] is not None) == replays


def test_a_prompt_longer_than_a_step_and_a_score_of_more_rows_than_a_step_makes_run_in_parts() -> None:
    made = paged()
    text = tuple(n % VOCAB for n in range(45))
    table = Table(0, tuple(range(12)))
    assert np.array_equal(made.runner.launch([Work(0, 0, text)], [table]).collect().logits[0], logits_of(text, VOCAB))
    scored = made.runner.run([Work(0, 0, text, 0, Want.LOGITS, False, True)])
    assert all(np.array_equal(scored[n], logits_of(text[: n + 1], VOCAB)) for n in range(45))


def test_a_table_goes_to_the_device_only_where_it_has_changed() -> None:
    made, patched = paged(), list[int]()
    patch = made.runner._tables._feeder.patch
    made.runner._tables._feeder.patch = lambda *a: (patched.append(a[3]), patch(*a))  # type: ignore[method-assign]
    made.runner.launch([Work(0, 0, (1, 2, 3, 4, 5))], [Table(0, (17, 18))]).collect()
    made.runner.launch([Work(0, 5, (1, 2, 3, 4))], [Table(0, (17, 18, 19))]).collect()
    made.runner.launch([Work(0, 9, (1,))], [Table(0, (17, 18, 19))]).collect()
    assert patched == [2, 1]


def test_slots_have_blocks_of_their_own_until_they_are_told_others() -> None:
    """For proofs and trials, which keep no books."""
    runner = paged().runner
    runner.run([Work(slot, 0, (slot, 1, 2, 3, 4)) for slot in range(SLOTS)])
    found = runner.run([Work(slot, 5, (7,)) for slot in range(SLOTS)])
    assert all(np.array_equal(row, logits_of((slot, 1, 2, 3, 4, 7), VOCAB)) for slot, row in enumerate(found))


def test_slots_that_are_told_nothing_never_share_a_block_and_say_so_where_there_is_none() -> None:
    """A proof over memory for fewer sequences than there are slots."""
    runner = paged(blocks=LENGTH // BLOCK).runner
    for _ in range(3):  # from the beginning again
        runner.run([Work(slot, 0, (slot, 1, 2)) for slot in range(SLOTS)])
        found = runner.run([Work(slot, 3, (7,)) for slot in range(SLOTS)])
        assert all(np.array_equal(row, logits_of((slot, 1, 2, 7), VOCAB)) for slot, row in enumerate(found))
    runner.run([Work(0, 0, tuple(range(1, 25)))])
    with pytest.raises(TriuneError, match=r"slot 1 needs 6 further blocks of KV memory, and \d are left"):
        runner.run([Work(1, 0, tuple(range(1, 29)))])


def test_warm_up_runs_steps_of_every_size_of_few_and_of_many_sequences() -> None:
    """So that what libraries take for a kind of step is taken before the first request."""
    shapes = {(shape.tokens, shape.sequences) for shape in paged().program.shapes}
    assert {(16, 1), (12, 6), (12, 1), (9, 2), (9, 5), (5, 2), (5, 3), (3, 2)} <= shapes, shapes


@given(tokens=st.integers(2, 3000), sequences=st.integers(1, 300), longest=st.integers(2, 5000), rows=st.integers(32, 300))
def test_steps_of_warm_up_are_ones_that_may_come(tokens: int, sequences: int, longest: int, rows: int) -> None:
    sizes = Sizes(max(tokens, sequences), sequences, max(rows, sequences))
    for step in warm_steps(sizes, longest):
        assert 1 <= len(step.chunks) <= sizes.sequences
        assert min(step.chunks) >= 1 and max(step.chunks) <= longest
        assert 1 <= step.rows <= min(sizes.rows, sum(step.chunks)) and sum(step.chunks) <= sizes.tokens


def test_warm_up_has_the_most_of_all_that_attention_takes_memory_for() -> None:
    """Sequences, the longest chunk times their number, and both behind nothing and behind long texts."""
    steps = list(warm_steps(Sizes(1024, 64, 64), 1024))
    for late in (False, True):
        found = [step for step in steps if bool(step.past) is late]
        assert max(len(step.chunks) for step in found) == 64
        assert max(len(step.chunks) * max(step.chunks) for step in found) == 64 * (1024 - 2 * 63)
        assert any(step.chunks[0] == 1024 for step in found)


def test_blocks_are_as_many_as_fit_and_no_more_than_can_be_used() -> None:
    size, longest = block_bytes(CACHE, BLOCK), LENGTH // BLOCK
    assert HostPaged(MANIFEST, device=HostDevice(1 << 30)).runner.blocks == 4 * SLOTS * longest
    used = (made := HostPaged(MANIFEST, blocks=1)).device.size - made.device.memory()[0]
    few = HostPaged(MANIFEST, device=HostDevice(used + 100 * size)).runner.blocks
    assert longest <= few < 100, "nine tenths of the rest, and one block of them is scratch"
    with pytest.raises(TriuneError, match=r"the KV cache of one sequence of 48 tokens takes .*--max-length"):
        HostPaged(MANIFEST, device=HostDevice(used))


def test_a_step_that_does_not_fit_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def enqueue(*arguments: Any) -> None:
        raise TriuneError("Failed to allocate memory for requested buffer of size 123")

    monkeypatch.setattr("fakes.cuda_engines.HostProgram.enqueue", enqueue)
    with pytest.raises(TriuneError, match=r"a step of 16 tokens of 6 sequences cannot be run: .*--prefill-chunk"):
        HostPaged(MANIFEST)


def test_a_device_that_is_lost_at_a_launch_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made = paged()

    def fails(*arguments: Any) -> None:
        raise TriuneError("CUDA failure 700")

    def lost() -> None:
        raise DeviceLost("an illegal address")

    monkeypatch.setattr(made.program, "enqueue", fails)
    with pytest.raises(TriuneError, match="failure 700"):
        made.runner.launch([Work(0, 0, (1, 2))], [Table(0, (1,))])
    monkeypatch.setattr(made.device, "check", lost)
    with pytest.raises(DeviceLost):
        made.runner.launch([Work(0, 0, (1, 2))])


def test_slots_are_not_copied() -> None:
    with pytest.raises(AssertionError, match="memory in slots"):
        paged().runner.launch([], [Copy(0, 1, 3)])


def test_batches_are_padded_by_no_more_than_half_and_the_last_bucket_is_all_sequences() -> None:
    assert batch_buckets(1) == (1,) and batch_buckets(6) == (1, 2, 4, 6)
    assert batch_buckets(256) == (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
    assert width_buckets(16, 128) == (16,) and width_buckets(256, 128) == (32, 128, 256)
