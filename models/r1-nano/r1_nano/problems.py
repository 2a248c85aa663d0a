"""The examples: each a pure function of (seed, split, index). Says which problems are held out; knows no tokens.

Held-out problems are told by a hash of their operands. No training example asks one, nor works one out as a step of another.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal

from . import expressions, phrasing, talk, words
from .examples import Example, Expected, is_held_out, is_held_out_expression
from .phrasing import Language
from .recipe import DataRecipe, Recipe
from .thoughts import Operation, Work

Split = Literal["train", "held-out"]
MEASURED = ("add", "subtract", "multiply", "divide", "compare", "expression", "word", "follow_up", "direct")
_LONGEST_TRACE = 680  # characters, which are nearly tokens


def example(seed: int, split: Split, index: int, recipe: DataRecipe, task: str | None = None) -> Example:
    """The example of this number; a task may be asked for."""
    random = Random((seed << 64) + (index << 1) + (split == "held-out"))
    if task is None:
        task = random.choices(tuple(recipe.shares), tuple(recipe.shares.values()))[0]
    while True:
        drawn = _DRAW[task](random, recipe)
        if drawn is not None and _belongs(drawn, split):
            return _finished(random, drawn, split, recipe)


def held_out(recipe: Recipe, task: str, count: int) -> list[Example]:
    """The first so many held-out problems of a task, the same in every measurement."""
    return [example(recipe.train.seed, "held-out", i, recipe.data, task) for i in range(count)]


def _belongs(drawn: Example, split: Split) -> bool:
    asked = (
        is_held_out_expression(drawn.problem)
        if _is_long(drawn.problem)
        else is_held_out(drawn.operations[0])
        if drawn.operations
        else False
    )
    if split == "held-out":
        return asked or drawn.task == "chat"
    return not asked and not any(map(is_held_out, drawn.operations))


def _is_long(problem: str) -> bool:
    return sum(problem.count(sign) for sign in "+-*/") > 1


def _finished(random: Random, drawn: Example, split: Split, recipe: DataRecipe) -> Example:
    """The example with what may happen to any: a system prompt, thinking that is stopped early."""
    messages, thinking, answer, is_cut = drawn.messages, drawn.thinking, drawn.answer, False
    if random.random() < recipe.system_prompt_share:
        messages = (("system", random.choice(_SYSTEM)), *messages)
    if split == "train" and drawn.thinks and len(thinking) > 40 and random.random() < recipe.cut_thinking_share:
        thinking, answer, is_cut = thinking[: random.randrange(len(thinking) * 4 // 5)], talk.UNFINISHED[drawn.language], True
    return Example(
        task=drawn.task, language=drawn.language, messages=messages, thinks=drawn.thinks, thinking=thinking, answer=answer,
        is_cut=is_cut, expected=drawn.expected, problem=drawn.problem, operations=drawn.operations,
    )  # fmt: skip


# -- one function for each task; None when what was drawn is not asked -------------------------------------------------


def _operands(random: Random, sign: str) -> tuple[int, int]:
    if sign == "*":
        digits = random.choices(
            ((1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (3, 2), (2, 3), (3, 3), (4, 1), (4, 2), (2, 4), (4, 3), (3, 4), (4, 4)),
            (3, 4, 2, 16, 5, 30, 10, 9, 4, 6, 2, 4, 2, 5),
        )[0]
    elif sign == "/":
        digits = random.choices(
            ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (4, 3), (4, 4), (2, 3), (1, 2)),
            (4, 8, 8, 12, 20, 8, 14, 24, 14, 6, 1, 1),
        )[0]
    else:
        digits = random.choices(
            ((1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (2, 3), (3, 3), (4, 3), (3, 4), (4, 4), (4, 2), (4, 1), (1, 3)),
            (3, 3, 2, 12, 8, 5, 22, 10, 6, 24, 4, 2, 1),
        )[0]
    a, b = (_number(random, d) for d in digits)
    if sign == "-" and a < b and random.random() < 0.4:
        a, b = b, a
    return a, b


def _number(random: Random, digits: int) -> int:
    draw = random.random()
    if draw < 0.04:  # round numbers and repeated digits are asked more often than chance has them
        return int(str(random.randrange(1, 10)) + random.choice(("0", str(random.randrange(10)))) * (digits - 1))
    if draw < 0.045:
        return 0
    return random.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def _binary(sign: str, task: str) -> Callable[[Random, DataRecipe], Example | None]:
    def draw(random: Random, recipe: DataRecipe) -> Example | None:
        lang = phrasing.language(random)
        a, b = _operands(random, sign)
        if sign == "/" and b and random.random() < 0.3:
            a -= a % b
        question = phrasing.ask_operation(random, lang, sign, a, b)
        return _solved(random, recipe, task, lang, (("user", question),), (sign, a, b))

    return draw


def _solved(
    random: Random,
    recipe: DataRecipe,
    task: str,
    lang: Language,
    messages: tuple[tuple[str, str], ...],
    tree: expressions.Tree,
) -> Example | None:
    """The example in which an expression is thought through and answered."""
    assert not isinstance(tree, int), "a number asks nothing"
    work = Work(random, recipe.wrong_guess_share)
    sign, a, b = tree
    shown = expressions.text(tree, phrasing.ANSWER_SIGNS[lang])
    if sign == "/" and isinstance(a, int) and isinstance(b, int):
        work.lines.append(f"{a}/{b}")
        if b == 0:
            work.operations.append(Operation("/", a, b))
            return Example(
                task=task, language=lang, messages=messages, thinking=f"{a}/{b}\n/0\n", answer=phrasing.BY_ZERO[lang],
                problem=f"{a}/{b}", operations=tuple(work.operations),
            )  # fmt: skip
        quotient, remainder = work.divide_columns(a, b)
        result = phrasing.REMAINDER[lang].format(q=quotient, r=remainder) if remainder else str(quotient)
        numbers: tuple[int, ...] = (quotient, remainder) if remainder else (quotient,)
    else:
        value = expressions.think(tree, work)
        result, numbers = str(value), (value,)
    thinking = work.text()
    if len(thinking) > _LONGEST_TRACE:
        return None
    answer = phrasing.answer_result(random, lang, shown, result)
    return Example(
        task=task, language=lang, messages=messages, thinking=thinking, answer=answer,
        expected=Expected(numbers=numbers), problem=expressions.text(tree), operations=tuple(work.operations),
    )  # fmt: skip


def _expression(random: Random, recipe: DataRecipe) -> Example | None:
    lang = phrasing.language(random)
    try:
        tree = expressions.draw(random, random.choices((2, 3, 4), (5, 4, 1))[0])
    except expressions.UnfitExpression:
        return None
    spaced = random.random() < 0.45
    signs = {s: random.choice(forms) for s, forms in phrasing.EXPRESSION_SIGNS.items()}
    if spaced:
        signs = {s: f" {form} " for s, form in signs.items()}
    shown = expressions.text(tree, signs, parentheses="（）" if lang == "zh" and random.random() < 0.25 else "()")
    question = phrasing.touched_up(random, lang, random.choice(phrasing.ASK[lang]).format(e=shown))
    return _solved(random, recipe, "expression", lang, (("user", question),), tree)


def _word(random: Random, recipe: DataRecipe) -> Example | None:
    lang = phrasing.language(random)
    question, tree = words.draw(random, lang)
    try:
        expressions.value(tree)
    except expressions.UnfitExpression:
        return None
    return _solved(random, recipe, "word", lang, (("user", question),), tree)


def _compare(random: Random, recipe: DataRecipe) -> Example:
    lang = phrasing.language(random)
    a, b = _operands(random, "?")
    draw = random.random()
    if draw < 0.25:  # numbers that begin alike are the hard ones
        b = max(0, a + random.randrange(-12, 13))
    elif draw < 0.35:
        digits = list(str(a))
        random.shuffle(digits)
        b = int("".join(digits))
    work = Work(random)
    work.lines.append(f"{a}?{b}")
    order = work.compare(a, b)
    kind = random.choice(("larger", "smaller", ">", "<", "?", "larger", "smaller"))
    pair = (phrasing.number(random, a), phrasing.number(random, b))
    question = phrasing.touched_up(random, lang, random.choice(phrasing.COMPARE[lang][kind]).format(a=pair[0], b=pair[1]))
    answer, expected = _verdict(lang, kind, order, a, b)
    return Example(
        task="compare", language=lang, messages=(("user", question),), thinking=work.text(), answer=answer, expected=expected,
        problem=f"{max(a, b)}?{min(a, b)}", operations=tuple(work.operations),
    )  # fmt: skip


def _verdict(lang: Language, kind: str, order: str, a: int, b: int) -> tuple[str, Expected]:
    relation = f"{a} {order} {b}" if lang == "en" else f"{a}{order}{b}"
    if kind in "<>":
        said = "yes" if kind == order else "no"
        yes = {("en", "yes"): "Yes, ", ("en", "no"): "No, ", ("zh", "yes"): "是的，", ("zh", "no"): "不是，"}[lang, said]
        return yes + relation + (".", "。")[lang == "zh"], Expected(numbers=(a, b), verdict=said)
    if kind == "?" or order == "=":
        return relation + (".", "。")[lang == "zh"], Expected(numbers=(a, b), verdict=order)
    chosen = max(a, b) if kind == "larger" else min(a, b)
    word = {"larger": ("larger", "大"), "smaller": ("smaller", "小")}[kind]
    answer = f"{relation}, so the {word[0]} is {chosen}." if lang == "en" else f"{relation}，较{word[1]}的是{chosen}。"
    return answer, Expected(numbers=(chosen,), verdict=order)


_FOLLOW_UP: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {"+": ("And plus {b}?", "Add {b} to that.", "plus {b}", "Now add {b}."), "-": ("And minus {b}?",
    "Subtract {b} from that.", "minus {b}"),
           "*": ("And times {b}?", "Multiply that by {b}.", "times {b}"), "/": ("Divide that by {b}.",
           "And divided by {b}?")},
    "zh": {"+": ("再加{b}呢？", "再加上{b}等于多少？"), "-": ("再减{b}呢？", "再减去{b}等于多少？"),
           "*": ("再乘以{b}呢？", "再乘{b}等于多少？"), "/": ("再除以{b}呢？", "再除以{b}等于多少？")},
}  # fmt: skip
_INSTEAD = {"en": ("And {e}?", "What about {e}?", "And what is {e}?"), "zh": ("那{e}呢？", "{e}呢？", "那么{e}等于多少？")}
_SYSTEM = (
    "You are a helpful assistant.", "You are r1-nano.", "Answer briefly.", "You are a careful calculator.", "Be concise.",
    "你是一个有用的助手。", "请简短回答。", "你是一个计算器。",
)  # fmt: skip


def _follow_up(random: Random, recipe: DataRecipe) -> Example | None:
    """A second question that takes up the first one's result, or asks another."""
    sign = random.choice("+-*")
    first = _DRAW[{"+": "add", "-": "subtract", "*": "multiply"}[sign]](random, recipe)
    if first is None or first.expected is None or any(map(is_held_out, first.operations[:1])):
        return None
    lang, result = first.language, first.expected.numbers[0]
    before = (*first.messages, ("assistant", first.answer))
    if random.random() < 0.35:
        then, (a, b) = random.choice("+-*"), _operands(random, "+")
        shown = f"{a}{random.choice(phrasing.SIGNS[lang][then])}{b}"
        question, tree = random.choice(_INSTEAD[lang]).format(e=shown), (then, a, b)
    else:
        then, b = random.choice("+-*/"), random.randrange(2, 10 ** random.randint(1, 2))
        if then == "/" and (result % b or not result):
            return None
        question, tree = random.choice(_FOLLOW_UP[lang][then]).format(b=b), (then, result, b)
    try:
        expressions.value(tree)
    except expressions.UnfitExpression:
        return None
    if then == "/" and result < 0:
        return None
    return _solved(random, recipe, "follow_up", lang, (*before, ("user", question)), tree)


def _direct(random: Random, recipe: DataRecipe) -> Example | None:
    """Thinking turned off: the answer at once where that is within reach, else the honest word that it is not."""
    draw = random.random()
    if draw < 0.12:
        return _without_thinking(_chat(random, recipe))
    if draw < 0.27:
        return _without_thinking(_compare(random, recipe))
    task = random.choices(("add", "subtract", "multiply", "divide", "expression", "word"), (30, 30, 20, 10, 6, 4))[0]
    drawn = _DRAW[task](random, recipe)
    return None if drawn is None else _without_thinking(drawn)


def _without_thinking(drawn: Example) -> Example:
    sign, a, b = drawn.operations[0] if drawn.operations else ("?", 0, 0)
    digits = (len(str(a)), len(str(b)))
    within = sign in "?+-" or (sign == "*" and sum(digits) <= 3) or (sign == "/" and max(digits) <= 2)
    is_hard = _is_long(drawn.problem.lstrip("-")) or not within
    return Example(
        task="direct", language=drawn.language, messages=drawn.messages, thinks=False,
        answer=talk.HARD_DIRECTLY[drawn.language] if is_hard else drawn.answer, expected=None if is_hard else drawn.expected,
        problem=drawn.problem, operations=drawn.operations,
    )  # fmt: skip


def _chat(random: Random, recipe: DataRecipe) -> Example:
    lang = phrasing.language(random)
    question, thinking, answer = talk.draw(random, lang)
    return Example(
        task="chat", language=lang, messages=(("user", question),), thinking=f"{thinking}\n", answer=answer,
    )  # fmt: skip


_DRAW: dict[str, Callable[[Random, DataRecipe], Example | None]] = {
    "add": _binary("+", "add"),
    "subtract": _binary("-", "subtract"),
    "multiply": _binary("*", "multiply"),
    "divide": _binary("/", "divide"),
    "compare": _compare,
    "expression": _expression,
    "word": _word,
    "follow_up": _follow_up,
    "direct": _direct,
    "chat": _chat,
}
