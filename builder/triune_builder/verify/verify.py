"""Compares an engine, run by the runner that will serve it, with the reference on the checkpoint's own float weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import Limits, Speculation
from triune_runtime.runner import Runner

from ..errors import BuildError
from . import reference
from .best import best_errors
from .budget import Budget
from .drafts import DraftFigures, verify_drafts
from .measure import Evidence, Sizes, answer_prompts, batch_error, difference, log_softmax, read_chunks, read_windows
from .texts import texts_of, token_ids

_SHOWN = 8  # disagreements that a report lists

Note = Callable[[str], None]


class Source(Protocol):
    """What is needed of a checkpoint."""

    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def weights(self) -> Mapping[str, reference.Tensor]: ...
    @property
    def tokenizer_json(self) -> str: ...
    @property
    def verification(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class LogitsError:
    """How far the engine's logits are from the reference's over some positions."""

    positions: int
    maximum: float  # of max |engine - reference| / max |reference| at a position
    median: float
    mean_kl: float  # nats, of the engine's probabilities from the reference's
    maximum_kl: float


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A position at which the reference prefers another token than the engine chose."""

    prompt: int
    position: int
    engine: int
    reference: int
    margin: float  # the reference's logit of its own choice minus that of the engine's
    lead: float  # the same as a share of the reference's largest logit


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All that was measured of an engine."""

    decode: LogitsError | None  # None here and below: not measured, see `left_out`
    prefill: LogitsError
    prompts: int
    greedy_tokens: int
    disagreements: tuple[Disagreement, ...]
    text_tokens: int
    perplexity_reference: float
    perplexity_engine: float
    batch_error: float | None  # 0.0: a sequence's bits are the same whatever runs beside it
    repeat_error: float | None  # 0.0: a prompt cut the same way gives the same bits
    chunk_error: float | None  # between two ways of cutting a prompt
    engine_seconds: float
    reference_seconds: float
    left_out: str = ""  # what was not run, in words; empty: nothing
    drafts: DraftFigures | None = None  # None: the engine checks none
    best_errors: int | None = None  # rows whose best token, found by the engine, their logits contradict; None: it finds none

    @property
    def perplexity_ratio(self) -> float:
        return self.perplexity_engine / self.perplexity_reference

    def agreement(self, tie: float = 0.0) -> float:
        """Share of the greedy tokens that are the reference's own, or as good to within `tie`."""
        wrong = sum(not d.lead <= tie for d in self.disagreements)
        return 1 - wrong / max(self.greedy_tokens, 1)


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
    evaluation = token_ids(checkpoint.tokenizer_json, texts.evaluation)
    prompts = token_ids(checkpoint.tokenizer_json, texts.prompts)
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
    alone = batch_error(runner, limits, [a.tokens for a in answers])
    note("prompts in chunks")
    text = [token for one in evaluation for token in one]
    chunks = read_chunks(runner, limits, text)
    drafts = None
    if speculation is not None:
        note("drafts")
        drafts = verify_drafts(runner, speculation, limits, checkpoint.config, checkpoint.weights, text)
    contradicted = best_errors(runner, limits, text)
    engine_done = time.monotonic()
    note("the float reference")
    evidence = [*windows, *answers, chunks.evidence]
    seen = Comparison(evidence, answers)
    for scored in reference.score(
        checkpoint.config, checkpoint.weights, [e.tokens for e in evidence], [e.positions for e in evidence]
    ):
        seen.add(scored)
    return Verification(
        decode=seen.decode.summary(),
        prefill=seen.prefill.summary(),
        prompts=len(answers),
        greedy_tokens=sum(len(a.chosen) for a in answers),
        disagreements=tuple(seen.disagreements),
        text_tokens=sum(len(w.losses) for w in windows),
        perplexity_reference=perplexity(seen.losses),
        perplexity_engine=perplexity([loss for w in windows for loss in w.losses]),
        batch_error=alone,
        repeat_error=chunks.repeat_error,
        chunk_error=chunks.cut_error,
        engine_seconds=engine_done - began,
        reference_seconds=time.monotonic() - engine_done,
        drafts=drafts,
        best_errors=contradicted,
    )


def problems(found: Verification, budget: Budget) -> list[str]:
    """What is over the budget, one sentence each; a figure that is not a number is over every budget."""
    decode = found.decode
    limits: list[tuple[str, float | None, float | None]] = [
        ("relative logits error when decoding", decode.maximum if decode else None, budget.logits_error),
        ("relative logits error of prefill", found.prefill.maximum, budget.logits_error),
        ("mean KL divergence when decoding", decode.mean_kl if decode else None, budget.mean_kl),
        ("mean KL divergence of prefill", found.prefill.mean_kl, budget.mean_kl),
        ("perplexity over the reference's", found.perplexity_ratio, budget.perplexity_ratio),
        ("difference of a sequence alone and in a batch", found.batch_error, budget.batch_error),
        ("difference of a prompt read alone and among other work", found.repeat_error, budget.batch_error),
        ("difference between two ways of cutting a prompt", found.chunk_error, budget.chunk_error),
    ]
    if (drafts := found.drafts) is not None:
        limits += [
            ("difference of a token alone and checked as a draft", drafts.error, budget.batch_error),
            ("relative logits error of the MTP layer", drafts.mtp_error, budget.logits_error),
            ("mean KL divergence of the MTP layer", drafts.mtp_kl, budget.mean_kl),
        ]
    over = [f"{what} is {value:.4g}, allowed {limit:g}" for what, value, limit in limits
            if limit is not None and value is not None and not value <= limit]  # fmt: skip
    if found.best_errors:
        over.append(f"{found.best_errors} rows have another best token than the engine finds")
    agreement = found.agreement(budget.tie)
    if not agreement >= budget.greedy_agreement:
        over.append(f"greedy agreement is {agreement:.2%}, wanted {budget.greedy_agreement:.2%}")
    return over


def shown(disagreements: Sequence[Disagreement]) -> list[Disagreement]:
    """The worst few, for a report."""
    return sorted(disagreements, key=lambda d: -d.lead)[:_SHOWN]


def perplexity(losses: Sequence[float]) -> float:
    """exp of the mean of `losses` (nats a token); infinite where that overflows."""
    mean = sum(losses) / max(len(losses), 1)
    return math.exp(mean) if not mean > 700 else math.inf


class _Errors:
    """Logits errors of one kind of run."""

    def __init__(self) -> None:
        self._relative: list[float] = []
        self._kl: list[float] = []

    def add(self, engine: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        self._relative.append(difference(engine, expected))
        p, q = log_softmax(expected), log_softmax(engine)
        self._kl.append(float(np.sum(np.exp(p) * (p - q))))

    def summary(self) -> LogitsError:
        return LogitsError(
            positions=len(self._relative),
            maximum=float(np.max(self._relative)),
            median=float(np.median(self._relative)),
            mean_kl=float(np.mean(self._kl)),
            maximum_kl=float(np.max(self._kl)),
        )


class Comparison:
    """Takes the reference's logits block by block and keeps only figures."""

    def __init__(self, evidence: Sequence[Evidence], answers: Sequence[Evidence]) -> None:
        self._evidence = evidence
        self._prompt = {id(a): number for number, a in enumerate(answers)}
        self.decode, self.prefill = _Errors(), _Errors()
        self.losses: list[float] = []
        self.disagreements: list[Disagreement] = []

    def add(self, scored: reference.Scored) -> None:
        evidence = self._evidence[scored.text]
        for position, expected in zip(scored.positions.tolist(), scored.logits, strict=True):
            if position < len(evidence.followers):
                self.losses.append(-log_softmax(expected)[evidence.followers[position]])
            if position in evidence.decoded:
                self.decode.add(evidence.decoded[position], expected)
            if position in evidence.prefilled:
                self.prefill.add(evidence.prefilled[position], expected)
            if position in evidence.chosen:
                self._choice(self._prompt[id(evidence)], position, evidence.chosen[position], expected)

    def _choice(self, prompt: int, position: int, chosen: int, expected: NDArray[np.float32]) -> None:
        best = int(expected.argmax())
        if best != chosen:
            margin = float(expected[best] - expected[chosen])
            lead = margin / max(float(np.abs(expected).max()), 1e-30)
            self.disagreements.append(
                Disagreement(prompt=prompt, position=position, engine=chosen, reference=best, margin=margin, lead=lead)
            )
