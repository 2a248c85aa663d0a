"""How a problem is asked and how its answer is worded, in English and in Chinese. Computes nothing."""

from __future__ import annotations

from random import Random

Language = str  # "en" or "zh"

# Each phrase is written with {e}, the expression as it is written with signs or words.
ASK = {
    "en": (
        "What is {e}?", "what is {e}", "What is {e}?", "What's {e}?", "what's {e}", "What does {e} equal?",
        "How much is {e}?",
        "how much is {e}", "Compute {e}.", "compute {e}", "Calculate {e}.", "calculate {e}", "Please calculate {e}.",
        "Please compute {e}", "Work out {e}.", "Evaluate {e}.", "evaluate {e}", "Find {e}.", "Solve {e}", "Solve: {e}",
        "Can you calculate {e}?", "Can you tell me what {e} is?", "Could you work out {e} for me?", "Tell me what {e} is.",
        "I need to know {e}.", "Give me the result of {e}.", "What is the value of {e}?", "What do you get for {e}?",
        "What is the result of {e}?", "What is the answer to {e}?", "{e}", "{e}=", "{e} =", "{e}=?", "{e} = ?", "{e}?",
        "Hi, what is {e}?", "Hello! What is {e}?", "Think step by step: what is {e}?", "Do you know what {e} is?",
        "Find the value of {e}.", "Determine {e}.", "Help me compute {e}, please.", "Answer this: {e}", "Quick: {e}?",
        "Let's compute {e}", "What would {e} be?", "how do I work out {e}", "{e} please",
    ),
    "zh": (
        "{e}等于多少？", "{e}等于多少", "{e}等于几？", "{e}=？", "{e}=?", "{e}=", "{e}", "{e}是多少？", "{e}是多少",
        "计算{e}",
        "计算：{e}", "请计算{e}", "请计算{e}。", "请计算：{e}", "算一下{e}", "帮我算一下{e}", "帮我算{e}。",
        "请问{e}等于多少？",
        "请问{e}是多少？", "请问{e}等于几", "求{e}的值。", "求{e}", "{e}的结果是多少？", "{e}的结果是什么？", "{e}得多少？",
        "你好，{e}等于多少？", "你知道{e}等于多少吗？", "能算一下{e}吗？", "麻烦算一下{e}，谢谢。", "我想知道{e}等于多少。",
        "{e}的值是多少？", "{e}的答案是什么？", "告诉我{e}等于多少。", "请一步一步计算{e}。", "解：{e}", "{e}等于？",
    ),
}  # fmt: skip

# Phrases for one operation; {a} and {b} are its operands.
ASK_OPERATION = {
    ("en", "+"): (
        "What is the sum of {a} and {b}?", "Add {a} and {b}.", "add {a} and {b}", "Add {a} to {b}.",
        "Find the sum of {a} and {b}.",
        "What do you get when you add {a} and {b}?", "What is {a} added to {b}?", "the sum of {a} and {b}",
        "How much is {a} and {b} together?", "Calculate the sum of {a} and {b}.", "What is the total of {a} and {b}?",
    ),
    ("en", "-"): (
        "What is the difference of {a} and {b}?", "Subtract {b} from {a}.", "subtract {b} from {a}",
        "Take {b} away from {a}.",
        "What do you get when you subtract {b} from {a}?", "What is {a} take away {b}?", "What is {b} less than {a}?",
        "What is left when {b} is taken from {a}?", "Calculate the difference between {a} and {b}.", "{a} less {b}",
    ),
    ("en", "*"): (
        "What is the product of {a} and {b}?", "Multiply {a} by {b}.", "multiply {a} by {b}", "multiply {a} and {b}",
        "Multiply {a} and {b}.", "Find the product of {a} and {b}.", "What do you get when you multiply {a} by {b}?",
        "What is {a} multiplied by {b}?", "the product of {a} and {b}", "Calculate the product of {a} and {b}.",
    ),
    ("en", "/"): (
        "Divide {a} by {b}.", "divide {a} by {b}", "What is the quotient of {a} and {b}?",
        "How many times does {b} go into {a}?",
        "What do you get when you divide {a} by {b}?", "What is {a} divided by {b}, with the remainder?",
        "Find the quotient and the remainder of {a} divided by {b}.", "What are the quotient and remainder of {a} / {b}?",
        "Divide {a} by {b} and give the remainder.",
    ),
    ("zh", "+"): (
        "{a}与{b}的和是多少？", "{a}和{b}的和是多少？", "{a}和{b}相加等于多少？", "求{a}与{b}的和。", "把{a}和{b}加起来。",
        "{a}和{b}一共是多少？", "计算{a}与{b}之和。",
    ),
    ("zh", "-"): (
        "{a}与{b}的差是多少？", "{a}比{b}多多少？", "求{a}与{b}的差。", "从{a}中减去{b}等于多少？", "{a}减掉{b}还剩多少？",
        "计算{a}与{b}之差。", "{a}减少{b}是多少？",
    ),
    ("zh", "*"): (
        "{a}与{b}的积是多少？", "{a}和{b}的乘积是多少？", "{a}和{b}相乘等于多少？", "求{a}与{b}的积。",
        "计算{a}与{b}的乘积。",
        "{b}个{a}是多少？", "{a}的{b}倍是多少？",
    ),
    ("zh", "/"): (
        "{a}除以{b}，商和余数是多少？", "{a}除以{b}商几余几？", "求{a}除以{b}的商和余数。", "把{a}平均分成{b}份，每份多少？",
        "{a}里面有几个{b}？", "用{b}去除{a}得多少？", "{a}除以{b}的商是多少？",
    ),
}  # fmt: skip

# Signs and words between two operands.
SIGNS = {
    "en": {
        "+": ("+", " + ", " + ", " plus ", " added to "),
        "-": ("-", " - ", " - ", " minus ", " − ", "–"),
        "*": ("*", " * ", " * ", " x ", "x", "×", " × ", " times ", " times ", " multiplied by ", " · ", "·", " X "),
        "/": ("/", " / ", " / ", "÷", " ÷ ", " divided by ", " divided by ", " over "),
    },
    "zh": {
        "+": ("+", " + ", "加", "加", "加上", "＋"),
        "-": ("-", " - ", "减", "减", "减去", "－", "−"),
        "*": ("*", " * ", "×", " × ", "乘", "乘以", "乘以", "x", "＊"),
        "/": ("/", " / ", "÷", " ÷ ", "除以", "除以", "／"),
    },
}

# Signs within a longer expression: never words.
EXPRESSION_SIGNS = {
    "+": ("+", "+", "+", "＋"),
    "-": ("-", "-", "-", "−", "－"),
    "*": ("*", "*", "×", "×", "x", "·"),
    "/": ("/", "/", "÷", "÷", "/"),
}

COMPARE = {
    "en": {
        "larger": (
            "Which is larger, {a} or {b}?", "Which is bigger, {a} or {b}?", "which is bigger: {a} or {b}",
            "Which number is greater, {a} or {b}?", "What is the larger of {a} and {b}?", "{a} or {b}, which is larger?",
            "Which is more, {a} or {b}?", "max of {a} and {b}", "Find the larger number: {a} or {b}.",
        ),
        "smaller": (
            "Which is smaller, {a} or {b}?", "Which number is less, {a} or {b}?", "What is the smaller of {a} and {b}?",
            "{a} or {b}, which is smaller?", "min of {a} and {b}", "Find the smaller number: {a} or {b}.",
        ),
        ">": ("Is {a} greater than {b}?", "Is {a} larger than {b}?", "is {a} bigger than {b}", "Is {a} > {b}?", "{a}>{b}?",
              "Is {a} more than {b}?", "Is it true that {a} > {b}?"),
        "<": ("Is {a} less than {b}?", "Is {a} smaller than {b}?", "is {a} < {b}", "Is {a} < {b}?", "{a}<{b}?",
              "Is it true that {a} < {b}?"),
        "?": ("Compare {a} and {b}.", "compare {a} with {b}", "Compare {a} with {b}.", "How does {a} compare with {b}?"),
    },
    "zh": {
        "larger": ("{a}和{b}哪个大？", "{a}和{b}哪个更大？", "{a}与{b}，哪个数大？", "哪个更大，{a}还是{b}？",
        "{a}大还是{b}大？",
                   "{a}和{b}中较大的是哪个？", "求{a}和{b}的最大值。"),
        "smaller": ("{a}和{b}哪个小？", "{a}和{b}哪个更小？", "哪个更小，{a}还是{b}？", "{a}和{b}中较小的是哪个？",
        "求{a}和{b}的最小值。"),
        ">": ("{a}比{b}大吗？", "{a}大于{b}吗？", "{a}是不是大于{b}？", "{a}>{b}对吗？"),
        "<": ("{a}比{b}小吗？", "{a}小于{b}吗？", "{a}是不是小于{b}？", "{a}<{b}对吗？"),
        "?": ("比较{a}和{b}。", "比较{a}与{b}的大小", "{a}和{b}比较大小", "请比较{a}和{b}的大小。"),
    },
}  # fmt: skip

ANSWER_RESULT = {
    "en": ("{e} = {r}.", "{e} = {r}.", "The answer is {r}.", "{e} is {r}.", "The result is {r}."),
    "zh": ("{e}={r}。", "{e}={r}。", "答案是{r}。", "{e}等于{r}。", "结果是{r}。"),
}
ANSWER_SIGNS = {
    "en": {"+": " + ", "-": " - ", "*": " × ", "/": " ÷ "},
    "zh": {"+": "+", "-": "-", "*": "×", "/": "÷"},
}
REMAINDER = {"en": "{q} remainder {r}", "zh": "{q}余{r}"}
BY_ZERO = {"en": "Nothing can be divided by zero.", "zh": "任何数都不能除以零。"}

_FULL_WIDTH = str.maketrans("0123456789+-*/()=<>?", "０１２３４５６７８９＋－＊／（）＝＜＞？")


def language(random: Random) -> Language:
    return "en" if random.random() < 0.55 else "zh"


def number(random: Random, value: int, *, commas: bool = True) -> str:
    """A number as people write it: sometimes with thousands separators."""
    if commas and value >= 1000 and random.random() < 0.12:
        return f"{value:,}"
    return str(value)


def touched_up(random: Random, lang: Language, question: str) -> str:
    """The same question as another person would type it: full-width digits, spaces, case, the odd "please"."""
    draw = random.random()
    if draw < (0.02 if lang == "en" else 0.08):
        return question.translate(_FULL_WIDTH)
    if draw < 0.12:
        return question.lower()
    if draw < 0.15:
        return f" {question}" if random.random() < 0.3 else f"{question} "
    if draw < 0.17 and lang == "en":
        return question.rstrip(".?") + ("??" if question.endswith("?") else " please")
    if draw < 0.18 and lang == "en":
        return question.upper()
    return question


def ask_operation(random: Random, lang: Language, sign: str, a: int, b: int) -> str:
    """A question for a sign b."""
    left, right = number(random, a), number(random, b)
    if random.random() < 0.3:
        question = random.choice(ASK_OPERATION[lang, sign]).format(a=left, b=right)
    else:
        question = random.choice(ASK[lang]).format(e=f"{left}{random.choice(SIGNS[lang][sign])}{right}")
    return touched_up(random, lang, question)


def answer_result(random: Random, lang: Language, expression: str, result: str) -> str:
    return random.choice(ANSWER_RESULT[lang]).format(e=expression, r=result)
