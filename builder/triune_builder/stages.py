"""The stages of one build: each is shown and noted as it runs, and results that were kept are taken instead of made anew."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .fingerprint import FileHashes, source_files
from .progress import Display, StageClock
from .stage_cache import StageCache
from .verify.report import StageRun

_FACTS = "facts.json"  # in the folder of a stage's result


class Stages:
    """Runs stages; `runs` is what each took."""

    def __init__(self, cache: StageCache, files: FileHashes, display: Display, *, force: bool = False) -> None:
        """
        Args:
            force: take no result of an earlier build.
        """
        self.runs: list[StageRun] = []
        self._cache, self._files, self._display, self._force = cache, files, display, force

    def stage(self, name: str) -> AbstractContextManager[StageClock]:
        """A stage that runs in the `with`."""
        return self._display.stage(name, done=self._done)

    def kept(self, stage: str, key: str, make: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
        """The folder and the facts of a stage's result, from an earlier build or made now."""

        def fill(folder: Path) -> None:
            before = len(self.runs)
            facts = make(folder)
            runs = [dataclasses.asdict(run) for run in self.runs[before:]]
            hashes = {p.relative_to(folder).as_posix(): self._files.sha256(p) for p in source_files(folder)}
            (folder / _FACTS).write_text(json.dumps({"facts": facts, "stages": runs, "files": hashes}, indent=1), "utf-8")

        folder = None if self._force else self._cache.find(stage, key)
        if folder and (kept := self._whole(folder)):
            for run in kept["stages"]:
                self.runs.append(StageRun(**(run | {"reused": True})))
                self._display.say(f"{run['name']:<10} reused")
            return folder, kept["facts"]
        folder = self._cache.make(stage, key, fill, resume=not self._force)
        return folder, json.loads((folder / _FACTS).read_text("utf-8"))["facts"]

    def _done(self, clock: StageClock) -> None:
        self.runs.append(StageRun(name=clock.name, seconds=clock.seconds, peak_bytes=clock.peak_bytes))

    def _whole(self, folder: Path) -> dict[str, Any] | None:
        """What is noted of a kept result, if its files are still those that were made: links to them lie elsewhere."""
        try:
            kept: dict[str, Any] = json.loads((folder / _FACTS).read_text("utf-8"))
            same = all(self._files.sha256(folder / name) == known for name, known in kept["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return kept if same else None
