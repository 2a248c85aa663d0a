"""The checked-in configs, parsed by Triton's own protobuf definitions. Run: pytest tests/repository/test_configs.py"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from triune_runtime.contracts import models

MODELS = Path(__file__).parents[2] / "model_repository"
ENSEMBLES = {one.name: one.tokenizer for one in models.ENSEMBLES}
UNIONS = [one.name for one in models.ENSEMBLES if one.inputs is None]  # those that take the inputs of every contract

# What clients send: TensorRT-LLM's ensemble, vLLM's backend, and the names that older clients still use.
TENSORRT_LLM = """
    text_input max_tokens decoder_text_input num_return_sequences bad_words stop_words exclude_input_in_output end_id pad_id
    top_k top_p temperature length_penalty repetition_penalty min_tokens presence_penalty frequency_penalty seed
    beam_width stream return_log_probs return_context_logits return_generation_logits return_perf_metrics
    return_num_input_tokens return_num_output_tokens prompt_embedding_table prompt_table_extra_id prompt_vocab_size
    embedding_bias_words embedding_bias_weights lora_task_id lora_weights lora_config guided_decoding_guide_type
    guided_decoding_guide random_seed min_length
""".split()
VLLM = """
    text_input image stream sampling_parameters exclude_input_in_output return_finish_reason return_cumulative_logprob
    return_logprobs return_num_input_tokens return_num_output_tokens embedding_request
""".split()
# In the contracts and not declared, each with its reason. A client that sends one is told by Triton that it is unknown.
NOT_OURS = {
    "use_draft_logits": "only tensorrt_llm_bls has it, for a draft model of its own",
    "image_input": "only tensorrt_llm_bls has it; vLLM's image is declared and refused by name",
}
OURS = """
    messages min_p stop logit_bias ignore_eos timeout_s cancel enable_thinking thinking_budget separate_reasoning n best_of
    speculation num_draft_tokens response_format tools tool_choice parallel_tool_calls
""".split()
# The LLM API model of TensorRT-LLM: its name -> the tokenizer's.
LLM_API = {
    "text_input": "text_input", "streaming": "stream", "sampling_param_best_of": "best_of",
    "sampling_param_temperature": "temperature", "sampling_param_top_k": "top_k", "sampling_param_top_p": "top_p",
    "sampling_param_frequency_penalty": "frequency_penalty", "sampling_param_presence_penalty": "presence_penalty",
    "sampling_param_max_tokens": "max_tokens", "sampling_param_stop": "stop_words", "sampling_param_seed": "seed",
    "sampling_param_exclude_input_from_output": "exclude_input_in_output",
    "sampling_param_return_perf_metrics": "return_perf_metrics", "return_finish_reason": "return_finish_reason",
    "return_stop_reason": "return_stop_reason", "return_cumulative_logprob": "return_cumulative_logprob",
    "stop": "stop_request",
}  # fmt: skip
STOPPING = ("input_ids", "input_lengths", "request_output_len")  # what comes with TensorRT-LLM's stop
TIMES = {
    "arrival_time_ns": "TYPE_INT64",
    "first_scheduled_time_ns": "TYPE_INT64",
    "first_token_time_ns": "TYPE_INT64",
    "last_token_time_ns": "TYPE_INT64",
    "kv_cache_alloc_new_blocks": "TYPE_INT32",
    "kv_cache_reused_blocks": "TYPE_INT32",
    "kv_cache_alloc_total_blocks": "TYPE_INT32",
    "acceptance_rate": "TYPE_FP32",
    "total_accepted_draft_tokens": "TYPE_INT32",
    "total_draft_tokens": "TYPE_INT32",
}
OUTPUTS = TIMES | {
    "text_output": "TYPE_STRING",
    "reasoning_output": "TYPE_STRING",
    "finish_reason": "TYPE_STRING",
    "stop_reason": "TYPE_STRING",
    "tool_format": "TYPE_STRING",
    "num_input_tokens": "TYPE_UINT32",
    "num_output_tokens": "TYPE_UINT32",
    "num_reasoning_tokens": "TYPE_UINT32",
    "acceptance_rate": "TYPE_FP32",
    "total_accepted_draft_tokens": "TYPE_INT32",
    "total_draft_tokens": "TYPE_INT32",
    "chunk_index": "TYPE_INT32",
    "request_key": "TYPE_INT64",
    "logprobs": "TYPE_STRING",
    "cum_log_probs": "TYPE_FP32",
    "output_log_probs": "TYPE_FP32",
    "batch_index": "TYPE_INT32",
    "sequence_index": "TYPE_INT32",
}
DATATYPES = {
    "text_input": "TYPE_STRING", "max_tokens": "TYPE_INT32", "temperature": "TYPE_FP32", "top_k": "TYPE_INT32",
    "top_p": "TYPE_FP32", "random_seed": "TYPE_UINT64", "seed": "TYPE_UINT64", "stream": "TYPE_BOOL",
    "beam_width": "TYPE_INT32", "min_length": "TYPE_INT32", "stop_words": "TYPE_STRING", "bad_words": "TYPE_STRING",
    "sampling_parameters": "TYPE_STRING", "return_num_input_tokens": "TYPE_BOOL", "end_id": "TYPE_INT32",
    "response_format": "TYPE_STRING", "tools": "TYPE_STRING", "parallel_tool_calls": "TYPE_BOOL",
    "enable_thinking": "TYPE_BOOL", "thinking_budget": "TYPE_INT32", "separate_reasoning": "TYPE_BOOL",
    "speculation": "TYPE_BOOL", "num_draft_tokens": "TYPE_INT32",
}  # fmt: skip


# Every field that the configs use; the server of Triton 24.10 knows them all, and refuses a file with one that it does not.
FIELDS = """
    backend platform max_batch_size instance_group instance_group.count instance_group.kind model_transaction_policy
    model_transaction_policy.decoupled input input.name input.data_type input.dims input.optional output output.name
    output.data_type output.dims ensemble_scheduling ensemble_scheduling.step ensemble_scheduling.step.model_name
    ensemble_scheduling.step.model_version ensemble_scheduling.step.input_map ensemble_scheduling.step.output_map
""".split()


def config(name: str) -> Any:
    return text_format.Parse((MODELS / name / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


def kinds(tensors: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {t.name: (model_config_pb2.DataType.Name(t.data_type), tuple(t.dims)) for t in tensors}


def names() -> list[str]:
    return sorted(p.parent.name for p in MODELS.glob("*/config.pbtxt"))


def test_the_names_that_clients_of_other_servers_ask_for_are_there() -> None:
    known = "triune ensemble tensorrt_llm_bls tensorrt_llm vllm_model triune_infer ensemble_infer".split()
    assert not set(known) - set(names())


def test_every_folder_is_a_model_with_a_version() -> None:
    assert names() == sorted(p.name for p in MODELS.iterdir())
    for name in names():
        assert (MODELS / name / "1").is_dir(), name


def used(message: Any, prefix: str = "") -> set[str]:
    """The paths of the fields that are set in `message`."""
    found: set[str] = set()
    for field, value in message.ListFields():
        found.add(prefix + field.name)
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for one in value if isinstance(value, Sequence) else [value]:
                found |= used(one, f"{prefix}{field.name}.")
    return found


@pytest.mark.parametrize("name", names())
def test_no_field_is_newer_than_the_server(name: str) -> None:
    assert used(config(name)) <= set(FIELDS)


@pytest.mark.parametrize("name", names())
def test_a_config_names_no_model_but_its_folder(name: str) -> None:
    assert config(name).name in ("", name)
    for step in config(name).ensemble_scheduling.step:
        assert step.model_name in names()
        assert step.model_version == -1


def test_the_two_tokenizers_differ_in_ranks_only() -> None:
    flat, deep = config("tokenize"), config("tokenize_2d")
    assert kinds(flat.output) == kinds(deep.output)
    assert [t.name for t in flat.input] == [t.name for t in deep.input]
    for one, two in zip(flat.input, deep.input, strict=True):
        assert len(two.dims) == len(one.dims) + 1, one.name
    for parsed in (flat, deep):
        for tensor in parsed.input:
            del tensor.dims[:]
    assert flat == deep
    programs = [(MODELS / name / "1" / "model.py").read_text("utf-8") for name in ("tokenize", "tokenize_2d")]
    assert programs[0] == programs[1]


@pytest.mark.parametrize("name", names())
def test_triton_must_not_batch(name: str) -> None:
    parsed = config(name)
    assert parsed.max_batch_size == 0
    assert not parsed.HasField("dynamic_batching")
    if parsed.platform != "ensemble":
        (group,) = parsed.instance_group
        assert group.count == 1  # more would reorder chunks
    assert parsed.model_transaction_policy.decoupled == (name == "generate")


@pytest.mark.parametrize(("ensemble", "first"), [(name, ENSEMBLES[name]) for name in UNIONS])
def test_every_input_of_the_contracts_is_declared_and_optional(ensemble: str, first: str) -> None:
    renamed = {} if first == "tokenize" else {"stop": "stop_request"}
    for parsed in (config(ensemble), config(first)):
        declared = kinds(parsed.input)
        assert not NOT_OURS.keys() & declared.keys()
        assert not {*TENSORRT_LLM, *VLLM, *OURS} - declared.keys()
        assert all(t.optional for t in parsed.input)
        assert {name: declared[name][0] for name in DATATYPES} == DATATYPES
    taken = kinds(config(first).input)
    assert kinds(config(ensemble).input) == {n: taken[renamed.get(n, n)] for n in kinds(config(ensemble).input)}


def test_the_old_ensemble_has_a_batch_dimension_more_and_otherwise_the_same_inputs() -> None:
    flat, deep = kinds(config("triune").input), kinds(config("ensemble").input)
    assert deep.keys() - flat.keys() == set(STOPPING)
    assert deep.pop("stop") == ("TYPE_BOOL", (-1, 1))  # TensorRT-LLM's word for ending another request
    for name in flat.keys() & deep.keys():
        assert deep[name] == (flat[name][0], (-1, *flat[name][1])), name


def test_both_pipelines_of_tensorrt_llm_are_the_same_model() -> None:
    assert config("ensemble") == config("tensorrt_llm_bls")


@pytest.mark.parametrize("target", ["triune", "ensemble"])
def test_a_model_for_one_response_takes_and_gives_what_its_ensemble_does(target: str) -> None:
    whole, parts = config(f"{target}_infer"), config(target)
    assert kinds(whole.input) == kinds(parts.input)
    assert all(tensor.optional for tensor in whole.input)
    found, expected = kinds(whole.output), kinds(parts.output)
    assert found.keys() == expected.keys()
    for name, (datatype, dims) in expected.items():  # those of several responses stand behind each other
        assert found[name] == (datatype, (-1, *dims[1:])), name


@pytest.mark.parametrize("name", ENSEMBLES)
def test_no_step_of_an_ensemble_maps_a_tensor_twice(name: str) -> None:
    """Parsed, the last of two entries would hide the first."""
    for step in (MODELS / name / "config.pbtxt").read_text("utf-8").split("model_name:")[1:]:
        entries = re.findall(r"(?:in|out)put_map \{ key: \"\w+\"", step)
        assert len(entries) == len(set(entries)) > 0


def test_every_ensemble_is_the_same_steps_under_other_names() -> None:
    """What an alias has of the whole model, and what it calls it: nothing else may differ."""
    whole = {step.model_name: step for step in config("triune").ensemble_scheduling.step}
    for name, first in ENSEMBLES.items():
        steps = config(name).ensemble_scheduling.step
        assert [step.model_name for step in steps] == [first, "generate", "detokenize"]
        known = {**whole["generate"].output_map, **whole["detokenize"].output_map}
        for step in steps[1:]:
            assert set(step.output_map) <= set(known)
            assert set(step.input_map) == set(whole[step.model_name].input_map)


def test_no_ensemble_has_an_input_of_an_outputs_name() -> None:
    """To Triton they would be one tensor."""
    for name in ENSEMBLES:
        parsed = config(name)
        assert not {t.name for t in parsed.input} & {t.name for t in parsed.output}, name


def test_a_client_of_vllm_finds_its_inputs_and_outputs_and_no_others() -> None:
    parsed = config("vllm_model")
    assert {t.name for t in parsed.input} == set(VLLM)
    first = parsed.ensemble_scheduling.step[0].input_map
    assert first == {name: name for name in VLLM if name != "text_input"} | {"vllm_text_input": "text_input"}
    assert {n: kind for n, (kind, _) in kinds(parsed.output).items()} == {
        "text_output": "TYPE_STRING", "finish_reason": "TYPE_STRING", "cumulative_logprob": "TYPE_FP32",
        "logprobs": "TYPE_STRING", "num_input_tokens": "TYPE_UINT32", "num_output_tokens": "TYPE_UINT32",
        "sequence_index": "TYPE_INT32", "prompt_logprobs": "TYPE_STRING",
    }  # fmt: skip


def test_a_client_of_the_llm_api_finds_its_inputs_under_its_names() -> None:
    parsed = config("tensorrt_llm")
    assert {t.name for t in parsed.input} == {*LLM_API, *STOPPING}
    first = parsed.ensemble_scheduling.step[0].input_map
    assert first == {ours: theirs for theirs, ours in LLM_API.items()} | {name: name for name in STOPPING}
    outputs = kinds(parsed.output)
    assert {"text_output", "finish_reason", "stop_reason", "cumulative_logprob", *TIMES} <= set(outputs)


@pytest.mark.parametrize("name", UNIONS)
def test_outputs_have_the_types_and_ranks_that_clients_read(name: str) -> None:
    found = kinds(config(name).output)
    assert {n: found[n][0] for n in OUTPUTS} == OUTPUTS
    assert len(found["text_output"][1]) == 1  # clients decode its elements
    assert found["batch_index"][1] == (1, 1)  # clients read [0][0]
    assert all(found[name][1] == (-1, 1) for name in ("sequence_index", *TIMES))


@pytest.mark.parametrize("name", ENSEMBLES)
def test_maps_of_an_ensemble_agree_with_its_steps(name: str) -> None:
    parsed = config(name)
    tensors = kinds(parsed.input)
    for step in parsed.ensemble_scheduling.step:
        model = config(step.model_name)
        inputs, outputs = kinds(model.input), kinds(model.output)
        assert set(step.input_map) <= set(inputs), step.model_name
        assert {t.name for t in model.input if not t.optional} <= set(step.input_map), step.model_name
        assert set(step.output_map) <= set(outputs), step.model_name
        for theirs, ours in step.input_map.items():
            assert tensors[ours] == inputs[theirs], f"{step.model_name}: {ours}"
        tensors |= {ours: outputs[theirs] for theirs, ours in step.output_map.items()}
    for output, kind in kinds(parsed.output).items():
        assert tensors[output] == kind, output


@pytest.mark.parametrize("name", ENSEMBLES)
def test_nothing_after_generate_reads_what_was_before_it(name: str) -> None:
    """Triton's rule for ensembles with a decoupled step: one origin for all inputs of a step, and for all outputs."""
    parsed = config(name)
    origin = {t.name: "request" for t in parsed.input}
    for step in parsed.ensemble_scheduling.step:
        found = {origin[ours] for ours in step.input_map.values()}
        assert len(found) == 1, f"{step.model_name} reads tensors of {sorted(found)}"
        decoupled = config(step.model_name).model_transaction_policy.decoupled
        origin |= {ours: step.model_name if decoupled else found.copy().pop() for ours in step.output_map.values()}
    assert {origin[t.name] for t in parsed.output} == {"generate"}
