"""A double of vLLM, for its process: what `triune_runtime.targets.vllm` uses of it, as strict, without a model.

Its folder goes into PYTHONPATH of that process alone. The next token is a hash of all before it, drawn with the request's seed
where it is sampled; the logits processors that it is given are applied. A prompt may begin with one of TRIGGERS.
"""

from .double import AsyncEngineArgs, AsyncLLMEngine
from .sampling_params import SamplingParams

__version__ = "0.32.0"
__all__ = ["AsyncEngineArgs", "AsyncLLMEngine", "SamplingParams"]
