"""What engine.json says of a build: the checkpoint, the engine that was made of it, and the plan. Writes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from triune_runtime.manifest import EngineManifest, SamplingDefaults

from .plan import BuildPlan
from .reasoning import reasoning_markers
from .targets import find_target
from .targets.facts import EngineFacts

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


def manifest_of(
    checkpoint: Checkpoint, facts: EngineFacts, plan: BuildPlan, tools: Mapping[str, str], inputs_hash: str
) -> EngineManifest:
    """The manifest of an engine that is not proved yet."""
    known = {f.name for f in dataclasses.fields(SamplingDefaults)}
    return EngineManifest(
        model=checkpoint.name,
        architecture=facts.architecture,
        target=plan.target,
        precision=plan.precision,
        engine=facts.engine,
        vocab_size=facts.vocab_size,
        cache=facts.cache,
        stop_token_ids=tuple(checkpoint.stop_token_ids),
        bos_token_id=checkpoint.bos_token_id,
        chat_template=checkpoint.chat_template,
        tool_template=checkpoint.tool_template,
        special_tokens=dict(checkpoint.special_tokens),
        defaults=SamplingDefaults(**{k: v for k, v in checkpoint.generation_config.items() if k in known}),
        reasoning=reasoning_markers(checkpoint.tokenizer_json, checkpoint.chat_template),
        speculation=facts.speculation,
        limits=dataclasses.replace(plan.limits, chunks_per_s=find_target(plan.target).chunks_per_s),
        plan=facts.plan,
        built_with=dict(tools),
        inputs_hash=inputs_hash,
    )
