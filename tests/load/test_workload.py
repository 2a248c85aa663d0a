"""What is asked follows from the seed. Run: pytest tests/load/test_workload.py"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_load.core.lengths import Lengths
from triune_load.core.prompts import parse_prompts
from triune_load.core.workload import Part, Session, Workload, part_of
from triune_load.errors import LoadError

NUMBERS = st.integers(0, 10**9)


def first(session: Session) -> str:
    return session.request(0, ()).text


@given(NUMBERS, NUMBERS)
def test_a_seed_and_a_number_give_one_request(seed: int, number: int) -> None:
    parts = [Part(name="a", cancel=0.5, slow=0.5), Part(name="b", kind="json", weight=2)]
    assert Workload(parts, seed=seed).session(number) == Workload(parts, seed=seed).session(number)


def test_requests_differ_but_for_the_repeats() -> None:
    workload = Workload([Part(repeats=0.25, repeated=3, temperature=0.7)], seed=1)
    asked = [workload.session(n).request(0, ()) for n in range(400)]
    repeated = [r for r in asked if r.repeat]
    assert 60 < len(repeated) < 140
    assert len({r.text for r in repeated}) == 3
    assert len({r.text for r in asked if not r.repeat}) == 400 - len(repeated)
    assert len({r.identity for r in asked}) == 400
    assert all((r.temperature == 0) == (r.repeat is not None) for r in asked)


def test_repeats_to_expect_are_those_that_come_later() -> None:
    workload = Workload([Part(name="a", repeats=1.0), Part(name="b", repeats=1.0), Part(name="c", repeats=0.0)], seed=3)
    expected = {r.repeat: (r.messages, r.max_tokens) for r in workload.repeats()}
    assert set(expected) == {"a-0", "a-1", "b-0", "b-1"}
    assert all(not r.stream for r in workload.repeats())
    for number in range(100):
        request = workload.session(number).request(0, ())
        if request.repeat:
            assert expected[request.repeat] == (request.messages, request.max_tokens)


def test_parts_come_by_their_weights() -> None:
    workload = Workload([Part(name="a", weight=3, repeats=0), Part(name="b", weight=1, repeats=0), Part(name="c", weight=0)])
    counts = Counter(workload.session(n).request(0, ()).part for n in range(2000))
    assert counts["c"] == 0 and counts["a"] / counts["b"] == pytest.approx(3, rel=0.2)


def test_clients_leave_and_read_slowly_as_often_as_said() -> None:
    workload = Workload([Part(cancel=0.2, slow=0.4)])
    asked = [workload.session(n).request(0, ()) for n in range(2000)]
    assert sum(r.cancel_after is not None for r in asked) / 2000 == pytest.approx(0.2, abs=0.04)
    assert sum(r.read_delay_s > 0 for r in asked) / 2000 == pytest.approx(0.4, abs=0.04)


def test_prompts_share_prefixes() -> None:
    workload = Workload([Part(prefix_tokens=50, prefixes=3, repeats=0)])
    prefixes = {workload.session(n).request(0, ()).messages[0]["content"] for n in range(60)}
    assert len(prefixes) == 3 and all(len(p.split()) == 50 for p in prefixes)


def test_a_conversation_goes_on_after_what_was_said() -> None:
    workload = Workload([Part(turns=3, prefix_tokens=5, think=Lengths("fixed", (2.0,)))])
    session = workload.session(0)
    assert [t.wait_s for t in session.turns] == [0, 2, 2]
    opening = session.request(0, ())
    assert [m["role"] for m in opening.messages] == ["system", "user"]
    second = session.request(1, (*opening.messages, {"role": "assistant", "content": "Yes."}))
    assert [m["role"] for m in second.messages] == ["system", "user", "assistant", "user"]
    assert second.identity != opening.identity


def test_a_trace_sets_both_lengths() -> None:
    request = Workload([Part(repeats=1.0)]).session(5, lengths=(40, 7)).request(0, ())
    assert (len(request.text.split()), request.max_tokens, request.repeat) == (40, 7, None)


def test_prompts_of_a_file_are_asked_in_turn() -> None:
    prompts = parse_prompts('One\n{"prompt": "Two", "max_tokens": 3}\n{"messages": [{"role": "user", "content": "Three"}]}\n')
    workload = Workload([Part(prompts=prompts, repeats=0)])
    assert [first(workload.session(n)) for n in range(4)] == ["One", "Two", "Three", "One"]
    assert workload.session(1).request(0, ()).max_tokens == 3


@pytest.mark.parametrize("text", ["", "\n", '{"question": 1}', "{"])
def test_a_file_without_prompts_is_refused(text: str) -> None:
    with pytest.raises(LoadError):
        parse_prompts(text)


@pytest.mark.parametrize(
    "raw", [{"kind": "poem"}, {"cancel": 2}, {"turns": 0}, {"kind": "json", "turns": 2}, {"colour": 1},
            {"input_tokens": "many"}, {"repeats": "all"}],
)  # fmt: skip
def test_a_part_that_cannot_be_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(LoadError):
        part_of(raw)


def test_a_workload_without_weight_is_refused() -> None:
    with pytest.raises(LoadError):
        Workload([replace(Part(), weight=0)])
