"""The generated problems: pure, true line by line, and never shared between training and measuring."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_nano.examples import Example, is_held_out, is_held_out_expression
from r1_nano.expressions import text, think
from r1_nano.problems import example
from r1_nano.recipe import DataRecipe
from r1_nano.scoring import is_right
from r1_nano.thoughts import Operation, Work
from support.trace_checker import check_trace, evaluate

RECIPE = DataRecipe()
TASKS = tuple(RECIPE.shares)
numbers = st.integers(0, 9999)
indices = st.integers(0, 2**40)


@given(seed=st.integers(0, 2**31), index=indices, task=st.sampled_from(TASKS))
@settings(max_examples=150, deadline=None)
def test_example_is_a_pure_function_of_its_number(seed: int, index: int, task: str) -> None:
    assert example(seed, "train", index, RECIPE, task) == example(seed, "train", index, RECIPE, task)


@given(index=indices, task=st.sampled_from(TASKS))
@settings(max_examples=400, deadline=None)
def test_every_step_is_true_and_leads_to_the_answer(index: int, task: str) -> None:
    drawn = example(1, "train", index, RECIPE, task)
    if drawn.is_cut or drawn.task == "chat" or not drawn.thinks or drawn.thinking.endswith("/0\n"):
        return
    result = check_trace(drawn.thinking)
    assert is_right(drawn, drawn.answer), drawn
    if drawn.expected is not None and not drawn.expected.verdict:
        assert result == drawn.expected.numbers[0]
        first = drawn.thinking.splitlines()[0]
        assert evaluate(first).__floor__() == drawn.expected.numbers[0]
        assert evaluate(drawn.problem) == evaluate(first)


@given(a=numbers, b=numbers, sign=st.sampled_from("+-*"))
@settings(max_examples=400, deadline=None)
def test_column_work_equals_python(a: int, b: int, sign: str) -> None:
    work = Work(Random(0))
    result = {"+": work.add, "-": work.subtract, "*": work.multiply}[sign](a, b)
    assert result == evaluate(f"{a}{sign}{b}") == check_trace(f"{a}{sign}{b}\n{work.text()}")


@given(a=numbers, b=st.integers(1, 9999), wrong=st.sampled_from((0.0, 0.5, 0.9)), seed=st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_long_division_finds_the_quotient_after_wrong_guesses(a: int, b: int, wrong: float, seed: int) -> None:
    work = Work(Random(seed), wrong)
    assert work.divide_columns(a, b) == divmod(a, b)
    check_trace(f"{a}/{b}\n{work.text()}")
    assert work.lines[-1] == f"={a // b}r{a % b}"


@given(a=st.integers(-9999, 9999), b=st.integers(-9999, 9999), sign=st.sampled_from("+-*"))
@settings(max_examples=300, deadline=None)
def test_signs_are_worked_out(a: int, b: int, sign: str) -> None:
    work = Work(Random(0))
    tree = (sign, a, b)
    assert think(tree, work) == check_trace(work.text()) == evaluate(text(tree))


def operations_of(drawn: Example) -> set[Operation]:
    """The operations that an example shows worked out, in a form that does not depend on the order of + * and ?."""
    return {op if op.sign == "/" else Operation(op.sign, *sorted(op[1:])) for op in drawn.operations}


@pytest.mark.parametrize("task", [t for t in TASKS if t != "chat"])
def test_training_never_shows_a_held_out_problem(task: str) -> None:
    held_out = [example(1, "held-out", i, RECIPE, task) for i in range(60)]
    asked = {drawn.problem for drawn in held_out}
    first = {next(iter(operations_of(d))) for d in held_out if len(d.operations) == 1}
    for index in range(600):
        drawn = example(1, "train", index, RECIPE, task)
        assert drawn.problem not in asked or not drawn.operations
        assert not any(map(is_held_out, drawn.operations))
        assert not operations_of(drawn) & first


@given(a=numbers, b=numbers, sign=st.sampled_from("+-*?"))
def test_a_problem_is_held_out_in_either_order(a: int, b: int, sign: str) -> None:
    assert is_held_out(Operation(sign, a, b)) == is_held_out(Operation(sign, b, a))


def test_about_one_in_sixty_four_is_held_out() -> None:
    random = Random(5)
    operations = [
        Operation(random.choice("+-*/?"), random.randrange(100, 10_000), random.randrange(10, 10_000)) for _ in range(20_000)
    ]
    assert 0.012 < sum(map(is_held_out, operations)) / len(operations) < 0.020
    assert 0.012 < sum(is_held_out_expression(f"{op.left}+{op.right}*7") for op in operations) / len(operations) < 0.020


@given(index=indices)
@settings(max_examples=150, deadline=None)
def test_numbers_of_the_question_are_those_of_the_problem(index: int) -> None:
    drawn = example(1, "held-out", index, RECIPE, "multiply")
    digits = "".join(
        c for c in drawn.messages[-1][1].translate(str.maketrans("０１２３４５６７８９", "0123456789")) if c.isdigit()
    )
    a, b = drawn.problem.split("*")
    assert digits in (a + b, b + a)
