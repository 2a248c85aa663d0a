"""What the bench of the ensemble counts as exact. Run: pytest tests/bench/test_ensemble.py"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from bench.gpu import ensemble
from bench.gpu.clients import Answered, Asked

RIGHT = Answered(sent=1.0, first=1.5, last=3.0, pieces=4, prompt_tokens=20, tokens=8, text=b"")


class Server:
    """Answers with what was asked for; some kinds of request otherwise."""

    def __init__(self, wrong: Any = lambda asked: False) -> None:
        self.wrong, self.count = wrong, 0

    def ask(self, asked: Sequence[Asked]) -> list[Answered]:
        answers = []
        for one in asked:
            self.count += 1
            text = f"{one.text} {one.temperature} {one.seed}" + (str(self.count) if self.wrong(one) else "")
            answers.append(dataclasses.replace(RIGHT, text=text.encode(), tokens=one.tokens))
        return answers


def found(server: Server) -> dict[str, Any]:
    return ensemble.exactness(server, 6, 20, 8)  # type: ignore[arg-type]


def test_all_texts_of_a_server_that_is_exact_are_equal() -> None:
    for kind in found(Server()).values():
        assert kind["alone"] == kind["alone, stream = unstreamed"] == kind["alone, again the same"] == 4
        assert kind["together"] == kind["together, stream = unstreamed"] == kind["together, again the same"] == 6
        assert kind["together, texts that differ from each other"] == 6


def test_answers_that_come_otherwise_unstreamed_are_counted_out() -> None:
    for kind in found(Server(lambda asked: not asked.stream)).values():
        assert kind["alone, stream = unstreamed"] == kind["together, stream = unstreamed"] == 0
        assert kind["alone, again the same"] == 4 and kind["together, again the same"] == 6


def test_seeds_that_do_not_give_their_text_again_are_counted_out() -> None:
    kinds = found(Server(lambda asked: asked.temperature > 0))
    assert kinds["drawn"]["together, again the same"] == kinds["drawn"]["alone, again the same"] == 0
    assert kinds["greedy"]["together, again the same"] == 6


def test_answers_of_another_length_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "processor_seconds", lambda server: {})

    class Short(Server):
        def ask(self, asked: Sequence[Asked]) -> list[Answered]:
            return [dataclasses.replace(one, tokens=7) for one in super().ask(asked)]

    with pytest.raises(RuntimeError, match=r"\[7\] tokens, 8 were asked for"):
        ensemble._round(Short(), None, [Asked("a", 8)])  # type: ignore[arg-type]
    assert ensemble._round(Server(), None, [Asked("a", 8)] * 2)["tokens_per_s"] == 8.0  # type: ignore[arg-type]
