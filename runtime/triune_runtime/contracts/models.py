"""Triton's models: the steps, ensembles of them under the names that clients ask for, and those that give one response.

To add an alias, add a row to `ENSEMBLES` and run `make contracts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..options.declared import NAMES, SECTIONS, VLLM_PROMPT
from ..options.rows import Name
from .outputs import OUTPUTS, Output

STEPS = ("tokenize", "tokenize_2d", "generate", "detokenize")


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """tokenize -> generate -> detokenize, under names of tensors that a kind of client knows."""

    name: str
    comment: str  # the first line of its config
    rows: bool  # its inputs have a batch dimension in front, [rows, ...]
    inputs: Mapping[str, str] | None = None  # the client's name -> the tokenizer's; None: all there are
    outputs: Mapping[str, str] | None = None  # the client's name -> that of `OUTPUTS`; None: all there are
    clients: str  # whose clients ask for it
    answers: str

    @property
    def tokenizer(self) -> str:
        return "tokenize_2d" if self.rows else "tokenize"

    def taken(self) -> dict[str, dict[str, Name]]:
        """The inputs by the client's name, in the table's sections; those that are listed here, in one without a title."""
        if self.inputs is not None:
            return {"": {theirs: NAMES[ours] for theirs, ours in self.inputs.items()}}
        signal = {"stop": "stop_request"} if self.rows else {}  # TensorRT-LLM's word for ending another request
        sections = {}
        for title, rows in SECTIONS.items():
            usual = [row for row in rows if row.tensor and not row.inner and (self.rows or not row.rows_only)]
            sections[title] = {row.name: NAMES[signal.get(row.name, row.name)] for row in usual}
        return sections

    def given(self) -> dict[str, Output]:
        """The outputs by the client's name."""
        if self.outputs is not None:
            return {theirs: OUTPUTS[ours] for theirs, ours in self.outputs.items()}
        return {name: one for name, one in OUTPUTS.items() if not one.inner}


@dataclass(frozen=True, kw_only=True)
class OneResponse:
    """A model that hands its requests on to an ensemble and answers each with one response."""

    ensemble: str
    program: str | None = None  # the model whose model.py it has; None: one of its own

    @property
    def name(self) -> str:
        return f"{self.ensemble}_infer"


def _same(names: str) -> dict[str, str]:
    return {name: name for name in names.split()}


_STOP_SIGNAL = {"stop": "stop_request"} | _same("input_ids input_lengths request_output_len")
_LLM_API = {
    "text_input": "text_input",
    "streaming": "stream",
    "sampling_param_best_of": "best_of",
    "sampling_param_temperature": "temperature",
    "sampling_param_top_k": "top_k",
    "sampling_param_top_p": "top_p",
    "sampling_param_frequency_penalty": "frequency_penalty",
    "sampling_param_presence_penalty": "presence_penalty",
    "sampling_param_max_tokens": "max_tokens",
    "sampling_param_stop": "stop_words",
    "sampling_param_seed": "seed",
    "sampling_param_exclude_input_from_output": "exclude_input_in_output",
    "sampling_param_return_perf_metrics": "return_perf_metrics",
} | _same("return_finish_reason return_stop_reason return_cumulative_logprob")
_VLLM = {"text_input": VLLM_PROMPT} | _same(
    "image stream sampling_parameters exclude_input_in_output return_finish_reason return_cumulative_logprob return_logprobs "
    "return_num_input_tokens return_num_output_tokens embedding_request"
)
_LOGPROB = {"cumulative_logprob": "cum_log_probs"}
_METRICS = """
    arrival_time_ns first_scheduled_time_ns first_token_time_ns last_token_time_ns kv_cache_alloc_new_blocks
    kv_cache_reused_blocks kv_cache_alloc_total_blocks acceptance_rate total_accepted_draft_tokens total_draft_tokens
"""
_TENSORRT_LLM = Ensemble(
    name="ensemble",
    comment="The same steps for clients of TensorRT-LLM's ensemble: inputs carry a batch dimension, and stop=true ends the "
    "request of the same id.",
    rows=True,
    clients="TensorRT-LLM's pipelines",
    answers="a response for each sequence, with `batch_index` and `sequence_index`",
)
ENSEMBLES = (
    Ensemble(
        name="triune",
        comment="tokenize -> generate -> detokenize. After generate, no step may read a tensor from before it.",
        rows=False,
        clients="Triune; the union of all inputs",
        answers="streams; whole answers in one response",
    ),
    _TENSORRT_LLM,
    replace(
        _TENSORRT_LLM,
        name="tensorrt_llm_bls",
        comment="The model `ensemble` under the name of TensorRT-LLM's other pipeline, for clients that ask for that.",
    ),
    Ensemble(
        name="tensorrt_llm",
        comment="The same steps for clients of TensorRT-LLM's LLM API model, and for requests that end another: stop=true with "
        "the same id.",
        rows=True,
        inputs=_LLM_API | _STOP_SIGNAL,
        outputs=_same("text_output finish_reason stop_reason") | _LOGPROB | _same("batch_index sequence_index" + _METRICS),
        clients="TensorRT-LLM's LLM API (`sampling_param_*`); stop signals",
        answers="as `ensemble`",
    ),
    Ensemble(
        name="vllm_model",
        comment="The same steps for clients of vLLM's backend: its inputs and outputs, and its way to give the prompt back "
        "with a whole answer.",
        rows=False,
        inputs=_VLLM,
        outputs=_same("text_output finish_reason")
        | _LOGPROB
        | _same("logprobs prompt_logprobs num_input_tokens num_output_tokens sequence_index"),
        clients="vLLM's backend",
        answers="in every response an element for each sequence",
    ),
)
ONE_RESPONSE = (OneResponse(ensemble="triune"), OneResponse(ensemble="ensemble", program="triune_infer"))
MODELS = (*STEPS, *(one.name for one in ENSEMBLES), *(one.name for one in ONE_RESPONSE))
