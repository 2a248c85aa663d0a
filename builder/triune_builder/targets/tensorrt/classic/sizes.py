"""The sizes of the runs that classic engines are built for, one engine each: no size of theirs varies."""

from __future__ import annotations

from collections.abc import Sequence

from triune_runtime.manifest import Limits
from triune_runtime.targets.device.plan import Profile

from ..graph_files import MOST_LOGITS
from .run import DECODE, PREFILL

_PREFILLS = (16, 64)  # tokens of a run of a prompt; more were never seen to build
_DECODES = (1, 8)  # sequences of a run, beside the most that there may be


def engine_sizes(limits: Limits) -> tuple[Profile, ...]:
    """What engines of these limits have, prompts first."""
    most = max(2, limits.max_sequences)
    chunk = limits.prefill_chunk
    prefills = [size for size in _PREFILLS if size <= chunk] or [min(_PREFILLS)]
    return classic_profiles(prefills, [*(size for size in _DECODES if size < most), most])


def classic_profiles(prefills: Sequence[int], decodes: Sequence[int]) -> tuple[Profile, ...]:
    """A profile for each engine.

    Args:
        prefills: tokens of a run of one sequence.
        decodes: sequences of a run of one token each.
    """
    one = (1, 1, 1)
    return (
        *(Profile(name=PREFILL, batch=one, tokens=(n,) * 3, logits=(min(n, MOST_LOGITS),) * 3) for n in prefills),
        *(Profile(name=DECODE, batch=(n,) * 3, tokens=one, logits=one) for n in decodes),
    )


def graph_sizes(profile: Profile) -> dict[str, int]:
    """The sizes that vary in the graph of a profile's name, by their names there."""
    return {"batch": profile.batch[0], "n": profile.tokens[0], "m": profile.logits[0]}
