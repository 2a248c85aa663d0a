"""What an engine's process and `triune profile` tell each other: how it is asked, and the names of what is recorded."""

from __future__ import annotations

from typing import NamedTuple

ASK = ".ask"  # behind what the files' paths begin with: the question
LONGEST_S = 300.0  # that is recorded
STEP, REQUEST, COUNTS = "step", "request", "counts"
# Parts of a step:
PLAN, LAUNCH, WAIT, SAMPLE, COMMIT, TEXT, DRAFT = "plan", "launch", "wait", "sample", "commit", "text", "draft"


class Timed(NamedTuple):
    """Something that took time."""

    name: str
    began: int  # nanoseconds of the monotonic clock, which all processes of a machine share
    took: int  # nanoseconds
    about: dict[str, int]
