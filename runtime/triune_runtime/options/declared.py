"""Every name that a request may carry, and every value that travels between the steps. Tables, no logic.

The models' configs, `SamplingParams`, `Options`, the client's table and docs/options.md are written by `make contracts` from
this; `parsing.py` and `wire.py` read by it. To add a sampling option, add a row here, its column in the sampler, and its fields
in `triune_client` and in the OpenAI-compatible API.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..constraints.guide import GUIDE, of_openai, of_vllm
from .rows import Alias, Elsewhere, Field, Name, Only, Option, Prescribes, Refused
from .values import (
    BIAS,
    BIG,
    FLAG,
    MAX_STOP_IDS,
    MAX_STOPS,
    MAX_WORD_BYTES,
    MAX_WORDS,
    TOKEN_ID,
    UINT64,
    WORD,
    Bias,
    Biases,
    Many,
    Reader,
    Real,
    Text,
    Whole,
)

MOST_DRAFTS = 64
# What stands for text_input in a model with vLLM's contract: the tokenizer learns from its name which contract it is.
VLLM_PROMPT = "vllm_text_input"
GUIDE_PAIR = ("guided_decoding_guide_type", "guided_decoding_guide")  # TensorRT-LLM's: of use only together
CLIENT_NAMES = {VLLM_PROMPT: "text_input", "stop_request": "stop"}  # what clients have sent, in errors
# Sent with prompts as token ids, which only a request to stop another may carry: nobody reads them there.
TOKEN_INPUTS = frozenset({"input_ids", "input_lengths", "request_output_len"})
# The server's own request parameters; see Triton's generate extension.
CLIENT = "x-triune-client"  # whose request it is, as whoever lets clients in says: a header that Triton makes a parameter
RESERVED = frozenset({
    "id", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output",
    "traceparent", "tracestate", CLIENT,
})  # fmt: skip
_COUNT = Whole(0, BIG)
_PENALTY = Real(-100, 100)
_NO, _ANY = (False,), (False, True)


def _sampled(name: str, tensor: str, reader: Reader, default: object, says: str) -> Option:
    """What everyone offers who offers sampling."""
    return Option(name, tensor, reader, says, default=default, sampling=True, openai=True, client=True)


SECTIONS: Mapping[str, tuple[Name, ...]] = {
    "the prompt: one of these": (
        Elsewhere("text_input", "STRING", "a text, continued as it is"),
        Elsewhere(VLLM_PROMPT, "STRING", "the same, with vLLM's contract", inner=True),
        Elsewhere("messages", "STRING", "a conversation as JSON, rendered with the model's own template"),
        Elsewhere("add_special_tokens", "BOOL", "whether the tokenizer puts its own before a text; absent: not for `messages`",
                  openai=True, client=True),
        Elsewhere("prompt_token_ids", "INT32", "tokens of the model's own, continued as they are", dims=(-1,)),
    ),
    "how messages become a prompt, whether and how long to think": (
        Option("enable_thinking", "BOOL", FLAG, "whether a model that can think does so before it answers; with `messages`",
               openai=True, client=True),
        Elsewhere("add_generation_prompt", "BOOL", "false: `messages` without the beginning of the assistant's next turn",
                  openai=True, client=True),
        Elsewhere("continue_final_message", "BOOL", "the last of `messages` is open: the answer goes on with it",
                  openai=True, client=True),
        Elsewhere("split_special_tokens", "BOOL", "true: what `messages` spell of special tokens is text",
                  openai=True, client=True),
        Elsewhere("chat_template_kwargs", "STRING", "what else the model's template is told, as a JSON object", openai=True),
        _sampled("thinking_budget", "INT32", _COUNT, None, "most tokens of thinking; then it is closed. 0: answer at once"),
    ),
    "how to choose tokens": (
        _sampled("max_tokens", "INT32", Whole(1, BIG), None, "most tokens of the answer; absent: what room the engine leaves"),
        _sampled("min_tokens", "INT32", _COUNT, 0, "no stop token or stop string before this many"),
        Alias("min_length", "INT32", "min_tokens"),
        _sampled("temperature", "FP32", Real(0, 1000), 0.0, "how evenly tokens are chosen; 0: greedy"),
        _sampled("top_k", "INT32", Whole(-1, BIG, least=0), 0, "choose among the k best; 0 or -1: off"),
        _sampled("top_p", "FP32", Real(0, 1), 1.0, "choose among the best that have this probability together; 0 or 1: off"),
        _sampled("min_p", "FP32", Real(0, 1), 0.0, "choose among those at least this times as likely as the best; 0: off"),
        _sampled("repetition_penalty", "FP32", Real(0.01, 100), 1.0, "makes tokens of prompt and answer less likely; 1: off"),
        _sampled("presence_penalty", "FP32", _PENALTY, 0.0, "taken from the logits of tokens that the answer has; 0: off"),
        _sampled("frequency_penalty", "FP32", _PENALTY, 0.0, "the same, for each time that it has them; 0: off"),
        Only("length_penalty", "FP32", (0, 1)),
        _sampled("seed", "UINT64", Whole(0, UINT64), 0, "the same seed gives the same text, whatever else is in the batch"),
        Alias("random_seed", "UINT64", "seed"),
        Only("beam_width", "INT32", (0, 1)),
        Alias("num_return_sequences", "INT32", "n", reader=Whole(0, 128, least=1)),
        Option("n", "INT32", Whole(1, 128), "answers to the prompt that come back", default=1, openai=True, client=True),
        Option("best_of", "INT32", Whole(1, 128), "answers that are made; the most likely `n` of them come back", default=1),
        Option("logit_bias", "STRING", Biases(), "token id -> added to its logit", default=(), sampling=True,
               travels=Many(Bias(), BIG), openai=True),
        Option("embedding_bias_words", "STRING", Many(WORD, MAX_WORDS), "words that get a bias", dims=(-1,), field=None),
        Option("embedding_bias_weights", "FP32", Many(BIAS, MAX_WORDS), "their biases", dims=(-1,), field=None),
        Option("bad_words", "STRING", Many(WORD, MAX_WORDS), "what must not appear", dims=(-1,), default=(), sampling=True,
               travels=Many(Many(TOKEN_ID, MAX_WORD_BYTES), MAX_WORDS), openai=True, client=True),
        Elsewhere("sampling_parameters", "STRING", "options by name as a JSON object, as vLLM's clients send them"),
    ),
    "what the answer looks like, and tools": (
        Prescribes("response_format", "STRING", of_openai, "OpenAI's object as JSON, and extensions", openai=True),
        Option(GUIDE_PAIR[0], "STRING", Text(), "TensorRT-LLM's: json, json_schema, regex or ebnf_grammar", field=None),
        Option(GUIDE_PAIR[1], "STRING", Text(), "what that is to be", field=None),
        Elsewhere("tools", "STRING", "functions that the model may call, as OpenAI's JSON", openai=True),
        Elsewhere("tool_choice", "STRING", "none, auto, required, or one function", openai=True),
        Elsewhere("parallel_tool_calls", "BOOL", "false: at most one call in an answer", openai=True, client=True),
    ),
    "when to stop": (
        Option("stop", "STRING", Many(WORD, MAX_STOPS), "strings that end the answer; not part of it", dims=(-1,), default=(),
               sampling=True, openai=True, client=True),
        Alias("stop_words", "STRING", "stop", dims=(-1,)),
        Option("stop_token_ids", "INT32", Many(TOKEN_ID, MAX_STOP_IDS), "tokens that end the answer, besides the model's own",
               dims=(-1,), default=(), sampling=True, openai=True, client=True),
        Option("end_id", "INT32", Whole(-1, BIG), "one more token that ends the answer; -1: none", field=None),
        Elsewhere("pad_id", "INT32", "no effect"),
        _sampled("ignore_eos", "BOOL", FLAG, False, "go on after the model's own end"),
        Option("timeout_s", "FP32", Real(0.001, 86_400), "seconds for the answer; what there is by then is the answer",
               travels=Real(0, 86_400)),
        Option("cancel", "BOOL", FLAG, "not a request: ends the one with the same id", default=False),
        Alias("stop_request", "BOOL", "cancel", inner=True),  # TensorRT-LLM's `stop`
    ),
    "how fast: no text depends on it": (
        Option("speculation", "BOOL", FLAG, "whether tokens are guessed ahead", field=None),
        Option("num_draft_tokens", "INT32", Whole(0, MOST_DRAFTS), "most tokens guessed ahead at once; absent: as many as pay",
               field="max_drafts", sampling=True),
        Option("cache_salt", "STRING", Text(1024, may_be_empty=False), "computed prompts are shared with the same salt only",
               default="", openai=True, client=True),
    ),
    "what comes back": (
        Option("stream", "BOOL", FLAG, "the answer piece by piece", default=False, openai=True),
        Option("exclude_input_in_output", "BOOL", FLAG, "false: the prompt comes before the whole answer", field=None),
        Option("separate_reasoning", "BOOL", FLAG, "thinking apart from the answer; absent: with `messages` only", client=True),
        Option("top_logprobs", "INT32", Whole(0, 20), "0: log probabilities of the chosen tokens; k: and of the k best",
               field="logprobs", sampling=True, openai=True, client=True),
        Option("top_prompt_logprobs", "INT32", Whole(0, 20), "the same of the prompt's tokens, all computed anew",
               field="prompt_logprobs", sampling=True, client=True),
        Option("return_log_probs", "BOOL", FLAG, "log probabilities of the chosen tokens", field=None),
        Alias("return_logprobs", "BOOL", "return_log_probs"),
        Alias("return_cumulative_logprob", "BOOL", "return_log_probs"),
        Only("return_finish_reason", "BOOL", _ANY),
        Only("return_stop_reason", "BOOL", _ANY),
        Only("return_num_input_tokens", "BOOL", _ANY),
        Only("return_num_output_tokens", "BOOL", _ANY),
        Option("return_perf_metrics", "BOOL", FLAG, "say when things happened", default=False, field="timed"),
        Only("return_context_logits", "BOOL", _NO),
        Only("return_generation_logits", "BOOL", _NO),
    ),
    "known to old clients and refused by name": (
        Refused("input_ids", "INT32", dims=(-1,), rows_only=True),
        Elsewhere("input_lengths", "INT32", "comes with `input_ids`; not read", rows_only=True),
        Elsewhere("request_output_len", "UINT32", "comes with `input_ids`; not read", rows_only=True),
        Refused("decoder_text_input", "STRING"),
        Refused("prompt_embedding_table", "FP16", dims=(-1, -1)),
        Refused("prompt_table_extra_id", "UINT64"),
        Refused("prompt_vocab_size", "INT32"),
        Refused("lora_task_id", "UINT64"),
        Refused("lora_weights", "FP16", dims=(-1, -1)),
        Refused("lora_config", "INT32", dims=(-1, 3)),
        Refused("image", "STRING", dims=(-1,)),
        Refused("embedding_request", "STRING"),
    ),
    "no tensors: in `sampling_parameters` and among request parameters": (
        Alias("logprobs", "", "top_logprobs"),  # as a tensor the name is that of the output
        Alias("prompt_logprobs", "", "top_prompt_logprobs", openai=True),  # likewise
        Alias("streaming", "", "stream"),
        Prescribes("guided_decoding", "", of_vllm, "vLLM's object with json, json_object, regex, choice or grammar"),
        Prescribes("structured_outputs", "", of_vllm, "the same under vLLM's newer name", openai=True),
        Only("use_beam_search", "", _NO),  # this and the next four are vLLM's
        Only("early_stopping", "", _NO),
        Only("skip_special_tokens", "", (True,)),
        Only("spaces_between_special_tokens", "", _ANY),  # there are none in an answer
        Only("include_stop_str_in_output", "", _NO),
        *(Refused(name, "") for name in (
            "image_input", "lora_name", "use_draft_logits", "logits_post_processor_name",
        )),
    ),
}  # fmt: skip
NAMES: Mapping[str, Name] = {row.name: row for rows in SECTIONS.values() for row in rows}
OPTIONS: Mapping[str, Option] = {row.name: row for row in NAMES.values() if isinstance(row, Option)}

_SET = (Field(row.sets, row.travels or row.reader, row.default, row.says, row.sampling) for row in OPTIONS.values() if row.sets)
FIELDS: Mapping[str, Field] = {
    field.name: field
    for field in (
        *_SET,
        Field("guide", GUIDE, None, "what the answer must look like: see `constraints/guide.py`", sampling=True),
        Field("guide_input", Text(64), "", "the input that said so, for errors about it"),
        Field("echo", FLAG, False, "the prompt comes before the answer"),
        Field("batched", FLAG, False, "the client's tensors have a batch dimension, and so must the indices it gets"),
        Field("vllm", FLAG, False, "log probabilities, finish reasons and several answers as vLLM gives them"),
        Field("prompt_tokens", _COUNT, None, "of the prompts behind each other in one tensor, this one's; None: it has all"),
        Field("request_id", Text(), "", "where the client could only send it as a parameter (HTTP's generate)"),
        Field("trace", Many(Text(1024), 2), (), "where requests are traced: the caller's traceparent and tracestate"),
        Field("tokenized_ns", Many(Whole(0, UINT64), 2), (), "there: when tokenize began and ended, since the epoch"),
        Field("chat", FLAG, False, "there: the prompt was `messages`"),
        Field("thinking_open", FLAG, False, "the prompt holds the opening marker; tokenize finds that out"),
        Field("tool_format", Text(), "", "how the answer's tool calls are written, if it may have any"),
    )
}
