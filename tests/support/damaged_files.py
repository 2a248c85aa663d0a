"""Damaged model files, and what the build says of them."""

from __future__ import annotations

import random
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.errors import BuildError

GB = 1 << 30


@contextmanager
def bounded_memory() -> Iterator[None]:
    """A header that makes the reader take gigabytes fails its test instead of the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 3 * GB, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def limited_to(memory: int) -> Iterator[None]:
    """No more than so many bytes above what this process has."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    (held,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * int(held) + memory, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(str(path), cache=path.parent)


def refused(path: Path) -> str:
    """What the build says of `path`: one line that can be printed."""
    with bounded_memory(), pytest.raises(BuildError) as caught:
        opened(path)
    assert str(caught.value).isprintable() and caught.value.hint
    return str(caught.value)


def survives(path: Path) -> bool:
    """Whether it is read; refused otherwise, and nothing else."""
    said = None
    try:
        opened(path)
    except BuildError as error:
        said = str(error)
    assert said is None or said.isprintable()
    return said is None


def damaged(whole: bytes, dice: random.Random, most: int) -> bytes:
    """`whole` with a few bytes, numbers or stretches of its first `most` bytes changed."""
    data = bytearray(whole)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(min(most, len(data)))
        match dice.randrange(5):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                big = dice.choice([0, 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1, dice.randrange(1 << 20)])
                data[at : at + 8] = struct.pack("<Q", big)
            case 2:
                data[at : at + 4] = struct.pack("<I", dice.choice([0, 1, 8, 9, 12, 99, 2**32 - 1, dice.randrange(1 << 16)]))
            case 3:
                del data[at : at + dice.randint(1, 40)]
            case _:
                other = dice.randrange(min(most, len(data)))
                data[at:at] = data[other : other + dice.randint(1, 40)]
    return bytes(data)
