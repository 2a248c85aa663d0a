"""Changes to tokenizers and chat templates: steps that multiply texts, patterns without end, templates that loop."""

from __future__ import annotations

import json
import random
from typing import Any

from .values import TEXTS, dumps, words

TEMPLATES = [
    "{% for i in range(10**9) %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**10**10 }}",
    "{{ range(10**7)|list|length }}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{{ ''.__class__.__mro__ }}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'os' as os %}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum(n=10**6) }}",
    "{{ cycler.__init__ }}",
    "{{ messages[0]['content'].format(1, 2) }}",
    "{{ '%s' % messages }}",
    "{{ raise_exception('no\\x1b[2J') }}",
    "{{ 1 / 0 }}",
    "{{ undefined.attribute }}",
    "{{ messages[99].content }}",
    "{% for %}",
    "{% endfor %}",
    "{{",
    "{#",
    "",
    " ",
    "\x1b[2J",
    "\ud800",
    "{{ '\\ud800' }}",
    "{{ messages|tojson }}",
    "{{ messages|map(attribute='x')|join }}",
    "{{ tools|tojson(indent=10**9) }}",
    "{{ 'x'|center(10**9) }}",
    "{{ 'x' * 10**6 }}",
    "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{% if 1 %}" * 300 + "x" + "{% endif %}" * 300,
    "{% set x = x %}{{ x }}",
    "{{ dict(a=1).popitem() }}",
    "{{ strftime_now('%Y' * 10**6) }}",
    "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ [1]*10**9 }}",
    "{{ (messages|string) * 10**8 }}",
    "{{ messages[0].content|replace('', 'x' * 10**6) }}",
    "{{ 'a b'|wordwrap(0) }}",
    "{{ 'x'|indent(10**9) }}",
    "<think>" * 10_000,
]
_MOST_LETTERS = 10**8  # of tokens that are added: more than is read of a tokenizer.json
_PATTERNS = [
    "(a+)+$",
    "(.*)*x",
    "(?=(a*)*)",
    "[",
    "",
    ".",
    "\\p{L}",
    "(?i)(x?){1000}",
    "a{0,2147483647}",
    "(((((x{20}){20}){20}){20}){20})",
    "(?<=a+)b",
]


def _grown(times: int, count: int) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * times}
    return {"type": "Sequence", "normalizers": [step] * count}


def _steps(dice: random.Random) -> dict[str, Any]:
    """Parts of a tokenizer by name, of which one is chosen."""
    pattern = dice.choice([{"Regex": dice.choice(_PATTERNS)}, {"String": dice.choice(["", "a", "\x00", "é"])}])
    split = {
        "type": "Split",
        "pattern": pattern,
        "behavior": dice.choice(["Isolated", "Removed", "x"]),
        "invert": dice.random() < 0.3,
    }
    return dice.choice(
        [
            {"normalizer": _grown(dice.choice([0, 2, 10, 1000]), dice.choice([1, 3, 12, 40]))},
            {"normalizer": {"type": "Replace", "pattern": pattern, "content": dice.choice(["", "a", "x" * 10**5])}},
            {
                "normalizer": {
                    "type": "Precompiled",
                    "precompiled_charsmap": dice.choice(["", "AAAA", "A" * 400, "/////w==", "!"]),
                }
            },
            {
                "normalizer": {
                    "type": dice.choice(["NFC", "NFKD", "Lowercase", "Nmt", "StripAccents", "Prepend", "ByteLevel", "Strip"])
                }
            },
            {"normalizer": {"type": "Prepend", "prepend": dice.choice(["", "a" * 10**6])}},
            {"pre_tokenizer": split},
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split] * dice.choice([0, 1, 30])}},
            {
                "pre_tokenizer": {
                    "type": dice.choice(["Whitespace", "BertPreTokenizer", "Digits", "CharDelimiterSplit", "Metaspace"])
                }
            },
            {
                "decoder": {
                    "type": dice.choice(["WordPiece", "BPEDecoder", "CTC", "Fuse", "ByteFallback", "Metaspace", "Strip"])
                }
            },
            {"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": pattern, "content": "x" * 1000}] * 5}},
            {"decoder": {"type": "Strip", "content": "a", "start": dice.choice([1, 2**40]), "stop": dice.choice([0, 2**63])}},
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * dice.choice([1, 5000]),
                    "pair": [],
                    "special_tokens": {"x": {"id": "x", "ids": [dice.choice([0, 999, 2**31])] * 3, "tokens": ["x"] * 3}},
                }
            },
            {"post_processor": {"type": "BertProcessing", "sep": ["x", 2**31], "cls": ["y", 1]}},
            {
                "truncation": {
                    "direction": "Right",
                    "max_length": dice.choice([0, 1, 2**40]),
                    "strategy": "LongestFirst",
                    "stride": 7,
                }
            },
            {
                "padding": {
                    "strategy": {"Fixed": dice.choice([0, 512, 2**40])},
                    "direction": "Right",
                    "pad_id": 0,
                    "pad_type_id": 0,
                    "pad_token": "x",
                    "pad_to_multiple_of": dice.choice([None, 0, 8]),
                }
            },
            {"version": dice.choice(["2.0", None, 1])},
        ]
    )


def change_tokenizer(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Another step, other tokens, or another model of the same file."""
    try:
        raw = json.loads(content)
        model = raw["model"]
        added = raw["added_tokens"] = list(raw.get("added_tokens") or [])
        vocabulary = model["vocab"] if isinstance(model["vocab"], dict) else {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return content[: len(content) // 2], "is cut in half"
    match dice.randrange(8):
        case 0:
            token = {
                "id": dice.choice([0, 5, len(vocabulary), 2**31, 2**40, -1]),
                "content": dice.choice([*TEXTS, "x" * 10**6]),
                "special": dice.random() < 0.5,
                "single_word": False,
                "lstrip": dice.random() < 0.5,
                "rstrip": False,
                "normalized": dice.random() < 0.5,
            }
            added += [token] * min(dice.choice([1, 1, 2, 2000]), _MOST_LETTERS // (len(token["content"]) + 1))
            done = f"has the added token {words(token['content'])} as {token['id']}"
        case 1:
            model["merges"] = dice.choice(
                [[], [["a", "b"]], ["a b"] * 1000, [["x"]], "ab", None, [[1, 2]], ["a"], [["a", "a"]] * 10**5]
            )
            done = f"has the merges {words(model['merges'])}"
        case 2 if vocabulary:
            key = dice.choice(sorted(vocabulary))
            vocabulary[key] = dice.choice([0, 1, vocabulary[key] + 1, len(vocabulary) + 5, 2**31, 2**32, -1, "0", None, 1.0])
            done = f"has the token {words(key)} as {vocabulary[key]}"
        case 3:
            model["type"] = dice.choice(["WordLevel", "WordPiece", "Unigram", "BPE", None, "x"])
            done = f"is a {model['type']}"
        case 4:
            for name in (
                "dropout",
                "unk_token",
                "byte_fallback",
                "continuing_subword_prefix",
                "end_of_word_suffix",
                "ignore_merges",
            ):
                if dice.random() < 0.4:
                    model[name] = dice.choice([None, True, 0, 0.5, 2.0, "", "a", "##", "</w>"])
            done = "has other settings"
        case _:
            part = _steps(dice)
            raw |= part
            done = words(part, 120)
    return dumps(raw, dice), done


def change_template(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Another template; `content` is a tokenizer_config.json, or a template as it is."""
    template = dice.choice(TEMPLATES)
    if dice.random() < 0.3:
        template = "{{ messages[0].content }}" + template
    try:
        config = json.loads(content)
        config["chat_template"] = template
    except (ValueError, TypeError, RecursionError):
        return template.encode("utf-8", "surrogatepass"), f"is {words(template)}"
    if dice.random() < 0.2:
        config["chat_template"] = [{"name": name, "template": template} for name in ("default", "tool_use", "\x1b[31m")]
    return dumps(config, dice), f"has the template {words(template)}"
