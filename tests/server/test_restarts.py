"""What dies is started again later and later, and for ever. Run: pytest tests/server/test_restarts.py"""

from __future__ import annotations

from triune_server.restarts import Restarts


def test_the_first_start_again_is_at_once_and_the_others_wait_up_to_a_minute() -> None:
    restarts = Restarts()
    assert [restarts.died("it ended", 5.0) for _ in range(10)] == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    for _ in range(5_000):
        assert restarts.died("it ended again", 0.0) == 60
    assert restarts.total == 5_010
    assert restarts.reason == "it ended again"


def test_what_has_lived_for_a_minute_is_started_again_at_once() -> None:
    restarts = Restarts()
    assert [restarts.died("it ended", lived_s) for lived_s in (1, 1, 1, 60, 1)] == [0, 1, 2, 0, 1]
