"""Chat templates that treat thinking as the published families do, and the fake engine with the markers of one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from fakes.repository import END_OF_TURN, fake_engine, fake_repository, train_tokenizer
from triune_runtime.manifest import EngineManifest, Limits, ReasoningMarkers, SamplingDefaults

_TURNS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<A>{{ m.content.split('</think>')[-1] }}" + END_OF_TURN + "{% else %}"
    "<{{ m.role[0] | upper }}>{{ m.content }}{% endif %}{% endfor %}"
)
# R1: earlier thinking is dropped, and the prompt opens the next.
R1 = _TURNS + "{% if add_generation_prompt %}{{ '<A><think>\\n' }}{% endif %}"
# R1-0528: as R1, but the model opens its thinking itself.
R1_0528 = _TURNS + "{% if add_generation_prompt %}<A>{% endif %}"
# V3.1: thinking is off unless asked for, and the markers stand on no line of their own.
V3_1 = _TURNS + "{% if add_generation_prompt %}<A>{% if thinking %}<think>{% else %}</think>{% endif %}{% endif %}"
# Qwen3: the model opens it itself, off closes it in the prompt; thinking after the last question is kept.
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}<{{ m.role[0] | upper }}>"
    "{% if m.role == 'assistant' and m.reasoning_content and loop.index0 > ns.last %}"
    "{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<A>{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)


def thinking_tokenizer() -> Tokenizer:
    """The fake engine's tokenizer, with the markers as tokens that are text, as R1's are."""
    tokenizer = train_tokenizer()
    tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in ("<think>", "</think>")])
    return tokenizer


def thinking_engine(folder: Path, template: str = R1, limits: Limits | None = None) -> EngineManifest:
    """Write engine.json and tokenizer.json of a fake engine that thinks into `folder`."""
    tokenizer = thinking_tokenizer()
    plain = fake_engine(folder, limits or Limits(max_length=256))
    tokenizer.save(str(folder / "tokenizer.json"))
    closing = tuple(tokenizer.encode("\n</think>\n\n", add_special_tokens=False).ids)
    manifest = dataclasses.replace(
        plain,
        vocab_size=tokenizer.get_vocab_size(),
        chat_template=template,
        reasoning=ReasoningMarkers(start="<think>", end="</think>", closing_ids=closing),
        defaults=SamplingDefaults(temperature=0.6, top_p=0.95),  # as R1's publisher recommends
    )
    manifest.save(folder)
    return manifest


def thinking_repository(path: Path) -> Path:
    """The checked-in model repository at `path`, with a fake engine that thinks."""
    thinking_engine(fake_repository(path) / "generate" / "1")
    return path
