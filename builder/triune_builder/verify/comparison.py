"""Compares what an engine said with the reference on the checkpoint's own float weights. Runs no engine, judges nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import reference
from .drafts import DraftFigures
from .measure import Evidence, difference, log_softmax
from .verification import Disagreement, LogitsError, Note, TextLoss, Verification


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
class Told:
    """All that an engine said, however it was run; None: not measured, see `Verification`."""

    evidence: Sequence[Evidence]  # whose logits are compared
    answers: Sequence[Evidence]  # of these, whose greedy tokens are compared
    read: Sequence[Evidence]  # of these, over which perplexity is measured
    batch_error: float | None = None
    batch_median: float | None = None
    repeat_error: float | None = None
    chunk_error: float | None = None
    drafts: DraftFigures | None = None
    best_errors: int | None = None
    decoded: bool = True  # whether tokens were run one by one
    left_out: str = ""  # what was not run, in words
    seconds: float  # that all this took


def compare(told: Told, checkpoint: Source, note: Note) -> Verification:
    """Let the reference read once all that the engine read.

    Raises:
        BuildError: the reference does not know the architecture.
    """
    began = time.monotonic()
    note("the float reference")
    seen = _scored(told.evidence, told.answers, checkpoint)
    return Verification(
        decode=seen.decode.summary() if told.decoded else None,
        prefill=seen.prefill.summary(),
        prompts=len(told.answers),
        greedy_tokens=sum(len(e.chosen) for e in told.answers),
        disagreements=tuple(seen.disagreements),
        texts=text_losses(told.read, seen.losses),
        batch_error=told.batch_error,
        batch_median=told.batch_median,
        repeat_error=told.repeat_error,
        chunk_error=told.chunk_error,
        engine_seconds=told.seconds,
        reference_seconds=time.monotonic() - began,
        left_out=told.left_out,
        drafts=told.drafts,
        best_errors=told.best_errors,
    )


def compare_texts(read: Sequence[Evidence], checkpoint: Source) -> tuple[TextLoss, ...]:
    """Of windows of texts alone, what their tokens cost.

    Raises:
        BuildError: as `compare`.
    """
    return text_losses(read, _scored(read, (), checkpoint).losses)


def text_losses(read: Sequence[Evidence], losses: Mapping[int, list[float]]) -> tuple[TextLoss, ...]:
    """The losses of each text, of all windows that it was cut into."""
    found = []
    for name in sorted({e.name for e in read}):
        windows = [e for e in read if e.name == name]
        engine = np.array([loss for e in windows for loss in e.losses])
        reference = np.array([loss for e in windows for loss in losses[id(e)]])
        error = float(np.std(engine - reference, ddof=1)) / len(engine) ** 0.5 if len(engine) > 1 else 0.0
        found.append(
            TextLoss(
                name=name,
                tokens=len(engine),
                reference=float(reference.mean()),
                engine=float(engine.mean()),
                standard_error=error,
            )
        )
    return tuple(found)


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


class _Comparison:
    """Takes the reference's logits block by block and keeps only figures."""

    def __init__(self, evidence: Sequence[Evidence], answers: Sequence[Evidence]) -> None:
        self._evidence = evidence
        self._prompt = {id(a): number for number, a in enumerate(answers)}
        self.decode, self.prefill = _Errors(), _Errors()
        self.losses: dict[int, list[float]] = {id(e): [] for e in evidence}  # by evidence, of the tokens that follow
        self.disagreements: list[Disagreement] = []

    def add(self, scored: reference.Scored) -> None:
        evidence = self._evidence[scored.text]
        for position, expected in zip(scored.positions.tolist(), scored.logits, strict=True):
            if position < len(evidence.followers):
                self.losses[id(evidence)].append(-float(log_softmax(expected)[evidence.followers[position]]))
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


def _scored(evidence: Sequence[Evidence], answers: Sequence[Evidence], checkpoint: Source) -> _Comparison:
    """What was found once the reference has read all of it."""
    seen = _Comparison(evidence, answers)
    for scored in reference.score(
        checkpoint.config, checkpoint.weights, [e.tokens for e in evidence], [e.positions for e in evidence]
    ):
        seen.add(scored)
    return seen
