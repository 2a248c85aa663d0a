"""Answers under a constraint, in an engine over a fake model. Run: pytest tests/runtime/test_constraints.py"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.runtime import chunks_of, run_out
from fakes.schemas import draw, random_schema
from fakes.thinking import thinking_engine
from support.real_server import REPOSITORY
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.constraints.guide import Guide, choice, json_schema
from triune_runtime.engine import Engine
from triune_runtime.errors import Overloaded, RequestError, TriuneError
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.runners.fake import FakeRunner
from triune_runtime.text.tokenizer import load_token_bytes
from triune_runtime.text.vocabulary import TokenBytes

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "s": {"type": "string", "maxLength": 3}},
    "required": ["n", "s"],
    "additionalProperties": False,
}
DATE: Guide = ("regex", "[0-9]{4}-[0-9]{2}")


class Model:
    """A fake model, and what is needed to constrain its answers."""

    def __init__(self, folder: Path, *, thinks: bool) -> None:
        self.manifest = thinking_engine(folder, limits=Limits(max_length=512, max_sequences=8))
        if not thinks:
            self.manifest = dataclasses.replace(self.manifest, reasoning=None)
        self.table = load_token_bytes(folder, self.manifest)
        self.compiler = ConstraintCompiler(self.manifest, self.table)

    def request(
        self, key: int, guide: Guide | None = None, *, opened: bool = False, prompt: tuple[int, ...] = (), **params: Any
    ) -> Request:
        given = SamplingParams(**({"max_tokens": 200, "temperature": 1.0, "seed": key} | params), guide=guide)
        thinks = self.manifest.reasoning is not None
        request = Request(
            key=key, prompt=prompt or tuple(range(5 + key % 7)), params=given, thinking_open=opened, separate_reasoning=thinks,
            stream=False,
        )  # fmt: skip
        return request if guide is None else dataclasses.replace(request, constraint=self.compiler.make(guide, request))

    def answers(self, *requests: Request) -> list[Chunk]:
        """The one chunk of each request, served together."""
        engine = Engine(self.manifest, FakeRunner(self.manifest.vocab_size, self.manifest.stop_token_ids), self.table)
        for request in requests:
            engine.submit(request)
        events = run_out(engine)
        for event in events:
            assert isinstance(event.item, Chunk), event.item
        return [chunks_of(events, request.key)[0] for request in requests]

    def text(self, chunk: Chunk) -> str:
        begin = chunk.border[1] if chunk.border else chunk.byte_start
        return self.table.join(chunk.token_ids)[begin : chunk.byte_stop].decode()

    def thought(self, chunk: Chunk) -> str:
        assert chunk.border is not None
        return self.table.join(chunk.token_ids)[chunk.byte_start : chunk.border[0]].decode("utf-8", "replace")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("model"), thinks=False)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("thinker"), thinks=True)


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_satisfies_its_schema_and_says_stop(model: Model, seed: int) -> None:
    (chunk,) = model.answers(model.request(seed, json_schema("x", SCHEMA), temperature=float(seed > 0), max_tokens=400))
    jsonschema.validate(json.loads(model.text(chunk)), SCHEMA)
    assert chunk.finish_reason == "stop"


@pytest.mark.parametrize(
    ("guide", "pattern"),
    [
        (DATE, r"\d{4}-\d{2}"),
        (("regex", "^a{2,3}$"), "a{2,3}"),
        (("regex", r"b\$"), r"b\$"),
        (choice("x", ["yes", 'n"o', "ü\n"]), 'yes|n"o|ü\n'),
        (("grammar", 'start: NUMBER ("+" NUMBER){2}\nNUMBER: /[0-9]/'), r"\d\+\d\+\d"),
        (("grammar", 'root ::= "<" word ">"\nword ::= [a-c]'), "<[a-c]>"),
    ],
)
def test_a_regex_a_choice_and_a_grammar_are_matched_as_a_whole(model: Model, guide: Guide, pattern: str) -> None:
    for chunk in model.answers(*(model.request(key, guide) for key in range(6))):
        assert re.fullmatch(pattern, model.text(chunk)), model.text(chunk)
        assert chunk.finish_reason == "stop"


def test_a_finished_grammar_ends_the_answer_whatever_else_was_asked(model: Model) -> None:
    (chunk,) = model.answers(model.request(1, DATE, min_tokens=50, ignore_eos=True))
    assert re.fullmatch(DATE[1], model.text(chunk))
    assert chunk.finish_reason == "stop" and chunk.new_tokens <= len("2026-11")


def test_an_answer_ends_only_where_its_grammar_allows(model: Model) -> None:
    likely = tuple((token, 100.0) for token in model.manifest.stop_token_ids)
    (chunk,) = model.answers(model.request(1, ("regex", "[a-z]{5,}"), logit_bias=likely))
    assert re.fullmatch("[a-z]{5,}", model.text(chunk)) and chunk.finish_reason == "stop"
    assert chunk.new_tokens < 10


def test_an_answer_that_is_cut_off_says_length(model: Model) -> None:
    (chunk,) = model.answers(model.request(1, ("regex", "[a-z]{100}"), max_tokens=5))
    assert (chunk.finish_reason, chunk.new_tokens) == ("length", 5)


def test_a_grammar_and_bans_that_leave_nothing_end_the_answer_with_an_error(model: Model) -> None:
    engine = Engine(model.manifest, FakeRunner(model.manifest.vocab_size), model.table)
    banned = tuple((token,) for token, raw in enumerate(model.table) if raw.startswith(b"a"))
    engine.submit(model.request(1, ("regex", "a+"), bad_words=banned))
    (event,) = run_out(engine)
    assert isinstance(event.item, TriuneError)


def test_neighbours_with_constraints_change_no_byte_of_a_free_answer(model: Model) -> None:
    chance = random.Random(3)
    requests = []
    for key in range(24):
        guide = json_schema("x", random_schema(chance, 2)) if key % 3 == 0 else DATE if key % 3 == 1 else None
        requests.append(lambda key=key, guide=guide: model.request(key, guide, temperature=1.0 + key % 2, max_tokens=60))
    together = model.answers(*(make() for make in requests))
    for make, chunk in zip(requests, together, strict=True):
        assert model.answers(make()) == [chunk]


def test_the_thinking_stays_free_and_the_answer_does_not(thinker: Model) -> None:
    for chunk in thinker.answers(*(thinker.request(key, DATE, opened=True, thinking_budget=9) for key in range(6))):
        assert re.fullmatch(DATE[1], thinker.text(chunk))
        assert chunk.finish_reason == "stop" and chunk.reasoning_tokens > 0
        assert not re.fullmatch("[0-9-]*", thinker.thought(chunk))


def test_a_model_that_need_not_think_may_begin_to_unless_its_prompt_has_closed_thinking(thinker: Model) -> None:
    opening, closing = (thinker.table.index(marker) for marker in (b"<think>", b"</think>"))
    likes, dislikes = ((opening, 50.0),), ((opening, -50.0),)
    thinks, answers, closed = thinker.answers(
        thinker.request(1, DATE, logit_bias=likes, thinking_budget=5),
        thinker.request(2, DATE, logit_bias=dislikes),
        thinker.request(3, DATE, logit_bias=likes, prompt=(7, opening, closing)),
    )
    assert re.fullmatch(DATE[1], thinker.text(thinks)) and thinker.thought(thinks)
    for chunk in (answers, closed):
        assert re.fullmatch(DATE[1], thinker.text(chunk)) and not thinker.thought(chunk)


def test_markers_of_thinking_are_no_part_of_a_constrained_text(thinker: Model) -> None:
    liked = ((thinker.table.index(b"</think>"), 60.0),)
    (chunk,) = thinker.answers(thinker.request(1, ("regex", "x.{20}"), opened=True, logit_bias=liked))
    assert re.fullmatch("x.{20}", thinker.text(chunk)) and "</think>" not in thinker.text(chunk)


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
    try:
        request = model.request(1, (kind, source), max_tokens=20)
    except RequestError:
        return
    engine = Engine(model.manifest, FakeRunner(model.manifest.vocab_size, model.manifest.stop_token_ids), model.table)
    engine.submit(request)
    engine.submit(model.request(2, max_tokens=20))
    last = {event.key: event for event in run_out(engine) if event.last}
    assert set(last) == {1, 2}
    assert isinstance(last[2].item, Chunk)
    assert isinstance(last[1].item, Chunk) or "grammar cannot go on" in str(last[1].item)


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

    for _ in range(2):  # both threads
        compiler.submit(DATE, model.request(1), wait)
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


@pytest.fixture(scope="module")
def smollm2() -> tuple[EngineManifest, TokenBytes]:
    folder = REPOSITORY / "generate" / "1"
    if not folder.exists():
        pytest.fail(f"no engine in {folder}: run `make engine`")
    manifest = EngineManifest.load(folder)
    return manifest, load_token_bytes(folder, manifest)


def test_200_random_schemas_hold_with_a_random_sampler(smollm2: tuple[EngineManifest, TokenBytes]) -> None:
    manifest, table = smollm2
    compiler, generator = ConstraintCompiler(manifest, table), np.random.default_rng(7)
    finished = 0
    for number in range(200):
        schema = random_schema(random.Random(number))
        made = compiler.make(json_schema("x", schema), Request(key=1, prompt=(1,)))
        answer = draw(made, table, manifest.vocab_size, generator, 1500)
        if answer is not None:
            finished += 1
            jsonschema.validate(json.loads(answer), schema)
    assert finished >= 190
