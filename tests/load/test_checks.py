"""The checks on answers that are made by hand. Run: pytest tests/load/test_checks.py"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from triune_load.core.answer import Answer, CallPiece, Event, Failure
from triune_load.core.checks import CHECKS, Promises, check_answer
from triune_load.core.failures import KINDS, of_code, of_message, of_status
from triune_load.core.repeats import RunChecks
from triune_load.core.request import Request
from triune_load.core.schema import misfit
from triune_load.core.workload import SCHEMA, TOOL

PROMISES = Promises(first_index=0, counted=True, finished=True, marked=True, echoed=True)


def request(**changes: Any) -> Request:
    made = Request(
        identity="r", part="p", messages=({"role": "user", "content": "x"},), chat=False, max_tokens=3, temperature=0, seed=0
    )
    return replace(made, **changes)


def good(asked: Request | None = None, text: str = "abc") -> Answer:
    found = Answer(asked or request(), 0.0)
    for n, letter in enumerate(text):
        last = n == len(text) - 1
        found.take(
            0.1 * n, Event(text=letter, tokens=1, index=n, identity=found.request.identity, finish="length" if last else None)
        )
    found.take(0.1 * len(text), Event(done=True, input_tokens=5, output_tokens=len(text), total_tokens=5 + len(text)))
    return found


def checks_of(answer: Answer, promises: Promises = PROMISES, stall_s: float = 9.0) -> set[str]:
    return {v.check for v in check_answer(answer, promises, stall_s=stall_s)}


def test_a_good_answer_breaks_nothing_and_promises_what_it_has() -> None:
    assert checks_of(good()) == set()
    assert Promises.of(good(), marked=True) == PROMISES


@pytest.mark.parametrize(
    ("changes", "check"),
    [({"finish": None, "finishes": 0}, "complete"), ({"dones": 0}, "complete"), ({"dones": 2}, "complete"),
     ({"finishes": 2}, "finish"),
     ({"finish": "because"}, "finish"), ({"output_tokens": 4}, "counts"), ({"total_tokens": 9}, "counts"),
     ({"after_end": 1}, "order"),
     ({"identities": {"other": None}}, "identity"), ({"identities": {"r": None, "s": None}}, "identity"),
     ({"longest_silence_s": 10.0}, "stall"), ({"malformed": [("utf8", "x")]}, "utf8"),
     ({"failure": Failure("broken", "x")}, "lost"), ({"failure": Failure("timeout", "x")}, "lost")],
)  # fmt: skip
def test_each_way_of_being_wrong_is_found(changes: dict[str, Any], check: str) -> None:
    answer = good()
    for name, value in changes.items():
        setattr(answer, name, value)
    assert check in checks_of(answer)


@pytest.mark.parametrize("kind", ["overloaded", "refused", "server error", "no connection"])
def test_a_refusal_is_an_error_and_no_wrong_answer(kind: str) -> None:
    answer = Answer(request(), 0.0, failure=Failure(kind, "x"))
    assert checks_of(answer) == set()


def test_length_before_the_length_is_no_reason() -> None:
    assert checks_of(good(request(max_tokens=4))) == {"finish"}
    assert checks_of(good(request(max_tokens=2))) == {"counts"}


def test_an_end_that_was_to_be_ignored() -> None:
    answer = good(request(ignore_eos=True, max_tokens=9))
    answer.finish = "stop"
    assert checks_of(answer) == {"finish"}


def test_an_answer_that_was_left_must_only_have_been_in_order() -> None:
    answer = Answer(request(), 0.0, cancelled=True)
    answer.take(0.1, Event(text="a", tokens=1, index=0, identity="r"))
    assert checks_of(answer) == set()
    answer.take(0.2, Event(text="c", tokens=1, index=2, identity="r"))
    assert checks_of(answer) == {"order"}


def finished(asked: Request, *, text: str = "", calls: tuple[CallPiece, ...] = (), finish: str = "stop") -> Answer:
    answer = Answer(asked, 0.0)
    answer.take(0.1, Event(text=text, calls=calls, tokens=2, index=0, identity="r", finish=finish, done=True))
    return answer


def test_an_answer_held_to_a_schema_must_fit_it_unless_it_was_cut_off() -> None:
    asked = request(schema=SCHEMA)
    assert checks_of(finished(asked, text='{"name": "A", "age": 3, "likes": []}')) == set()
    assert checks_of(finished(asked, text='{"name": "A", "age": "3", "likes": []}')) == {"json"}
    assert checks_of(finished(asked, text='{"name": "A"')) == {"json"}
    assert "json" not in checks_of(finished(asked, text='{"name": "A"', finish="length"))


def test_calls_must_be_of_the_tools_that_there_are_with_arguments_that_fit() -> None:
    asked = request(tools=(TOOL,))
    fits = CallPiece(0, "get_weather", '{"city": "Paris", "unit": "celsius"}')
    assert checks_of(finished(asked, calls=(fits,), finish="tool_calls")) == set()
    for wrong in (
        CallPiece(0, "rain", "{}"),
        CallPiece(0, "get_weather", "{"),
        CallPiece(0, "get_weather", '{"city": "Paris"}'),
    ):
        assert checks_of(finished(asked, calls=(wrong,), finish="tool_calls")) == {"json"}
    assert checks_of(finished(asked, finish="tool_calls")) == {"finish"}


def test_repeats_must_be_equal_and_a_left_one_a_beginning() -> None:
    checks = RunChecks(CHECKS, PROMISES, stall_s=9)
    repeat = request(repeat="a")
    checks.expect(good(repeat))
    assert checks.check(good(repeat)) == []
    (found,) = checks.check(good(replace(repeat, identity="s"), text="abd"))
    assert found.check == "text" and "character 2" in found.message
    part = Answer(replace(repeat, identity="t"), 0.0, cancelled=True)
    part.take(0.1, Event(text="ab", tokens=2, index=0, identity="t"))
    assert checks.check(part) == []
    part.take(0.2, Event(text="x", tokens=1, index=1, identity="t"))
    assert [v.check for v in checks.check(part)] == ["text"]
    assert checks.compared == 4


def test_two_answers_must_not_share_an_id() -> None:
    checks = RunChecks(CHECKS, replace(PROMISES, echoed=False), stall_s=9)
    first, second = good(), good()
    second.request = request(identity="other")
    assert checks.check(first) == []
    assert [v.check for v in checks.check(second)] == ["identity"]


def test_only_the_checks_that_are_asked_for_are_told() -> None:
    answer = good()
    answer.dones, answer.finish = 0, "because"
    assert [v.check for v in RunChecks({"finish"}, PROMISES, stall_s=9).check(answer)] == ["finish"]
    assert RunChecks(set(), PROMISES, stall_s=9).check(answer) == []


@pytest.mark.parametrize(
    ("value", "fits"),
    [({"name": "A", "age": 3, "likes": ["x"]}, True), ({"name": "A", "age": True, "likes": []}, False),
     ({"name": "A", "age": 121, "likes": []}, False), ({"name": "A" * 13, "age": 1, "likes": []}, False),
     ({"name": "A", "age": 1, "likes": ["a", "b", "c"]}, False), ({"name": "A", "age": 1, "likes": [1]}, False),
     ({"name": "A", "age": 1}, False), ({"name": "A", "age": 1, "likes": [], "more": 1}, False), ([], False)],
)  # fmt: skip
def test_values_fit_a_schema_or_do_not(value: object, fits: bool) -> None:
    assert (misfit(value, SCHEMA) is None) == fits


def test_failures_are_of_known_kinds() -> None:
    found = (
        {of_status(s) for s in range(300, 600)} | {of_code(c) for c in ("UNAVAILABLE", "INTERNAL", "NEW")} | {of_message("x")}
    )
    assert found <= set(KINDS)
    assert of_status(400, "UNAVAILABLE: the queue is full") == "overloaded"  # Triton 24.10 has 400 for everything
    assert of_code("UNAVAILABLE", "failed to connect to all addresses") == "no connection"
    assert of_code("UNAVAILABLE", "Socket closed") == "broken"
    assert of_message("INVALID_ARGUMENT: top_p is 3") == "refused"
