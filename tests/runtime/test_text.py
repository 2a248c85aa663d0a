"""Token bytes, prompts and chat templates. Run: pytest tests/runtime/test_text.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from triune_runtime.errors import RequestError
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.serving.prompts import PromptService
from triune_runtime.text.chat import ChatTemplate, parse_messages
from triune_runtime.text.tokenizer import TextTokenizer
from triune_runtime.text.vocabulary import token_bytes

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a"
    " helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' +"
    " message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(["the theme of the thesis", "世界 😀 你好"] * 10, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return tokenizer


TOKENIZER = train()
TABLE = token_bytes(TOKENIZER, 400)


@given(st.text(max_size=60).filter(lambda t: "<|end|>" not in t))
def test_the_tokens_bytes_put_together_are_the_text(text: str) -> None:
    assert TABLE.join(TOKENIZER.encode(text).ids) == text.encode()


def test_special_tokens_have_no_text_and_other_added_ones_theirs() -> None:
    assert TABLE.join(TOKENIZER.encode("a<|end|>b<think>c").ids) == b"ab<think>c"
    assert len(TABLE) == 400
    assert TABLE[399] == b""  # padding of the vocabulary


def test_the_models_own_template_renders_a_chat() -> None:
    chat = ChatTemplate(SMOLLM2, {})
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    assert chat.render([{"role": "user", "content": "Hi"}]) == (
        system + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chats_render_as_transformers_renders_them() -> None:
    transformers = pytest.importorskip("transformers")
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=TOKENIZER, bos_token="<|end|>")
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": 'a "quoted" <b> 世界'}, {"role": "assistant", "content": " x "},
        {"role": "user", "content": "y"},
    ]  # fmt: skip
    sources = [
        SMOLLM2,
        "{{ bos_token }}{% for m in messages %}\n  {% if m.role == 'assistant' %}{% continue %}{% endif %}\n"
        "{{ m.content|tojson }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}",
    ]
    for source in sources:
        expected = wrapped.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=True)
        assert ChatTemplate(source, {"bos_token": "<|end|>"}).render(messages) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[5].role.nothing }}", "refuses these messages"),
        ("{{ ''.__class__.__mro__ }}", "refuses these messages"),  # the sandbox
        (None, "no chat template"),
    ],
)
def test_a_template_that_refuses_gives_a_clear_error(source: str | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ChatTemplate(source, {}).render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "messages is not JSON"),
        ("[]", "a list of at least one message"),
        ('{"role": "user"}', "a list of at least one message"),
        ("[1]", r"messages\[0\] must be an object, not 1"),
        ('[{"role": "user", "content": "a"}, {"content": "b"}]', r"messages\[1\] has role null"),
        ('[{"role": "user"}]', r"messages\[0\] has content null"),
        ('[{"role": "user", "content": 5}]', r"messages\[0\] has content 5"),
        ('[{"role": "user", "content": [{"type": "image"}]}]', r"messages\[0\]\.content\[0\]"),
    ],
)
def test_malformed_messages_are_named(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_messages(text)


def test_text_parts_are_joined_and_other_keys_kept() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert parse_messages(json.dumps([{"role": "user", "content": parts, "name": "N"}])) == [
        {"role": "user", "content": "ab", "name": "N"}
    ]


@pytest.fixture
def prompts(tmp_path: Path) -> PromptService:
    manifest = EngineManifest(
        model="tiny", architecture="llama", target="fake", precision="fp32", engine="none", vocab_size=400, cache=(),
        stop_token_ids=(0,), chat_template=SMOLLM2, limits=Limits(max_length=64),
    )  # fmt: skip
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    return PromptService(manifest, TextTokenizer.load(tmp_path, manifest))


def tensor(*values: str | bytes) -> Any:
    return np.array([v.encode() if isinstance(v, str) else v for v in values], np.object_)


def test_text_and_messages_become_ids(prompts: PromptService) -> None:
    ids, options = prompts.prompt({"text_input": tensor("the theme"), "max_tokens": np.array([3], np.int32)}, {})
    assert TABLE.join(ids.tolist()) == b"the theme"
    assert options.params.max_tokens == 3
    ids, _ = prompts.prompt({"messages": tensor('[{"role": "user", "content": "Hi"}]')}, {})
    assert b"user\nHi" in TABLE.join(ids.tolist())


def test_tensors_with_a_batch_dimension_are_read_alike(prompts: PromptService) -> None:
    flat, _ = prompts.prompt({"text_input": tensor("the theme")}, {})
    deep, options = prompts.prompt({"text_input": tensor("the theme").reshape(1, 1)}, {})
    assert np.array_equal(flat, deep)
    assert options.batched


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "this one has neither"),
        ({"text_input": tensor("a"), "messages": tensor("[]")}, "this one has both"),
        ({"messages": tensor(json.dumps([{"role": "user", "content": ""}] * 65))}, "messages has 65 entries, but this engine"),
        ({"text_input": tensor("a", "b")}, "holds 2 strings"),
        ({"text_input": tensor("a", "b").reshape(1, 2)}, "holds 2 strings"),
        ({"text_input": tensor(b"\xff\xfe")}, "text_input is not valid UTF-8"),
    ],
)
def test_a_request_without_one_prompt_is_refused(prompts: PromptService, tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        prompts.prompt(tensors, {})


def test_rows_are_read_as_if_each_were_alone_and_an_input_of_one_row_is_every_row_s(prompts: PromptService) -> None:
    rows = {"text_input": tensor("the theme", "here").reshape(2, 1), "max_tokens": np.array([[3], [4]], np.int32)}
    shared = {"seed": np.array([[7]], np.uint64), "stop_words": np.array([[b"x", b"y"]], np.object_)}
    ids, options = prompts.prompts(rows | shared, {})
    alone = [prompts.prompt({n: a[i : i + 1] for n, a in rows.items()} | shared, {}) for i in range(2)]
    assert ids.tolist() == [*alone[0][0].tolist(), *alone[1][0].tolist()]
    assert [o.params for o in options] == [o.params for _, o in alone]
    assert [o.prompt_tokens for o in options] == [len(one) for one, _ in alone]
    assert [o.params.max_tokens for o in options] == [3, 4]


def test_inputs_of_different_numbers_of_rows_are_refused_by_name(prompts: PromptService) -> None:
    tensors = {"text_input": tensor("a", "b", "c").reshape(3, 1), "max_tokens": np.array([[3], [4]], np.int32)}
    with pytest.raises(RequestError, match="max_tokens has 2 rows, another input has 3"):
        prompts.prompts(tensors, {})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"text_input": tensor("a").reshape(1, 1), "stop_request": np.zeros((0, 1), np.bool_)}, "^stop has 0 rows"),
        ({"vllm_text_input": np.array([b"\xff"], np.object_)}, "^text_input is not valid UTF-8"),
    ],
)
def test_errors_name_what_the_client_has_sent(prompts: PromptService, tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        prompts.prompts(tensors, {})


def test_a_prompt_under_vllm_s_name_comes_back_with_a_whole_answer_and_not_with_a_stream(prompts: PromptService) -> None:
    def options(**inputs: Any) -> Any:
        return prompts.prompt({"vllm_text_input": tensor("the theme")} | inputs, {})[1]

    assert options().echo and options().vllm
    assert not options(stream=np.array([True])).echo
    assert not options(exclude_input_in_output=np.array([True])).echo
    with pytest.raises(RequestError, match="a stream carries the answer only"):
        options(stream=np.array([True]), exclude_input_in_output=np.array([False]))


def test_a_client_of_tensorrt_llm_may_ask_for_the_prompt_with_a_stream_which_means_nothing(prompts: PromptService) -> None:
    tensors = {"text_input": tensor("a").reshape(1, 1), "exclude_input_in_output": np.array([[False]])}
    assert prompts.prompt(tensors, {})[1].echo
    assert not prompts.prompt(tensors | {"stream": np.array([[True]])}, {})[1].echo
