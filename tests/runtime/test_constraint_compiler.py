"""Guides are compiled beside everything else, or refused. Run: pytest tests/runtime/test_constraint_compiler.py"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.constrained import Model
from fakes.runtime import run_out
from fakes.schemas import draw
from triune_runtime.constraints import grammar
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.constraints.grammar import GrammarCompiler
from triune_runtime.constraints.guide import Guide, json_schema
from triune_runtime.errors import Overloaded, RequestError
from triune_runtime.request import Chunk, Request
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner

DATE: Guide = ("regex", "[0-9]{4}-[0-9]{2}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("model"), thinks=False)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (json_schema("x", {"type": "objct"}), "Invalid type: objct"),
        (json_schema("x", {"type": "array", "uniqueItems": True}), "uniqueItems"),
        (json_schema("x", {"type": "string", "pattern": "(?=a)"}), "look-around"),
        (json_schema("x", {"$ref": "#/$defs/missing"}), "missing"),
        (json_schema("x", {"enum": []}), "Unsatisfiable"),
        (("regex", "(a"), "unclosed group"),
        (("regex", "(?<!a)b"), "look-around"),
        (("grammar", "start: other"), "other"),
        (("grammar", "root ::= other"), "other"),
        (("grammar", "root ::= ("), "GBNF"),
        (("grammar", "?"), "grammar cannot be served"),
        (("regex", "(" * 10_000), "regex cannot be served"),
        (("grammar", "start: " + "(" * 10_000 + '"a"' + ")" * 10_000), "nested"),
        (("json_schema", '{"items":' * 10_000 + "{}" + "}" * 10_000), "recursion limit"),
        (("grammar", "start: x0\n" + "\n".join(f"x{i}: x{i + 1} x{i + 1} x{i + 1}" for i in range(900)) + '\nx900: "a"'), ""),
    ],
    ids=range(15),
)
def test_what_cannot_be_served_is_refused_and_says_why(model: Model, guide: Guide, message: str) -> None:
    found: list[Any] = []
    came = threading.Event()
    # On a thread of the compiler's, whose stack holds deep rules.
    model.compiler.submit(guide, model.request(1), lambda made: (found.append(made), came.set())[1])
    assert came.wait(20)
    if message:
        assert isinstance(found[0], RequestError) and message in str(found[0])


FRAGMENTS = st.sampled_from(
    [
        "start:", "a:", '"x"', "/a+/", "/(a|b)*c/", "|", "(", ")", "*", "+", "?", "{2,5}", "{0,1000}", "\n", "a", "~", "&", '"',
        "/", '%json {"type":"object"}', "%json {}", "<[1-5]>", "[0-9]", "%ignore / /", "\\", "::=", "root", "start", "X: /./",
        "X", ".", "^", "$", "(?i)", r"\p{L}", r"\b", "a{,", "é", "\u2028", "[lazy]", "@", '%regex {"substring_words":"a b"}',
        "{", "}",
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["grammar", "regex", "json_schema"]), st.lists(FRAGMENTS, min_size=1, max_size=12), st.booleans())
def test_no_guide_breaks_more_than_its_own_request(model: Model, kind: str, parts: list[str], spaced: bool) -> None:
    source = ("start: " if kind == "grammar" else "") + (" " if spaced else "").join(parts)
    engine = step_loop(model.manifest, FakeRunner(model.manifest.vocab_size, model.manifest.stop_token_ids), model.table)
    try:
        model.submit(engine, model.request(1, (kind, source), max_tokens=20))
    except RequestError:
        return
    engine.submit(model.request(2, max_tokens=20))
    last = {event.key: event for event in run_out(engine) if event.last}
    assert set(last) == {1, 2}
    assert isinstance(last[2].item, Chunk)
    assert isinstance(last[1].item, (Chunk, RequestError))


def test_what_is_not_strict_leaves_out_what_cannot_be_enforced(model: Model) -> None:
    lenient = json_schema("x", {"type": "array", "items": {"enum": [1]}, "maxItems": 2, "uniqueItems": True}, lenient=True)
    (chunk,) = model.answers(model.request(1, lenient))
    assert json.loads(model.text(chunk)) in ([], [1], [1, 1])


def test_the_library_is_loaded_by_the_first_guide_only() -> None:
    probe = (
        "import sys, triune_runtime.serving.generation, triune_runtime.serving.prompts; assert 'llguidance' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)


def test_a_guide_that_waits_can_be_cancelled_and_a_closed_compiler_refuses(model: Model) -> None:
    compiler = ConstraintCompiler(model.manifest, model.table)
    blocked, busy, found = threading.Event(), threading.Barrier(3), []

    def wait(made: object) -> None:
        busy.wait(20)
        blocked.wait(20)

    for number in range(2):  # both threads
        compiler.submit(("regex", f"a{number}"), model.request(1), wait)
    busy.wait(20)
    for name in ("gone", "left"):
        compiler.submit(DATE, dataclasses.replace(model.request(1), id=name), found.append)
    compiler.cancel("gone")
    assert found == [None]
    compiler.close()
    assert len(found) == 2 and isinstance(found[1], Overloaded)
    blocked.set()
    with pytest.raises(Overloaded):
        compiler.submit(DATE, model.request(1), found.append)


def test_a_guide_that_is_being_compiled_can_be_cancelled(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, begun, go_on, came = ConstraintCompiler(model.manifest, model.table), *(threading.Event() for _ in range(3))
    make, found = compiler.make, []

    def slow(guide: Guide, request: Request) -> Any:
        begun.set()
        go_on.wait(20)
        return make(guide, request)

    monkeypatch.setattr(compiler, "make", slow)
    compiler.submit(DATE, dataclasses.replace(model.request(1), id="gone"), lambda made: (found.append(made), came.set())[1])
    assert begun.wait(20)
    compiler.cancel("gone")
    go_on.set()
    assert came.wait(20) and found == [None]


def test_one_guide_serves_many_requests_each_from_its_beginning(model: Model) -> None:
    first, second = (model.compiler.make(DATE, model.request(key)) for key in range(2))
    generator = np.random.default_rng(0)
    answers = [draw(made, model.table, model.manifest.vocab_size, generator, 50) for made in (first, second)]
    assert all(answer is not None and re.fullmatch(DATE[1], answer.decode()) for answer in answers)


def test_answers_are_the_same_wherever_their_tokens_are_taken_in(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    guides: list[Guide] = [("regex", "([a-z]{1,4} ){6}"), json_schema("x", {"type": "array", "items": {"type": "integer"}})]
    requests = [model.request(key, guide, max_tokens=40) for key, guide in enumerate(guides, 1)]
    expected = [chunk.cut.token_ids for chunk in model.answers(*requests)]
    for name in ("_HEAVY_COMPILE_S", "_SLOW_SECONDS"):
        monkeypatch.setattr(grammar, name, -1.0)  # all take long
        monkeypatch.setattr(model, "compiler", ConstraintCompiler(model.manifest, model.table))
        assert [chunk.cut.token_ids for chunk in model.answers(*requests)] == expected


@pytest.mark.parametrize("slow", [False, True])
def test_a_token_of_a_large_grammar_is_taken_in_where_others_can_run_meanwhile(model: Model, slow: bool) -> None:
    """Not on the thread that asks: the library lets nobody run on that."""
    kinds = [{"type": "object", "properties": {"a": {"pattern": f"^[a-z]*{i}$", "type": "string"}}} for i in range(300)]
    compiled = GrammarCompiler(model.table).compile(json_schema("x", {"anyOf": kinds}))
    before, own = time.process_time(), time.thread_time()
    compiled.advance(compiled.matcher, model.table.index(b"{"), slow=slow)
    own, everywhere = time.thread_time() - own, time.process_time() - before
    assert own < everywhere / 4
