"""Checks of the disk of the model: room, and how fast it reads."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .aio import Rate, measure_reads
from .context import Context
from .engine import weight_bytes
from .finding import Finding, bad, good, poor, unknown

ASKED_READS = 500_000  # of 4 KiB a second, of NVMe
_QUICK_S = 10.0  # in which an engine is loaded that no faster disk is needed for
_SLOW_S = 60.0
_LEAST_FREE = 1_000_000_000  # bytes, for logs, a build's pieces, and answers that are kept
_SMALLEST = 16 << 20  # of a file that tells anything, and that is worth telling of
_PAGE, _PIECE = 4096, 4 << 20
_DEPTH, _PIECES = 256, 8


def room(context: Context) -> Iterator[Finding]:
    """What is free where the model and the server's state lie."""
    seen = set[int]()
    for subject, folder in (("disk of the model", context.repository), ("disk of the run folder", context.run_folder)):
        place = _existing(folder) if folder is not None else None
        if place is None or (device := place.stat().st_dev) in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(place)
        yield judged_room(subject, usage.free, usage.total)


def judged_room(subject: str, free: int, total: int) -> Finding:
    """Bytes that are free."""
    found = f"{free / 1e9:,.1f} of {total / 1e9:,.0f} GB free"
    remedy = "free some, or name a folder on another disk: BUILD_DIR=FOLDER, RUN_FOLDER=FOLDER"
    if free < _LEAST_FREE // 20:
        return bad(subject, found, remedy)
    return poor(subject, found, remedy) if free < _LEAST_FREE else good(subject, found)


def speed(context: Context) -> Iterator[Finding]:
    """How fast the engine's own largest file is read, past the page cache. Writes nothing."""
    folder = context.engine_folder
    files = [] if folder is None or not folder.is_dir() else [one for one in folder.iterdir() if one.is_file()]
    largest = max(files, key=lambda one: one.stat().st_size, default=None)
    if largest is None:
        yield unknown("speed of the disk", "not measured: there is no engine to read", f"make engine {context.said}".strip())
        return
    if (size := largest.stat().st_size) < _SMALLEST:
        yield good("speed of the disk", f"of no matter: the engine's largest file has {size / 1e6:.0f} MB")
        return
    try:
        ordered = measure_reads(largest, _PIECE, context.seconds / 2, depth=_PIECES, ordered=True)
        random = measure_reads(largest, _PAGE, context.seconds / 2, depth=_DEPTH, ordered=False)
    except OSError as error:
        yield unknown(
            "speed of the disk",
            _cached(largest, context.seconds / 2, error),
            "measure it where the model lies on a disk of the machine",
        )
        return
    yield from judged_speed(ordered, random, weight_bytes(context))


def judged_speed(ordered: Rate, random: Rate, engine: int) -> Iterator[Finding]:
    """What two rates mean for an engine of so many bytes."""
    load_s = engine / ordered.bytes_per_second
    found = f"{ordered.bytes_per_second / 1e9:.2f} GB/s: an engine of {engine / 1e9:.1f} GB is read in {load_s:,.1f} s"
    remedy = "keep models on a local NVMe disk (BUILD_DIR=FOLDER); a start waits for this"
    yield poor("reads in order", found, remedy) if load_s > _SLOW_S else good("reads in order", found)
    found = f"{random.per_second:,.0f} a second of 4 KiB; {ASKED_READS:,} are asked of NVMe"
    if random.per_second >= ASKED_READS:
        yield good("random reads", found)
    elif load_s <= _QUICK_S:
        yield good("random reads", f"{found}, for engines larger than this one")
    else:
        yield poor("random reads", found, remedy)


def _cached(path: Path, seconds: float, error: OSError) -> str:
    """What can be said where the page cache is in the way."""
    began, size = time.perf_counter(), 0
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while (piece := file.read(_PIECE)) and time.perf_counter() - began < seconds:
            size += len(piece)
    rate = size / (time.perf_counter() - began) / 1e9
    return f"{rate:.1f} GB/s through the page cache, which hides the disk ({error.strerror})"


def _existing(folder: Path) -> Path | None:
    """It, or what it would be made in."""
    return next((one for one in (folder.absolute(), *folder.absolute().parents) if one.exists()), None)


CHECKS = (room, speed)
