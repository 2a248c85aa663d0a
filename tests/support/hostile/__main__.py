"""Tries hostile checkpoints. Run: make fuzz-checkpoints; one case: make fuzz-checkpoints CASE=17"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .cases import SEED, case_of
from .guarding import outcome
from .running import Journal, tried
from .trying import FAILED


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m support.hostile", description="Tries hostile checkpoints.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--case", type=int, help="try this one, build it if its plan is sound, and print what becomes of it")
    parser.add_argument("--keep", type=Path, help="with --case: a folder to be made, for the checkpoint")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--build-every", type=int, default=50, help="build, load and ask every so many of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--journal", type=Path, help="where outcomes are noted; a run goes on behind what is in it")
    given = parser.parse_args()
    if given.case is not None:
        return _one(given.seed, given.case, given.keep)
    journal = Journal(given.journal or Path("build") / "fuzz-checkpoints" / f"seed-{given.seed}.jsonl")
    left = journal.left(given.cases)
    print(f"seed {given.seed}: {len(left):,} of {given.cases:,} cases are left", flush=True)
    outcomes = tried(given.seed, left, build_every=given.build_every, processes=given.processes)
    journal.write(outcomes, lambda words: print(words, flush=True))
    tally = journal.tally
    kinds = ", ".join(f"{kind}: {count:,}" for kind, count in sorted(tally.kinds.items()))
    print(f"seed {given.seed}: {tally.kinds.total():,} cases ({kinds}); at most {tally.seconds:.1f} s of processor time and "
          f"{tally.megabytes:.0f} MB each")  # fmt: skip
    for number, said in sorted(tally.failures.items()):
        print(f"case {number}: {said.splitlines()[0]}\n    again: make fuzz-checkpoints FUZZ_SEED={given.seed} CASE={number}")
    return 1 if tally.failures else 0


def _one(seed: int, number: int, keep: Path | None) -> int:
    case = case_of(seed, number)
    print(case, flush=True)
    if keep is not None:
        keep.mkdir()
        print(case.write(keep))
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        found = outcome(Path(folder), case, with_build=True)
    print(f"{found.kind}, {found.seconds:.2f} s of processor time, {found.megabytes:.0f} MB\n{found.said}")
    return 1 if found.kind == FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
