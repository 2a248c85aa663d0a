"""Options and the tensors that they are sent as. Written by `make contracts`, from the server's declaration."""

SCALARS = {  # option -> datatype
    "add_special_tokens": "BOOL",
    "enable_thinking": "BOOL",
    "add_generation_prompt": "BOOL",
    "continue_final_message": "BOOL",
    "split_special_tokens": "BOOL",
    "thinking_budget": "INT32",
    "max_tokens": "INT32",
    "min_tokens": "INT32",
    "temperature": "FP32",
    "top_k": "INT32",
    "top_p": "FP32",
    "min_p": "FP32",
    "repetition_penalty": "FP32",
    "presence_penalty": "FP32",
    "frequency_penalty": "FP32",
    "seed": "UINT64",
    "n": "INT32",
    "parallel_tool_calls": "BOOL",
    "ignore_eos": "BOOL",
    "cache_salt": "STRING",
    "separate_reasoning": "BOOL",
    "logprobs": "INT32",
    "prompt_logprobs": "INT32",
}
LISTS = {  # the same of those with several values
    "bad_words": "STRING",
    "stop": "STRING",
    "stop_token_ids": "INT32",
}
TENSORS = {  # options whose tensor has another name
    "logprobs": "top_logprobs",
    "prompt_logprobs": "top_prompt_logprobs",
}
