"""What is counted of many streams; the ensemble beside vLLM alone. Run: pytest tests/bench/test_distributed.py"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from bench.gpu import bare, distributed, streams
from bench.gpu.bare import Told
from bench.gpu.processors import processor_seconds

from fakes.repository import train_tokenizer
from support.split_trial import compared


def told(sent: float, *came: tuple[float, int]) -> Told:
    return Told(sent, list(came), [])


def test_tokens_a_second_are_those_of_all_from_the_first_request_to_the_last_token() -> None:
    heard = [told(10.0, (10.5, 1), (11.0, 3)), told(10.2, (10.6, 1), (12.0, 3))]
    assert streams.speed(heard) == 8 / 2.0


def test_pieces_with_several_tokens_count_as_one_wait_and_as_many_tokens() -> None:
    found = streams.figures([[told(0.0, (0.1, 1), (0.2, 1), (0.5, 6))]])
    assert found["tokens_per_s"] == [16.0] and found["pieces"] == 3
    assert set(found["first_token_ms"].values()) == {100.0}
    assert found["between_pieces_ms"]["p50"] == 200.0 and found["between_pieces_ms"]["p90"] == 280.0
    assert found["a_token_ms"]["p50"] == pytest.approx(400 / 7, abs=0.01)


def test_both_sides_are_asked_the_same_and_each_time_something_else() -> None:
    once, again = (list(streams.rounds([1, 4], 2, 20, 50)) for _ in range(2))
    assert once == again and [(count, answer, counts) for count, _, answer, counts in once] == [
        (1, 16, False), (1, 50, True), (1, 50, True), (4, 16, False), (4, 50, True), (4, 50, True),
    ]  # fmt: skip
    asked = [text for _, texts, _, _ in once for text in texts]
    assert len(set(asked)) == len(asked) == 15 and {len(text) for text in asked} == {20}


def test_the_ensemble_stands_beside_vllm_by_medians() -> None:
    def one(speeds: list[float], ms: float) -> dict[str, Any]:
        figures = {"tokens_per_s": speeds, "first_token_ms": {"p50": ms}, "a_token_ms": {"p50": ms / 10}}
        return {"decode": {"1": figures, "8": figures}}

    found = distributed.beside(
        one([90.0, 95.0, 10.0], 30.0), {"decode": {"1": one([100.0, 100.0, 400.0], 20.0)["decode"]["1"]}}
    )
    assert found == {"1": {"tokens_per_s": 0.9, "first_token_p50": 1.5, "a_token_p50": 1.5}}


class Engine:
    """Answers with as many tokens as were asked for, or one too few."""

    def __init__(self, short: int = 0) -> None:
        self.short, self.asked = short, list[tuple[int, int]]()

    async def ask(self, prompt: list[int], answer: int) -> Told:
        self.asked.append((len(prompt), answer))
        await asyncio.sleep(0)
        clock = float(len(self.asked))
        return Told(clock, [(clock + 1, 1), (clock + 2, answer - 1)], [7] * (answer - self.short))


def options(**changed: Any) -> argparse.Namespace:
    return argparse.Namespace(**({"sequences": [1, 3], "repetitions": 2, "prompt": 9, "answer": 20} | changed))


def test_short_answers_before_are_not_measured() -> None:
    engine = Engine()
    found = asyncio.run(bare.measure(engine, train_tokenizer(), options()))  # type: ignore[arg-type]
    assert list(found) == ["1", "3"] and [len(one["tokens_per_s"]) for one in found.values()] == [2, 2]
    assert [answer for _, answer in engine.asked] == [16, 20, 20, *[16] * 3, *[20] * 6]
    assert found["3"]["prompt_tokens"] == max(length for length, _ in engine.asked[3:])
    assert found["3"]["pieces"] == 12


def test_answers_of_another_length_are_no_measurement() -> None:
    with pytest.raises(RuntimeError, match=r"\[15\] tokens, 16 were asked for"):
        asyncio.run(bare.measure(Engine(1), train_tokenizer(), options()))  # type: ignore[arg-type]


def test_a_process_that_no_token_passes_costs_nothing() -> None:
    assert processor_seconds(psutil.Process()) == {}


def test_what_is_measured_is_written_after_each_and_what_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"decode": {"1": {"tokens_per_s": [4.0], "first_token_ms": {"p50": 2.0}, "a_token_ms": {"p50": 1.0}}}}
    written = []

    def measured(engine: Path, options: argparse.Namespace) -> dict[str, Any]:
        written.append(options.output.read_text() if options.output.exists() else "")
        if engine.name == "2":
            raise RuntimeError("too few devices")
        return one

    monkeypatch.setattr(distributed, "run", lambda *args: "")
    monkeypatch.setattr(distributed, "build", lambda checkpoint, devices, options: tmp_path / str(devices))
    monkeypatch.setattr(distributed, "bare", measured)
    monkeypatch.setattr(distributed, "ensemble", measured)
    predicted = tmp_path / "predicted.json"
    predicted.write_text('{"tokens_per_s": 5}')
    command = ["distributed", f"--output={tmp_path / 'out.json'}", f"--predictions={predicted}", f"--folder={tmp_path}"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        distributed.main()
    found = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1 and found == json.loads((tmp_path / "out.json").read_text())
    assert found["measured"]["1"]["ensemble / bare"]["1"]["tokens_per_s"] == 1.0 and found["predicted"] == {"tokens_per_s": 5}
    assert set(found["failed"]) == {"bare, 2 devices", "ensemble, 2 devices"}
    assert json.loads(written[1])["measured"] == {"1": {"bare": one}}


def test_an_answer_that_leaves_the_reference_is_told_with_how_near_a_tie_that_was() -> None:
    behind = [{"5": 0.0, "6": 0.25}, {"6": 0.0, "5": 0.03125}]
    reference = {"answers": [{"tokens": [5, 6], "behind": behind}] * 4}
    found = compared(reference, [[5, 6, 9], [5, 5], [9, 6], [5]])
    assert (found["asked"], found["equal"]) == (4, 1)
    assert [(one["token"], one["nats"]) for one in found["differ"]] == [(1, 0.0312), (0, None), (1, None)]
