"""Is there anything to do? Knows what a build depends on and what was published; imports nothing heavy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triune_runtime

from .errors import BuildError
from .fingerprint import FileHashes, code_hash, digest, listing, tool_versions, write_atomically
from .lengths import Room
from .naming import meaning_of
from .plan import BuildPlan
from .repository.assemble import ENGINE_FOLDER
from .repository.check import check
from .targets.target import Proof, Target
from .verify.measure import Sizes
from .verify.report import JSON_NAME, TEXT_NAME, BuildReport

BUILDER = Path(__file__).parent
_RUNTIME = Path(triune_runtime.__file__).parent
_ENGINE_CODE = tuple(BUILDER / part for part in ("checkpoint", "graph", "quantize"))
_CALIBRATION_CODE = tuple(
    BUILDER / "verify" / part
    for part in ("reference.py", "reference_deepseek.py", "reference_parts.py", "text/calibration", "text/further")
)
_LONGEST_PROOF = 4096  # tokens: a proof reads no further, so of two limits beyond this it says the same
_VERIFY_CODE = (BUILDER / "verify", _RUNTIME / "runner.py")
REPORTS = frozenset({f"{ENGINE_FOLDER}/{JSON_NAME}", f"{ENGINE_FOLDER}/{TEXT_NAME}"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a build reads and writes, and what tests vary."""

    build_dir: Path = Path("build")
    model_repository: Path = BUILDER / "model_repository"  # a link to it in a checkout, in a wheel the files
    sizes: Sizes = dataclasses.field(default_factory=Sizes)

    @property
    def cache_dir(self) -> Path:
        return self.build_dir / ".cache"

    @property
    def lock_file(self) -> Path:
        """Of one build at a time; see `stage_cache.locked`."""
        return self.build_dir / ".lock"


class Inputs:
    """Hashes of what one plan's results depend on."""

    def __init__(self, plan: BuildPlan, settings: Settings, target: Target) -> None:
        self._asked, self._settings, self._target = plan, settings, target
        self._room: Room | None = None  # once the checkpoint, or what was remembered of it, has told
        self.plan, self.why = plan, ""  # with the length of its sequences chosen, and why it is that, once that is known
        self._sources = settings.cache_dir / "sources.json"  # name of a model's folder -> the files it was read from
        self.files = FileHashes(settings.cache_dir / "hashes.json")
        self.tools = tool_versions(target.tools)
        # Hashed once, at the start: sources edited while a build runs belong to the next one.
        self._engine_code = code_hash([
            *_ENGINE_CODE, *_CALIBRATION_CODE, *_of_target(BUILDER, target.code),
            *(BUILDER / package for package in target.further_code),
        ])  # fmt: skip
        self._verify_code = code_hash([*_VERIFY_CODE, *_of_target(_RUNTIME, target.runtime_code)])
        published = [BUILDER, _RUNTIME / "manifest.py", _RUNTIME / "runner.py", _RUNTIME / "targets", settings.model_repository]
        self._all_code = code_hash(published)

    def checkpoint(self, files: Sequence[Path], tell: Callable[[int], None] = lambda count: None) -> dict[str, str]:
        """Name -> content hash; `tell` gets the bytes of each piece that had to be read."""
        return {name: self.files.sha256(path, tell) for name, path in named(files).items()}

    def size(self, room: Room) -> None:
        """Choose the length of sequences.

        Raises:
            BuildError: as `BuildPlan.sized`.
        """
        self._room = room
        self.plan, self.why = self._asked.sized(room)

    def remember(self, files: Sequence[Path]) -> None:
        """Note which files the model was read from, so that the next build need not open it to see them unchanged."""
        entry: dict[str, Any] = {"listing": _listing(self.plan.model), "files": [str(f.absolute()) for f in files]}
        if self._room is not None:
            entry[self._room_key] = self._room.to_json()
        known, name = self._known(), meaning_of(self.plan.model).folder_name
        if known.get(name, {}).get("listing") == entry["listing"]:
            entry = known[name] | entry
        write_atomically(self._sources, json.dumps(known | {name: entry}, indent=1))

    def engine_key(self, files: Sequence[Path]) -> str:
        """Of the engine: checkpoint, the choices that shape the graph, the code that makes it."""
        plan = self.plan
        length = self._target.engine_length(plan, self._room.own if self._room else None)
        return digest({
            "plan": [plan.target, plan.precision, plan.rounding, plan.speculation, length, *self._target.engine_choices(plan)],
            "calibration": [text.sha256 for text in plan.calibration],
            "checkpoint": self.checkpoint(files),
            "code": self._engine_code,
            "tools": self.tools,
        })  # fmt: skip

    def verify_key(self, engine_key: str, proof: Proof) -> str:
        """Of the figures: the engine, how and how much of it is run, and the code that runs and compares it."""
        limits = self.plan.limits
        return digest({
            "engine": engine_key,
            "how": dataclasses.asdict(proof),
            "limits": [limits.max_sequences, min(limits.max_length, _LONGEST_PROOF), limits.prefill_chunk],
            "sizes": dataclasses.asdict(self._settings.sizes),
            "code": self._verify_code,
        })  # fmt: skip

    def everything(self, files: Sequence[Path]) -> str:
        """Of the published repository."""
        budgets = self._target.precisions[self.plan.precision].budgets
        judged = {how: dataclasses.asdict(budget) for how, budget in budgets.items()}
        return self.plan.hash(checkpoint=self.checkpoint(files), code=digest([self._all_code, judged]), tools=self.tools)

    def published(self) -> str | None:
        """The hash of the published repository, if it is whole and what this plan's build would make."""
        repository = self._asked.repository(self._settings.build_dir)
        entry = self._known().get(meaning_of(self.plan.model).folder_name)
        try:
            if entry is None or entry["listing"] != _listing(self.plan.model):
                return None
            if self._asked.auto_length:
                self.size(Room.from_json(entry[self._room_key]))
            report = BuildReport.read(repository / ENGINE_FOLDER)
            if report.inputs_hash != self.everything([Path(f) for f in entry["files"]]):
                return None
            check(repository, files=report.files, sha256=self.files.sha256, ignored=REPORTS)
        except (BuildError, OSError, KeyError, TypeError, ValueError):
            return None  # missing or damaged: to be built
        self.files.save()
        return report.inputs_hash

    @property
    def _room_key(self) -> str:
        return f"room of {self._asked.target} {self._asked.precision}"

    def _known(self) -> dict[str, Any]:
        try:
            known = json.loads(self._sources.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _listing(model: str) -> Mapping[str, list[int]]:
    """Of the model's own files; empty for one that is fetched."""
    path = meaning_of(model).path
    return {} if path is None else listing(path)


def _of_target(root: Path, packages: Sequence[str]) -> list[Path]:
    """The sources of a target below `root`: the modules that all of them share, and its own packages."""
    return [*sorted((root / "targets").glob("*.py")), *(root / "targets" / package for package in packages)]


def named(files: Sequence[Path]) -> dict[str, Path]:
    """Short names for the checkpoint's files; if two folders have files of one name, all keep their paths."""
    short = {f.name: f for f in files}
    return short if len(short) == len(files) else {f.as_posix(): f for f in files}
