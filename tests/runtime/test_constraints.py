"""Answers under a constraint, in an engine over a fake model. Run: pytest tests/runtime/test_constraints.py"""

from __future__ import annotations

import dataclasses
import json
import random
import re

import jsonschema
import numpy as np
import pytest

from fakes.constrained import Model
from fakes.drafts import Oracle, tokens_alone
from fakes.runtime import chunks_of, run_out
from fakes.schemas import draw, random_schema
from support.real_server import REPOSITORY
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.constraints.guide import Guide, choice, json_schema
from triune_runtime.errors import TriuneError
from triune_runtime.generation.loop import StepLoop
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner
from triune_runtime.text.tokenizer import load_token_bytes
from triune_runtime.text.vocabulary import TokenBytes

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "s": {"type": "string", "maxLength": 3}},
    "required": ["n", "s"],
    "additionalProperties": False,
}
DATE: Guide = ("regex", "[0-9]{4}-[0-9]{2}")


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
    engine = step_loop(model.manifest, FakeRunner(model.manifest.vocab_size), model.table)
    banned = tuple((token,) for token, raw in enumerate(model.table) if raw.startswith(b"a"))
    model.submit(engine, model.request(1, ("regex", "a+"), bad_words=banned))
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


def test_drafts_change_no_byte_of_a_constrained_answer(model: Model, thinker: Model) -> None:
    """Of a run that checks several tokens, the one that ends the grammar is the last, and the ones before it count."""
    for key in range(24):
        of, opened = (thinker, True) if key % 2 else (model, False)

        def make(of: Model = of, key: int = key, opened: bool = opened) -> Request:
            return of.request(key, DATE, opened=opened, thinking_budget=3 if opened else None)

        def engine(speculator: Oracle | None = None, of: Model = of) -> StepLoop:
            return step_loop(
                of.manifest, FakeRunner(of.manifest.vocab_size, of.manifest.stop_token_ids), of.table, drafts=speculator
            )

        (wanted,) = of.answers(make())
        known = tokens_alone(make(), engine, of.compiler.make(DATE, make()))
        drafting = engine(Oracle({key: known}, random.Random(key)))
        of.submit(drafting, make())
        (chunk,) = chunks_of(run_out(drafting), key)
        assert dataclasses.replace(chunk, drafted=0, accepted=0) == wanted


def test_the_thinking_stays_free_and_the_answer_does_not(thinker: Model) -> None:
    for chunk in thinker.answers(*(thinker.request(key, DATE, opened=True, thinking_budget=9) for key in range(6))):
        assert re.fullmatch(DATE[1], thinker.text(chunk))
        assert chunk.finish_reason == "stop" and chunk.cut.reasoning_tokens > 0
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
