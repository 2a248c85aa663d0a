"""Run: pytest tests/clients/test_commands.py - the terminal program's `models` and `bench`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_client import Client, Completion, Overloaded, Usage
from triune_client.__main__ import main
from triune_client._bench import percentile, run, summarize, table
from triune_client.testing import MockTransport, mock_server


def answer(first_s: float, duration_s: float, tokens: int) -> Completion:
    usage = Usage(input_tokens=5, output_tokens=tokens)
    return Completion(text="x", finish_reason="stop", usage=usage, time_to_first_token_s=first_s, duration_s=duration_s)


def test_models_lists_names_and_states(capsys: pytest.CaptureFixture[str]) -> None:
    with mock_server("ok") as server:
        assert main(["models", "--url", server.url]) == 0
        assert capsys.readouterr().out == "triune  READY\n"
        assert main(["models", "--url", server.url, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert (model["name"], model["state"]) == ("triune", "READY")


def test_models_speaks_grpc(grpc_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--grpc", "--url", grpc_server.url]) == 0
    assert capsys.readouterr().out == "triune  READY\n"


def test_bench_asks_as_often_and_with_the_options_that_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--answers", "5", "--streams", "3", "--max-tokens", "2", "--ignore-eos", "--temperature", "0"]
    with mock_server(["one ", "two"]) as server:
        assert main(["bench", "--url", server.url, *options, "--json", "Say it"]) == 0
        asked = server.requests
    figures = json.loads(capsys.readouterr().out)
    assert (figures["answers"], figures["streams"], figures["output_tokens"], figures["input_tokens"]) == (5, 3, 10, 10)
    assert len(asked) == 6  # one is not counted
    wanted = ("Say it", 2, True, 0.0)
    assert {(a["text_input"], a["max_tokens"], a["ignore_eos"], a["temperature"]) for a in asked} == {wanted}


def test_bench_shows_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with mock_server(["one ", "two"]) as server:
        assert main(["bench", "--url", server.url, "--answers", "2", "hi"]) == 0
    names = [line.partition("  ")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert names == ["answers", "tokens", "output", "one stream", "first token", "whole answer"]


def test_an_answer_that_fails_ends_a_bench_with_its_error(capsys: pytest.CaptureFixture[str], no_pause: None) -> None:
    replies = iter(["ok", "ok"])
    transport = MockTransport(lambda request: next(replies, Overloaded("queue is full", status=503)))
    with pytest.raises(Overloaded, match="queue is full"):
        run(Client(transport=transport, max_retries=0), "hi", answers=4, streams=2)


@pytest.mark.parametrize("wrong", [["--answers", "0"], ["--streams", "0"]])
def test_counts_below_one_are_wrong_arguments(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, mock_server("ok") as server:
        main(["bench", "--url", server.url, "hi", *wrong])
    assert caught.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_figures_add_up() -> None:
    figures = summarize([answer(0.1, 1.1, 11), answer(0.3, 1.3, 21)], wall_s=2.0, streams=2)
    assert (figures.input_tokens, figures.output_tokens, figures.output_tokens_per_s) == (10, 32, 16.0)
    assert (figures.first_token_p50_s, figures.first_token_p95_s) == (0.1, 0.3)
    assert figures.tokens_per_s_of_one_p50 == pytest.approx(10.0)
    assert "16.0 tokens/s" in table(figures)


def test_answers_of_one_token_have_no_rate() -> None:
    figures = summarize([answer(0.1, 0.1, 1)], wall_s=0.1, streams=1)
    assert figures.tokens_per_s_of_one_p50 is None
    assert "one stream    -" in table(figures)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    # A share computed in floating point may miss a whole number by a rounding error.
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6
