"""Requests as a crowd sends them: long and short, many with a beginning in common, drawn in all ways, some given up."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request, SamplingParams

_PREFIXES = 12
MOST_COPIES = 3  # of a prompt, sent together
_OPTIONS = (
    SamplingParams(),
    SamplingParams(temperature=0.6, top_p=0.95),
    SamplingParams(temperature=1.0, top_k=40),
    SamplingParams(temperature=0.8, min_p=0.05, presence_penalty=0.5, frequency_penalty=0.2),
    SamplingParams(temperature=0.7, repetition_penalty=1.1),
    SamplingParams(logprobs=3),
)


@dataclass(frozen=True)
class Coming:
    """Requests for one prompt."""

    requests: tuple[Request, ...]
    leaves_after_s: float | None = None  # then its client is gone
    refused: bool = False  # it cannot be served, and that is to be said


class Mixture:
    """Draws requests; the same seed draws the same."""

    def __init__(self, manifest: EngineManifest, longest: int, seed: int = 7, patience_s: float = 2.0) -> None:
        """
        Args:
            longest: tokens of prompt and answer together.
            patience_s: who leaves, leaves within this time.
        """
        self._vocab_size, self._longest, self._patience_s = manifest.vocab_size, longest, patience_s
        self._most = manifest.limits.max_length
        self._chance = random.Random(seed)
        self._keys = 0
        half = max(longest // 2, 2)
        self._prefixes = [self._tokens(self._chance.randint(half // 8 + 1, half)) for _ in range(_PREFIXES)]

    def next(self) -> Coming:
        """What comes next."""
        chance = self._chance
        if chance.random() < 0.01:
            return Coming((self._request(self._tokens(self._most + 1), 1, SamplingParams()),), refused=True)
        kind = chance.random()
        if kind < 0.5:
            prompt = chance.choice(self._prefixes) + self._tokens(chance.randint(1, max(self._longest // 16, 1)))
        elif kind < 0.58:
            prompt = self._tokens(int(self._longest * chance.uniform(0.5, 0.9)))
        else:
            prompt = self._tokens(chance.randint(1, max(self._longest // 8, 1)))
        left = self._longest - len(prompt)
        answer = max(1, min(left, int(chance.expovariate(1 / max(self._longest / 16, 1.0)))))
        request = self._request(prompt, answer, chance.choice(_OPTIONS))
        copies = MOST_COPIES if chance.random() < 0.05 else 1
        requests = (request, *(self._again(request) for _ in range(copies - 1)))
        return Coming(requests, chance.uniform(0.0, self._patience_s) if chance.random() < 0.08 else None)

    def full(self, blocks: int, block_tokens: int, slots: int) -> Sequence[Request]:
        """Requests that need all of the memory at once, and no more: nothing can be lost then."""
        found, left = list[Request](), blocks
        size = max(self._longest // block_tokens, 1)
        while left and len(found) < slots:
            taken = min(size, left)
            # All blocks are taken with the prompt, and the answer is long enough for the others' prompts to be computed.
            answer = block_tokens - 1
            request = self._request(self._tokens(taken * block_tokens - answer), answer, SamplingParams())
            found.append(dataclasses.replace(request, params=dataclasses.replace(request.params, ignore_eos=True)))
            left -= taken
        return found

    def _request(self, prompt: tuple[int, ...], answer: int, params: SamplingParams) -> Request:
        self._keys += 1
        chosen = dataclasses.replace(params, max_tokens=answer, seed=self._keys, ignore_eos=self._chance.random() < 0.5)
        salt = self._chance.choice(("", "", "", "one tenant", "another"))
        return Request(key=self._keys, prompt=prompt, params=chosen, stream=self._chance.random() < 0.8, cache_salt=salt)

    def _again(self, request: Request) -> Request:
        self._keys += 1
        return dataclasses.replace(request, key=self._keys, params=dataclasses.replace(request.params, seed=self._keys))

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self._chance.choices(range(2, self._vocab_size), k=count))
