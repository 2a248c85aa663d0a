"""Every name that a request may set: what it sets and how its value is read, or why it is refused. Tables, no logic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..constraints.guide import Guide, of_openai, of_vllm
from .values import UINT64, Value, boolean, real, whole

BIG = 2**31 - 1
MOST_DRAFTS = 64
SCALARS: dict[str, tuple[str, Callable[[str, Value], Any]]] = {  # name -> (what it sets, how it is read)
    "max_tokens": ("max_tokens", whole(1, BIG)),
    "min_tokens": ("min_tokens", whole(0, BIG)),
    "min_length": ("min_tokens", whole(0, BIG)),
    "temperature": ("temperature", real(0, 1000)),
    "top_k": ("top_k", whole(-1, BIG)),
    "top_p": ("top_p", real(0, 1)),
    "min_p": ("min_p", real(0, 1)),
    "repetition_penalty": ("repetition_penalty", real(0.01, 100)),
    "presence_penalty": ("presence_penalty", real(-100, 100)),
    "frequency_penalty": ("frequency_penalty", real(-100, 100)),
    "seed": ("seed", whole(0, UINT64)),
    "random_seed": ("seed", whole(0, UINT64)),
    "ignore_eos": ("ignore_eos", boolean),
    "logprobs": ("logprobs", whole(0, 20)),  # in sampling_parameters; as a tensor the name is that of the output
    "top_logprobs": ("logprobs", whole(0, 20)),
    "return_log_probs": ("return_log_probs", boolean),
    "return_logprobs": ("return_log_probs", boolean),
    "return_cumulative_logprob": ("return_log_probs", boolean),
    "stream": ("stream", boolean),
    "streaming": ("stream", boolean),
    "timeout_s": ("timeout_s", real(0.001, 86_400)),
    "exclude_input_in_output": ("exclude_input_in_output", boolean),
    "cancel": ("cancel", boolean),
    "stop_request": ("cancel", boolean),  # TensorRT-LLM's `stop`
    "end_id": ("end_id", whole(-1, BIG)),
    "n": ("n", whole(1, 128)),
    "num_return_sequences": ("n", lambda name, value: max(whole(0, 128)(name, value), 1)),  # 0: as if it were not sent
    "best_of": ("best_of", whole(1, 128)),
    "return_perf_metrics": ("timed", boolean),
    "enable_thinking": ("enable_thinking", boolean),
    "thinking_budget": ("thinking_budget", whole(0, BIG)),
    "separate_reasoning": ("separate_reasoning", boolean),
    "speculation": ("speculation", boolean),
    "num_draft_tokens": ("num_draft_tokens", whole(0, MOST_DRAFTS)),
}
LISTS = frozenset({"stop", "stop_words", "stop_token_ids", "bad_words", "embedding_bias_words", "embedding_bias_weights"})
ONLY: dict[str, tuple[Any, ...]] = {  # served with these values only; every other is refused by name
    "beam_width": (0, 1),
    "length_penalty": (0, 1),
    "use_beam_search": (False,),  # this and the next four are vLLM's
    "early_stopping": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (False, True),  # there are none in an answer
    "include_stop_str_in_output": (False,),
    "return_context_logits": (False,),
    "return_generation_logits": (False,),
    "return_num_input_tokens": (False, True),
    "return_num_output_tokens": (False, True),
    "return_finish_reason": (False, True),
    "return_stop_reason": (False, True),
}
REFUSED = frozenset(
    """
    decoder_text_input prompt_embedding_table prompt_table_extra_id prompt_vocab_size lora_task_id lora_weights lora_config
    image image_input embedding_request lora_name use_draft_logits prompt_logprobs logits_post_processor_name input_ids
    """.split()
)
GUIDES: dict[str, Callable[[str, Value], Guide | None]] = {  # what the answer must look like
    "response_format": of_openai,
    "guided_decoding": of_vllm,
    "structured_outputs": of_vllm,
}
GUIDE_PAIR = ("guided_decoding_guide_type", "guided_decoding_guide")  # TensorRT-LLM's: of use only together
TOOLS = ("tools", "tool_choice", "parallel_tool_calls")  # read with the messages, which they belong to
# What stands for text_input in a model with vLLM's contract: the tokenizer learns from its name which contract it is.
VLLM_PROMPT = "vllm_text_input"
CLIENT_NAMES = {VLLM_PROMPT: "text_input", "stop_request": "stop"}  # what clients have sent, in errors
# Sent with prompts as token ids, which only a request to stop another may carry: nobody reads them there.
TOKEN_INPUTS = frozenset({"input_ids", "input_lengths", "request_output_len"})
IGNORED = frozenset(
    """
    text_input messages pad_id sampling_parameters logit_bias detokenize input_lengths request_output_len
    """.split()
) | {VLLM_PROMPT, *TOOLS}
# The server's own request parameters; see Triton's generate extension.
RESERVED = frozenset(
    {"id", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output"}
)
