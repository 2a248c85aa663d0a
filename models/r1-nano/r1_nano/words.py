"""Short word problems in English and in Chinese: a text with numbers, and the expression that answers it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .expressions import Tree
from .phrasing import Language

NAMES = {
    "en": ("Ana", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jack", "Kim", "Leo", "Mia", "Noah",
    "Olga",
           "Paul", "Rosa", "Sam", "Tina", "Tom", "Lucy", "Li Wei", "Mary", "John", "Anna", "Max", "Zoe", "Yuki"),
    "zh": ("小明", "小红", "小华", "小丽", "小刚", "小芳", "李雷", "韩梅梅", "小强", "小美", "王老师", "张叔叔", "妈妈",
    "爸爸"),
}  # fmt: skip
THINGS = {
    "en": ("apples", "books", "pens", "stamps", "marbles", "cookies", "oranges", "cards", "eggs", "stones", "flowers",
    "coins",
           "tickets", "cakes", "pencils", "balls", "toys", "candies", "bottles", "chairs"),
    "zh": ("个苹果", "本书", "支笔", "张邮票", "颗糖", "个橘子", "张卡片", "个鸡蛋", "朵花", "枚硬币", "张票", "块蛋糕",
    "支铅笔", "个球",
           "瓶水", "把椅子"),
}  # fmt: skip
BOXES = {"en": ("boxes", "bags", "shelves", "rows", "baskets", "packs"), "zh": ("盒", "袋", "箱", "排", "筐", "包")}

Numbers = tuple[int, ...]


def _draw(random: Random, *digits: int) -> Numbers:
    """Numbers of at most so many digits each, none below 2."""
    return tuple(random.randrange(2, 10 ** random.randint(1, d)) for d in digits)


def _falling(random: Random, *digits: int) -> Numbers:
    """As `_draw`, the first at least as large as the sum of the others."""
    first, *rest = _draw(random, *digits)
    return max(first, sum(rest) + random.randrange(1, 60)), *rest


def _shared(random: Random, *digits: int) -> Numbers:
    """The first number is a multiple of the second."""
    share, parts = _draw(random, *digits)
    return share * parts, parts


# (text in English, text in Chinese, drawing of the numbers, digits, expression)
_KINDS: tuple[tuple[tuple[str, ...], tuple[str, ...], Callable[..., Numbers], tuple[int, ...], Callable[..., Tree]], ...] = (
    (
        ("{n} has {0} {t} and gets {1} more. How many {t} does {n} have now?",
         "There are {0} {t} on the table. {n} brings {1} more. How many {t} are there?",
         "{n} has {0} {t} and {m} has {1} {t}. How many {t} do they have together?"),
        ("{n}有{0}{t}，又得到{1}{t}，现在一共有多少{t}？", "{n}有{0}{t}，{m}有{1}{t}，两人一共有多少{t}？",
         "桌上有{0}{t}，{n}又拿来{1}{t}，现在有多少？"),
        _draw, (4, 4), lambda a, b: ("+", a, b),
    ),
    (
        ("{n} has {0} {t} and gives {1} to {m}. How many {t} are left?",
         "{n} had {0} {t} and lost {1}. How many {t} does {n} still have?",
         "A shop has {0} {t} and sells {1}. How many {t} remain?"),
        ("{n}有{0}{t}，给了{m}{1}{t}，还剩多少{t}？", "商店有{0}{t}，卖出{1}{t}，还剩多少？",
         "{n}有{0}{t}，用掉了{1}{t}，还剩多少{t}？"),
        _falling, (4, 4), lambda a, b: ("-", a, b),
    ),
    (
        ("{n} has {0} {t} and {m} has {1} {t}. How many more {t} does {n} have than {m}?",),
        ("{n}有{0}{t}，{m}有{1}{t}，{n}比{m}多多少{t}？",),
        _falling, (4, 3), lambda a, b: ("-", a, b),
    ),
    (
        ("There are {0} {b} with {1} {t} each. How many {t} are there in all?",
         "{n} buys {0} {b} of {t}, {1} in each. How many {t} is that?",
         "One of the {t} costs {1} dollars. How many dollars do {0} of them cost?"),
        ("有{0}{b}，每{b}有{1}{t}，一共有多少{t}？", "{n}买了{0}{b}，每{b}{1}{t}，一共多少{t}？",
         "每{t}{1}元，买{0}{t}要多少元？"),
        _draw, (2, 3), lambda a, b: ("*", a, b),
    ),
    (
        ("{n} shares {0} {t} equally among {1} friends. How many {t} does each get?",
         "{0} {t} are packed into {1} {b}, the same in each. How many {t} are in each?"),
        ("{n}把{0}{t}平均分给{1}个朋友，每人分到多少{t}？", "{0}{t}平均装成{1}{b}，每{b}有多少{t}？"),
        _shared, (2, 2), lambda a, b: ("/", a, b),
    ),
    (
        ("A train goes {0} km an hour. How many km does it go in {1} hours?",
         "{n} reads {0} pages a day. How many pages is that in {1} days?",
         "A machine makes {0} {t} an hour. How many {t} does it make in {1} hours?"),
        ("一列火车每小时行{0}千米，{1}小时行多少千米？", "{n}每天看{0}页书，{1}天一共看多少页？",
         "一台机器每小时生产{0}{t}，{1}小时生产多少{t}？"),
        _draw, (3, 2), lambda a, b: ("*", a, b),
    ),
    (
        ("{n} has {0} {b} of {1} {t} and {2} single {t}. How many {t} is that in all?",
         "There are {0} {b} with {1} {t} each, and {2} more {t}. How many {t} are there?"),
        ("{n}有{0}{b}，每{b}{1}{t}，另外还有{2}{t}，一共有多少{t}？",
         "有{0}{b}，每{b}有{1}{t}，又买来{2}{t}，现在共有多少{t}？"),
        _draw, (2, 2, 3), lambda a, b, c: ("+", ("*", a, b), c),
    ),
    (
        ("{n} has {0} {t}, gives {1} to {m} and then finds {2}. How many {t} does {n} have now?",
         "A bus carries {0} people. {1} get off and {2} get on. How many people are on the bus?"),
        ("{n}有{0}{t}，给了{m}{1}{t}，又买了{2}{t}，现在有多少{t}？",
         "车上有{0}人，下去{1}人，又上来{2}人，现在车上有多少人？"),
        _falling, (4, 3, 3), lambda a, b, c: ("+", ("-", a, b), c),
    ),
    (
        ("{n} has {0} {t}, gives away {1} and then {2} more. How many {t} are left?",),
        ("{n}有{0}{t}，先用了{1}{t}，又用了{2}{t}，还剩多少{t}？",),
        _falling, (4, 3, 3), lambda a, b, c: ("-", ("-", a, b), c),
    ),
    (
        ("{n} buys {0} {t} for {1} dollars each and pays with {2} dollars more than needed. How many dollars does {n} pay?",),
        ("{n}买了{0}{t}，每{t}{1}元，还多付了{2}元，一共付了多少元？",),
        _draw, (2, 2, 2), lambda a, b, c: ("+", ("*", a, b), c),
    ),
    (
        ("{n} puts {0} and {1} {t} together and fills {2} such {b}. How many {t} are needed?",),
        ("每{b}里有{0}{t}和另外{1}{t}，{2}{b}一共有多少{t}？",),
        _draw, (2, 2, 1), lambda a, b, c: ("*", ("+", a, b), c),
    ),
)  # fmt: skip


def draw(random: Random, lang: Language) -> tuple[str, Tree]:
    """A word problem and the expression of its answer."""
    english, chinese, numbers, digits, tree = random.choice(_KINDS)
    drawn = numbers(random, *digits)
    name, other = random.sample(NAMES[lang], 2)
    text = random.choice(english if lang == "en" else chinese)
    question = text.format(*drawn, n=name, m=other, t=random.choice(THINGS[lang]), b=random.choice(BOXES[lang]))
    return question, tree(*drawn)
