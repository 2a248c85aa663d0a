"""What a build of this target leaves: config.json, the weights if they had to be converted, and how vLLM is to load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ...graph.promises import check_weights, settled_config
from ...planning.memory import gib
from ..facts import EngineFacts
from .checking import config_of, fitting, kept_cache, quantization_of, safetensors_folder
from .converting import write_weights
from .planned import choose
from .precisions import PRECISIONS

if TYPE_CHECKING:
    from ...checkpoint import Checkpoint
    from ...plan import BuildPlan
    from ..target import StageFactory

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def compile_engine(plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
    """See `Target.compile`. The weights of a safetensors checkpoint stay where they are; its folder is noted."""
    with stage("check") as clock:
        check_weights(checkpoint.config, checkpoint.weights)
        chosen = choose(plan, checkpoint.config, checkpoint.weights.keys())
        clock.show.say(f"{'split':<10} {chosen.split}, {gib(chosen.kv_bytes)} of KV memory each; {chosen.why}")
    row, split = PRECISIONS[plan.precision], chosen.split
    wider = fitting(checkpoint.config, checkpoint.weights)
    config, weights = wider or (checkpoint.config, checkpoint.weights)
    _, cfg = settled_config(config, checkpoint.weights.keys())
    cache = kept_cache(cfg.cache, plan.precision)
    own = None if wider else safetensors_folder(checkpoint)
    files = [CONFIG]
    (folder / CONFIG).write_text(json.dumps(config_of(config, row.dtype), indent=2) + "\n", "utf-8")
    if own is None:
        with stage("convert") as clock:
            if wider:
                clock.show.say(f"{'convert':<10} attention gets R1's sizes, which vLLM has kernels for; what it computes stays")
            write_weights(folder / WEIGHTS, weights, row.dtype, lambda done, total: clock.note(f"{done} of {total} weights"))
        files.append(WEIGHTS)
    return EngineFacts(
        architecture=str(checkpoint.config["model_type"]),
        vocab_size=cfg.vocab_size,
        cache=cache,
        changes=(),
        files=tuple(files),
        engine=CONFIG,
        plan={
            "checkpoint": "" if own is None else str(own),
            "dtype": row.dtype,
            "quantization": quantization_of(plan.precision, checkpoint, converted=own is None),
            "kv_dtype": "auto" if row.cache == row.dtype else "fp8",
            "kv_bytes": chosen.kv_bytes,
            "tensor_parallel": split.tensor,
            "pipeline_parallel": split.pipeline,
            "data_parallel": split.data,
            "expert_parallel": split.expert,
            "nodes": chosen.nodes,
        },
    )
