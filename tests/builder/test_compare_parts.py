"""What a comparison is made of, without engines. Run: pytest tests/builder/test_compare_parts.py"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tokenizers import Tokenizer

from fakes.tiny_build import LIMITS
from fakes.tiny_llama import TinyRunner, tiny_config, tiny_weights
from r1_nano.questions import questions
from r1_nano.tokenizer import END_THINK
from triune_builder.comparing.article import beside
from triune_builder.comparing.asking import asked_of, usual
from triune_builder.comparing.problems import Problems
from triune_builder.comparing.rows import Comparison, Round, Row
from triune_builder.comparing.table import tables
from triune_builder.comparing.worker import answer
from triune_builder.targets import find_target
from triune_runtime.runner import Work

ROOT = Path(__file__).parents[2]
WORDS = "A letter of thanks, written to no one in particular, about the weather, the harvest and the price of paper. " * 4


def test_what_is_compared_by_default_is_what_quantizes_and_the_float_weights() -> None:
    assert {variant.name for variant in usual(find_target("cpu"))} == {"fp32", "int8", "int4", "w8a8"}
    assert [v.name for v in asked_of("r1-nano", "int4-gptq w8a8,w8a8", {}).variants] == ["int4-gptq", "w8a8"]


def test_calibration_is_of_the_variants_that_calibrate(tmp_path: Path) -> None:
    (file := tmp_path / "own.txt").write_text(WORDS)
    asked = asked_of("r1-nano", "fp32,w8a8,int4,int4-gptq", {}, calibration=[str(file)])
    assert [len(asked.plan(variant).calibration) for variant in asked.variants] == [0, 1, 0, 1]


def a_row(name: str, precision: str, speeds: Sequence[float], size: int) -> Row:
    rounds = [Round(tokens_per_s={"1": rate, "prefill": 1.0}, memory_bytes=1, peak_bytes=1) for rate in speeds]
    return Row(name=name, precision=precision, rounds=rounds, disk_bytes=size)


def test_speeds_beside_the_article_are_of_engines_in_the_same_round() -> None:
    rows = [a_row("fp32", "fp32", [10.0, 1.0, 10.0], 100), a_row("bf16", "bf16", [20.0, 3.0, 20.0], 50)]
    found = Comparison(model="m", target="cpu", twin="fp32", machine="", rounds=3, rows=rows)
    (one,) = beside(found)
    assert (one.here.speed, one.here.saved, one.here.loss) == (2.0, 0.5, None)
    assert beside(Comparison(model="m", target="cpu", twin="fp32", machine="", rounds=3, rows=rows[1:])) == []
    shown = shown_as_text(found)
    assert "at most 90%" in shown and "which is much" in shown


def shown_as_text(found: Comparison) -> str:
    Console(file=(out := StringIO()), width=100).print(tables(found))
    return out.getvalue()


def alone(runner: TinyRunner, prompt: Sequence[int], stops: Sequence[int], most: int) -> list[int]:
    """One prompt, one token after the other, in the plainest way."""
    tokens, said = list(prompt), list[int]()
    if len(tokens) >= LIMITS.max_length:
        return []
    for position, token in enumerate(tokens):
        (row,) = runner.run([Work(0, position, (token,))])
    while True:
        if (best := int(row.argmax())) in stops:
            return said
        said.append(best)
        if len(said) >= most or len(tokens) + 1 >= LIMITS.max_length:
            return said
        tokens.append(best)
        (row,) = runner.run([Work(0, len(tokens) - 1, (best,))])


@pytest.mark.parametrize("most", [1, 4, 50])
def test_answers_are_those_of_each_prompt_alone(most: int) -> None:
    config = tiny_config(num_hidden_layers=1)
    runner = TinyRunner(config, tiny_weights(config), {})
    prompts = [[(7 * n + k) % 256 for k in range(1 + n % 6)] for n in range(10)] + [[1] * LIMITS.max_length]
    first = alone(runner, prompts[3], [], 3)
    stops = first[-1:]  # ends some answers, one of them in its middle
    expected = [alone(runner, prompt, stops, most) for prompt in prompts]
    assert answer(runner, LIMITS, prompts, stops, most) == expected
    assert expected[-1] == [] and (most < 50 or any(len(said) < most for said in expected[:-1]))


def test_r1_nanos_problems_are_scored_by_its_own_rules() -> None:
    problems = Problems((ROOT / "models/r1-nano/checkpoint/tokenizer.json").read_text("utf-8"), 2)
    encode = Tokenizer.from_file(str(ROOT / "models/r1-nano/checkpoint/tokenizer.json")).encode
    said = [f"{drawn.thinking}{END_THINK}\n\n{drawn.answer}" if drawn.thinks else drawn.answer for drawn in questions(2)]
    right = problems.score([encode(text, add_special_tokens=False).ids for text in said])
    assert right.share == 1.0 and sum(right.asked.values()) == len(problems.prompts) == 19
    assert problems.score([[] for _ in said]).share == 0.0
