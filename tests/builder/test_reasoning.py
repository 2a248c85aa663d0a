"""Which models think, and how they close it. Run: pytest tests/builder/test_reasoning.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from fakes import thinking
from fakes.tiny_build import TinyTools, settings, write_checkpoint
from fakes.tiny_llama import byte_tokenizer
from triune_builder.plan import BuildPlan
from triune_builder.reasoning import reasoning_markers
from triune_runtime.manifest import EngineManifest, Limits


def with_tokens(*texts: str, special: bool = False) -> str:
    tokenizer = Tokenizer.from_str(byte_tokenizer())
    tokenizer.add_tokens([AddedToken(t, special=special, normalized=False) for t in texts])
    return str(tokenizer.to_str())


@pytest.mark.parametrize("special", [False, True])
def test_markers_that_are_tokens_are_found_without_a_template(special: bool) -> None:
    found = reasoning_markers(with_tokens("<think>", "</think>", special=special), None)
    assert found is not None
    assert (found.start, found.end) == ("<think>", "</think>")
    assert found.closing_ids == (found.closing_ids[0], 257, *found.closing_ids[2:])  # a line break, the marker, two more
    assert len(found.closing_ids) == 4


@pytest.mark.parametrize(
    ("template", "closing"),
    [
        (thinking.R1, "\n</think>\n\n"),
        (thinking.R1_0528, "\n</think>\n\n"),
        (thinking.QWEN3, "\n</think>\n\n"),
        (thinking.V3_1, "</think>"),
    ],
)
def test_markers_that_only_the_template_names_are_found_and_closed_as_it_closes_them(template: str, closing: str) -> None:
    found = reasoning_markers(byte_tokenizer(), template)
    assert found is not None
    ids = Tokenizer.from_str(byte_tokenizer()).encode(closing).ids
    assert list(found.closing_ids) == ids


def test_what_closes_the_thinking_is_not_truncated_or_padded() -> None:
    cut = Tokenizer.from_str(byte_tokenizer())
    cut.enable_truncation(3)
    cut.enable_padding(length=64)
    found = reasoning_markers(cut.to_str(), thinking.R1)
    assert found is not None and len(found.closing_ids) == len("\n</think>\n\n")


def test_a_model_without_markers_does_not_think() -> None:
    assert reasoning_markers(byte_tokenizer(), "{{ messages }}") is None
    assert reasoning_markers(byte_tokenizer(), None) is None
    assert reasoning_markers(with_tokens("<think>"), None) is None


def test_a_build_records_markers_and_the_publishers_sampling(tmp_path: Path) -> None:
    class Thinking(TinyTools):
        def open_checkpoint(self, *args: object) -> object:
            checkpoint = super().open_checkpoint(*args)  # type: ignore[arg-type]  # passed on as they come
            recommended = {"temperature": 0.6, "top_p": 0.95, "do_sample": True}
            object.__setattr__(checkpoint, "chat_template", thinking.R1)
            object.__setattr__(checkpoint, "generation_config", recommended)
            return checkpoint

    model = write_checkpoint(tmp_path / "models" / "tiny.gguf")
    plan = BuildPlan(model=str(model), precision="int8", limits=Limits(max_sequences=3, max_length=16, prefill_chunk=4))
    built = Thinking().build(plan, settings(tmp_path))
    manifest = EngineManifest.load(built.repository / "generate" / "1")
    assert manifest.reasoning is not None and manifest.reasoning.end == "</think>"
    assert (manifest.defaults.temperature, manifest.defaults.top_p, manifest.defaults.top_k) == (0.6, 0.95, None)
