"""Compares an engine, run by the runner that will serve it, with the reference on the checkpoint's own float weights."""

from __future__ import annotations

import statistics
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from triune_runtime.manifest import EngineManifest, Limits, Speculation
from triune_runtime.runner import Runner
from triune_runtime.targets import make_runner

from ..errors import BuildError
from .best import best_errors
from .comparison import Source, Told, compare
from .drafts import verify_drafts
from .measure import Sizes, answer_prompts, batch_errors, read_chunks, read_windows
from .texts import evaluation_ids, texts_of, token_ids
from .verification import Note, Verification

_ROUTERS = "*.mlp.gate.weight"  # what a model with experts has


@np.errstate(all="ignore")  # of weights that are no numbers: the report tells of them
def verify(
    runner: Runner,
    limits: Limits,
    checkpoint: Source,
    *,
    speculation: Speculation | None = None,
    sizes: Sizes | None = None,
    note: Note = lambda _: None,
) -> Verification:
    """Run the engine over the texts and prompts, then the reference once over all that the engine read.

    Args:
        speculation: how the engine checks drafts, if it does.
        note: called with a few words whenever another part begins.

    Raises:
        BuildError: the engine's vocabulary is not the checkpoint's, or the reference does not know the architecture.
    """
    began, sizes = time.monotonic(), sizes or Sizes()
    texts = texts_of(checkpoint.verification)
    evaluation = evaluation_ids(checkpoint.tokenizer_json, texts)
    prompts = [ids for ids in token_ids(checkpoint.tokenizer_json, texts.prompts) if ids]
    if runner.vocab_size != checkpoint.config["vocab_size"]:
        raise BuildError(
            f"the engine has {runner.vocab_size} logits, the checkpoint {checkpoint.config['vocab_size']} tokens",
            "this is a fault of the export; build with --force, and report it if it stays",
        )
    note("perplexity, token by token")
    windows = read_windows(runner, limits, evaluation, sizes)
    note("greedy answers")
    answers = answer_prompts(runner, limits, prompts, sizes)
    note("sequences alone and in a batch")
    alone = batch_errors(runner, limits, [a.tokens for a in answers])
    has_experts = any(fnmatch(name, _ROUTERS) for name in checkpoint.weights)
    note("prompts in chunks")
    text = [token for _, tokens in evaluation for token in tokens]
    chunks = read_chunks(runner, limits, text)
    drafts = None
    if speculation is not None:
        note("drafts")
        drafts = verify_drafts(runner, speculation, limits, checkpoint.config, checkpoint.weights, text)
    contradicted = best_errors(runner, limits, text)
    told = Told(
        evidence=[*windows, *answers, chunks.evidence],
        answers=answers,
        read=windows,
        batch_error=max(alone, default=0.0),
        batch_median=statistics.median(alone) if has_experts and alone else None,
        repeat_error=chunks.repeat_error,
        chunk_error=chunks.cut_error,
        drafts=drafts,
        best_errors=contradicted,
        seconds=time.monotonic() - began,
    )
    return compare(told, checkpoint, note)


def verify_engine(
    manifest: EngineManifest, folder: Path, checkpoint: Source, *, sizes: Sizes | None = None, note: Note = lambda _: None
) -> Verification:
    """Load the engine of `manifest` from `folder` with the runner that will serve it, and `verify` it.

    Raises:
        ManifestError: it cannot be loaded here.
        BuildError: see `verify`.
    """
    note("loading the engine")
    runner = make_runner(manifest, folder)
    runner.warm_up()
    try:
        return verify(runner, manifest.limits, checkpoint, speculation=manifest.speculation, sizes=sizes, note=note)
    finally:
        runner.close()
