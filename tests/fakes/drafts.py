"""Speculators that always draft, an MTP layer without a model, and the tokens of a request served alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.runtime import STOPS, TOKENS, VOCAB, make_manifest, run_out
from triune_runtime.constraints import Constraint
from triune_runtime.drafting import Drafter
from triune_runtime.drafting.costs import Costs
from triune_runtime.drafting.speculator import Speculator
from triune_runtime.generation.loop import StepLoop
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request
from triune_runtime.runner import Work
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner


@dataclass(slots=True)
class Cheap(Costs):
    """Drafts always pay, whatever the clock says."""

    @property
    def known(self) -> bool:
        return True

    def plain_s(self, sequences: int) -> float:
        return float(sequences)

    def check_s(self, sequences: int) -> float:
        return 0.01

    def guess_s(self) -> float:
        return 0.001


class Eager(Speculator):
    """Takes every draft there is."""

    def __init__(self, tokens: int, longest: int, drafters: Sequence[Drafter]) -> None:
        super().__init__(tokens, longest, drafters, lambda: 0.0)
        self.costs = Cheap()


class Oracle(Speculator):
    """Knows the answers; its drafts are right up to a random one."""

    def __init__(self, answers: Mapping[int, Sequence[int]], rng: random.Random, most: int = 4) -> None:
        super().__init__(1, 0, (), lambda: 0.0)
        self.answers, self.rng, self.most = answers, rng, most

    def propose(self, decoding: Sequence[Any], prefilling: Sequence[Any]) -> dict[int, tuple[int, ...]]:
        drafts = {}
        for sequence in decoding:
            count, right = self.rng.randint(0, self.most), self.rng.randint(0, self.most)
            known = self.answers[sequence.key][len(sequence.tokens) :][: min(count, right)]
            drafts[sequence.key] = (*known, *(self.rng.randrange(VOCAB) for _ in range(count - len(known))))
        return drafts


def engine_with(
    speculator: Speculator | None, runner: FakeRunner | None = None, *, manifest: EngineManifest | None = None, **limits: int
) -> StepLoop:
    """An engine with these drafts; None: with those that it has by itself."""
    runner = runner or FakeRunner(VOCAB, STOPS)
    return step_loop(manifest or make_manifest(**limits), runner, TOKENS, drafts=speculator, clock=lambda: 0.0)


def tokens_alone(request: Request, make: Callable[[], StepLoop], constraint: Constraint | None = None) -> list[int]:
    """Prompt and answer of a request that has an engine without drafts for itself."""
    engine = make()
    engine.submit(request, constraint)
    (sequence,) = engine.scheduler.waiting
    run_out(engine)
    return sequence.tokens


class RememberingRunner(FakeRunner):
    """Hands out of every run the tokens that it read, as hidden states of one number."""

    def __init__(self) -> None:
        super().__init__(VOCAB, STOPS)
        self.mtp = self.layer = RememberingMtp()

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        for item in work:
            self.layer.latest[item.slot] = item.start, np.array(item.tokens, np.float32)[:, None]
        return super().run(work)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        super().copy_slot(source, target, length)
        self.layer.read[target] = self.layer.read.get(source, [])[:length]


class RememberingMtp:
    """Keeps what it has read of each slot: (token of the hidden state, token after it)."""

    def __init__(self) -> None:
        self.latest: dict[int, tuple[int, NDArray[np.float32]]] = {}
        self.read: dict[int, list[tuple[int, int]]] = {}

    def hidden(self, slot: int) -> tuple[int, NDArray[np.float32]]:
        return self.latest[slot]

    def predict(
        self, slot: int, start: int, hidden: NDArray[np.float32], tokens: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        held = self.read.setdefault(slot, [])
        assert start <= len(held), f"slot {slot} holds {len(held)} positions, not {start}"
        del held[start:]
        held += list(zip(hidden[:, 0].astype(int).tolist(), tokens, strict=True))
        logits = np.zeros(VOCAB, np.float32)
        logits[(tokens[-1] + 1) % VOCAB] = 1
        return logits, np.array([[tokens[-1]]], np.float32)
