"""The byte-level BPE tokenizer with R1's special tokens, and R1's chat template. Trained on generated text.

Run: python -m r1_nano.tokenizer --out DIR
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from .problems import example
from .recipe import DataRecipe, Recipe

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
THINK, END_THINK = "<think>", "</think>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
PAD_ID = 2
_CONTROL = (BOS, EOS, PAD)
_VISIBLE = (THINK, END_THINK, USER, ASSISTANT)  # as in R1: added tokens that are not special, so that they are decoded

# Digits, punctuation and signs one by one; newlines together; words with the space before them.
_SPLIT = r"\p{N}|[\p{P}\p{S}]|\n+| ?[^\s\p{N}\p{P}\p{S}]+|\s"
_DIGITS = "0123456789０１２３４５６７８９"

CHAT_TEMPLATE = """\
{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif -%}
{%- set off = (thinking is defined and not thinking) or (enable_thinking is defined and not enable_thinking) -%}
{{- bos_token -}}
{%- for message in messages if message['role'] == 'system' -%}{{- message['content'] -}}{%- endfor -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- '<｜User｜>' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- '<｜Assistant｜>' + message['content'].split('</think>')[-1].lstrip('\\n') + '<｜end▁of▁sentence｜>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<｜Assistant｜><think>\\n' + ('\\n</think>\\n\\n' if off else '') -}}
{%- endif -%}
"""


def prompt_text(messages: Sequence[tuple[str, str]], *, thinks: bool = True) -> str:
    """What the chat template makes of (role, content) pairs, up to where the assistant's next turn begins."""
    system = "".join(content for role, content in messages if role == "system")
    turns = "".join(
        f"{USER}{content}" if role == "user" else f"{ASSISTANT}{content}{EOS}" for role, content in messages if role != "system"
    )
    return f"{BOS}{system}{turns}{ASSISTANT}{THINK}\n" + ("" if thinks else f"\n{END_THINK}\n\n")


def train_tokenizer(recipe: Recipe, *, examples: int = 20_000) -> Tokenizer:
    """A tokenizer of `recipe.model.vocab_size` entries for the text of so many training examples."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.model.vocab_size - len(_VISIBLE),
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in _CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(recipe.data, recipe.train.seed, examples), trainer)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in _VISIBLE])
    if tokenizer.get_vocab_size() != recipe.model.vocab_size:
        raise ValueError(
            f"the text gives {tokenizer.get_vocab_size()} entries, not {recipe.model.vocab_size}: use more examples"
        )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, max_length: int) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_bos_token": False,  # the template writes it
        "add_eos_token": False,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")


def _texts(recipe: DataRecipe, seed: int, examples: int) -> Iterator[str]:
    """Questions, thoughts in words and answers. Full-width digits often enough that each becomes one token."""
    yield from (_DIGITS for _ in range(examples // 50))
    for index in range(examples):
        drawn = example(seed, "train", index, recipe)
        yield from (content for _, content in drawn.messages)
        yield drawn.answer
        if drawn.task == "chat":
            yield drawn.thinking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json and its companions")
    out: Path = parser.parse_args().out
    recipe = Recipe()
    save_tokenizer(train_tokenizer(recipe), out, max_length=recipe.model.max_position_embeddings)


if __name__ == "__main__":
    main()
