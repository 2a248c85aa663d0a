"""Ten thousand good answers, none of them blamed. Run: pytest tests/load/test_clean_run.py"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from triune_load.core.lengths import Lengths
from triune_load.core.workload import Part
from triune_load.run import run
from triune_load.selftest.server import FakeServer
from triune_load.settings import Load, Settings, Target


def test_a_clean_run_of_ten_thousand_requests_has_no_violation_and_loses_none() -> None:
    part = Part(
        input_tokens=Lengths("uniform", (1.0, 20.0)), output_tokens=Lengths("uniform", (1.0, 8.0)), repeats=0.3, repeated=8
    )
    leaving = replace(part, name="leaving", weight=0.1, cancel=1.0, cancel_after=Lengths("uniform", (0.0, 4.0)))
    talking = replace(part, name="talking", weight=0.1, turns=3, prefix_tokens=10)

    async def scenario() -> tuple[dict[str, Any], int]:
        fake = FakeServer(0.0, 0.0)
        server, port = await fake.listen()
        url = f"http://127.0.0.1:{port}"
        settings = Settings(
            target=Target(url=url, protocol="chat", metrics_url=f"{url}/metrics"), loads=(Load(kind="streams", value=32),),
            duration_s=None, sessions=10_000, warmup_s=0.0, parts=(part, leaving, talking), display=False,
        )  # fmt: skip
        found = await run(settings)
        server.close()
        return found, fake.asked

    result, asked = asyncio.run(scenario())
    (step,) = result["steps"]
    assert result["verdict"] == {"passed": True, "reasons": []}
    assert step["asked"] >= 10_000
    assert (
        step["asked"] + 1 + 3 * 8 - 8 == asked
    )  # with the look before the load, and the repeats of the two parts that have any
    assert result["repeats_compared"] > 2000
    figures = step["figures"]
    assert figures["whole"] + figures["left"] == figures["requests"] == step["asked"]
