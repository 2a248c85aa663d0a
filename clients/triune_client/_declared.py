"""Options and the tensors that they are sent as. Written by `make contracts`, from the server's declaration."""

SCALARS = {  # option -> datatype
    "enable_thinking": "BOOL",
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
    "separate_reasoning": "BOOL",
    "logprobs": "INT32",
    "prompt_logprobs": "INT32",
}
LISTS = (  # of strings
    "bad_words",
    "stop",
)
TENSORS = {  # options whose tensor has another name
    "logprobs": "top_logprobs",
}
