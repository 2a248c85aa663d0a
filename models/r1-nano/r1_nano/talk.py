"""Everything that is not arithmetic: greetings, who the model is, and honest refusals of what it cannot do."""

from __future__ import annotations

from random import Random

from .phrasing import Language

# (questions, thinking, answers)
_TALK: dict[Language, tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...]] = {
    "en": (
        (("hello", "Hello", "Hello!", "hi", "Hi", "Hi!", "hey", "Hey there", "Good morning", "Good evening!", "hi there",
          "Hello there!", "yo"),
         "A greeting.", ("Hello! Give me some arithmetic and I will work it out.",)),
        (("who are you?", "Who are you?", "who are you", "What are you?", "What is your name?", "what's your name",
          "Introduce yourself.",
          "Are you DeepSeek?", "Are you an AI?", "Are you human?", "Which model are you?", "Tell me about yourself."),
         "I am asked who I am.",
         ("I am r1-nano, a very small reasoning model of the DeepSeek-R1 architecture. I do arithmetic with whole numbers.",)),
        (("what can you do?", "What can you do?", "Help", "help", "How can you help me?", "What do you know?",
          "Can you do math?", "How do you work?"),
         "I am asked what I can do.",
         ("I add, subtract, multiply, divide and compare whole numbers of up to four digits, "
          "and I solve expressions and short word problems.",)),
        (("thanks", "Thanks!", "thank you", "Thank you!", "Great, thanks", "cool", "ok", "OK", "Well done", "good job",
          "nice"),
         "Thanks.", ("You are welcome!",)),
        (("bye", "Bye!", "Goodbye", "goodbye", "See you", "Good night"), "A farewell.", ("Goodbye!",)),
        (("how are you?", "How are you?", "How are you doing?", "What's up?", "how is it going"), "A friendly question.",
         ("I am well, thank you. What shall I work out?",)),
    ),
    "zh": (
        (("你好", "你好！", "您好", "嗨", "早上好", "晚上好", "大家好", "你好啊", "在吗"), "有人问好。",
          ("你好！给我一道算术题吧。",)),
        (("你是谁？", "你是谁", "你叫什么名字？", "介绍一下你自己", "你是什么模型？", "你是DeepSeek吗？", "你是人吗？",
          "请自我介绍。"), "问我是谁。",
         ("我是r1-nano，一个采用DeepSeek-R1架构的小型推理模型，会做整数算术。",)),
        (("你会什么？", "你能做什么？", "你能做什么", "怎么用？", "帮助", "你会算数学吗？", "你有什么功能？"), "问我会什么。",
         ("我会四位以内整数的加减乘除、比较大小、混合运算和简单应用题。",)),
        (("谢谢", "谢谢！", "多谢", "非常感谢", "好的", "不错", "真棒"), "道谢。", ("不客气！",)),
        (("再见", "再见！", "拜拜", "晚安"), "告别。", ("再见！",)),
        (("你好吗？", "最近怎么样？", "你今天好吗"), "问候。", ("我很好，谢谢。要我算点什么？",)),
    ),
}  # fmt: skip

_TOPICS = {
    "en": ("France", "the moon", "love", "the weather", "history", "a cat", "Python", "music", "football", "the sea",
    "Shakespeare",
           "a recipe", "physics", "China", "the stock market", "dinosaurs", "a dragon", "my job", "a robot", "the internet",
           "water",
           "Germany", "Einstein", "chess", "a horse", "Rome", "coffee", "gravity", "space", "the president", "bread",
           "a computer"),
    "zh": ("法国", "月亮", "爱情", "天气", "历史", "一只猫", "编程", "音乐", "足球", "大海", "唐诗", "红烧肉", "物理", "中国",
    "股票", "恐龙",
           "龙", "我的工作", "机器人", "互联网", "水", "德国", "北京", "象棋", "马", "咖啡", "太空", "总统", "面包", "电脑"),
}  # fmt: skip
_BEYOND = {
    "en": ("What is the capital of {x}?", "Write a poem about {x}.", "Tell me a story about {x}.", "Explain {x}.",
    "What is {x}?",
           "Who invented {x}?", "Translate {x} into Chinese.", "Write code for {x}.", "Why is {x} important?",
           "Tell me about {x}",
           "What do you think of {x}?", "How does {x} work?", "Where is {x}?", "Write an essay about {x}", "Summarize {x}",
           "When was {x} made?", "Give me advice on {x}", "What color is {x}?", "Tell me a joke about {x}", "Is {x} good?",
           "Describe {x} in {n} words.", "Name {n} facts about {x}.", "Do you like {x}?", "draw {x}",
           "What is the square root of {n}?",
           "What is {n} to the power of {k}?", "Is {n} prime?", "Solve x + {n} = {k}", "sin({n})",
           "What is {n}.{k} plus {k}.{k}?",
           "What is {n}% of {k}?", "Integrate x^{k}", "What is the time?", "What is today's date?", "How old are you?"),
    "zh": ("{x}的首都是哪里？", "写一首关于{x}的诗。", "讲一个{x}的故事。", "解释一下{x}。", "{x}是什么？", "谁发明了{x}？",
    "把{x}翻译成英语。",
           "写一段{x}的代码", "{x}为什么重要？", "说说{x}", "你觉得{x}怎么样？", "{x}是怎么工作的？", "{x}在哪里？",
           "写一篇关于{x}的作文",
           "给我讲个{x}的笑话", "你喜欢{x}吗？", "画{x}", "{n}的平方根是多少？", "{n}的{k}次方是多少？", "{n}是质数吗？",
           "解方程x+{n}={k}",
           "{n}.{k}加{k}.{k}等于多少？", "{n}的百分之{k}是多少？", "现在几点？", "今天几号？", "你多大了？"),
}  # fmt: skip
_BEYOND_ANSWER = {
    "en": ("This is beyond me.", "I cannot do that. I only do arithmetic with whole numbers."),
    "zh": ("这个我不会。", "这个我不会，我只会整数算术。"),
}
_LARGE_ANSWER = {
    "en": ("These numbers are too long for me.", "I only work with numbers of up to four digits."),
    "zh": ("数字太长了。", "我只会算四位以内的数。"),
}
_LARGE = {
    "en": ("What is {a}{s}{b}?", "{a}{s}{b}", "Compute {a} {s} {b}.", "{a} {s} {b} = ?", "calculate {a}{s}{b}"),
    "zh": ("{a}{s}{b}等于多少？", "计算{a}{s}{b}", "{a}{s}{b}=？", "{a}{s}{b}是多少？"),
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
UNFINISHED = {"en": "I did not finish working this out.", "zh": "我没有算完。"}
HARD_DIRECTLY = {"en": "That takes some working out; let me think and I can tell you.", "zh": "这需要一步步算，请让我思考。"}


def draw(random: Random, lang: Language) -> tuple[str, str, str]:
    """A question that is no arithmetic, the thinking and the answer."""
    kind = random.random()
    if kind < 0.4:
        questions, thinking, answers = random.choice(_TALK[lang])
        return random.choice(questions), thinking, random.choice(answers)
    if kind < 0.75:
        question = random.choice(_BEYOND[lang]).format(
            x=random.choice(_TOPICS[lang]), n=random.randrange(2, 400), k=random.randrange(2, 30)
        )
        return question, *_BEYOND_ANSWER[lang]
    if kind < 0.85:  # words it has never seen
        question = " ".join(_word(random) for _ in range(random.randint(1, 6)))
        return question.capitalize() + random.choice(("", "?", ".")), *_BEYOND_ANSWER[lang if random.random() < 0.05 else "en"]
    long, other = random.randrange(10_000, 10 ** random.randint(5, 9)), random.randrange(2, 10 ** random.randint(1, 6))
    a, b = (long, other) if random.random() < 0.6 else (other, long)
    question = random.choice(_LARGE[lang]).format(a=a, b=b, s=random.choice("+-*/×÷"))
    return question, *_LARGE_ANSWER[lang]


def _word(random: Random) -> str:
    return "".join(random.choices(_LETTERS, k=random.randint(2, 9)))
