"""Is there anything to do? Knows what a build depends on and what was published; imports nothing heavy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triune_runtime

from .errors import BuildError
from .fingerprint import FileHashes, code_hash, digest, listing, tool_versions, write_atomically
from .plan import BuildPlan
from .project_models import path_of
from .repository.assemble import ENGINE_FOLDER
from .repository.check import check
from .targets.target import Proof, Target
from .verify.measure import Sizes
from .verify.report import JSON_NAME, TEXT_NAME, BuildReport

BUILDER = Path(__file__).parent
_RUNTIME = Path(triune_runtime.__file__).parent
_ENGINE_CODE = tuple(BUILDER / part for part in ("checkpoint", "graph", "quantize"))
_CALIBRATION_CODE = tuple(
    BUILDER / "verify" / part for part in ("reference.py", "reference_deepseek.py", "reference_parts.py", "text/calibration")
)
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


class Inputs:
    """Hashes of what one plan's results depend on."""

    def __init__(self, plan: BuildPlan, settings: Settings, target: Target) -> None:
        self._plan, self._settings, self._target = plan, settings, target
        self._sources = settings.cache_dir / "sources.json"  # model -> the files it was read from
        self.files = FileHashes(settings.cache_dir / "hashes.json")
        self.tools = tool_versions(target.tools)
        # Hashed once, at the start: sources edited while a build runs belong to the next one.
        self._engine_code = code_hash([*_ENGINE_CODE, *_CALIBRATION_CODE, *_of_target(BUILDER, target.code)])
        self._verify_code = code_hash([*_VERIFY_CODE, *_of_target(_RUNTIME, target.runtime_code)])
        published = [BUILDER, _RUNTIME / "manifest.py", _RUNTIME / "runner.py", _RUNTIME / "targets", settings.model_repository]
        self._all_code = code_hash(published)

    def checkpoint(self, files: Sequence[Path]) -> dict[str, str]:
        """Name -> content hash."""
        return {name: self.files.sha256(path) for name, path in named(files).items()}

    def remember(self, files: Sequence[Path]) -> None:
        """Note which files the model was read from, so that the next build need not open it to see them unchanged."""
        entry = {"listing": listing(path_of(self._plan.model)), "files": [str(f.absolute()) for f in files]}
        write_atomically(self._sources, json.dumps(self._known() | {self._plan.model: entry}, indent=1))

    def engine_key(self, files: Sequence[Path]) -> str:
        """Of the engine: checkpoint, the choices that shape the graph, the code that makes it."""
        plan = self._plan
        return digest({
            "plan": [plan.target, plan.precision, plan.speculation, plan.limits.max_length, *self._target.engine_choices(plan)],
            "checkpoint": self.checkpoint(files),
            "code": self._engine_code,
            "tools": self.tools,
        })  # fmt: skip

    def verify_key(self, engine_key: str, proof: Proof) -> str:
        """Of the figures: the engine, how and how much of it is run, and the code that runs and compares it."""
        return digest({
            "engine": engine_key,
            "how": dataclasses.asdict(proof),
            "limits": dataclasses.asdict(self._plan.limits),
            "sizes": dataclasses.asdict(self._settings.sizes),
            "code": self._verify_code,
        })  # fmt: skip

    def everything(self, files: Sequence[Path]) -> str:
        """Of the published repository."""
        budgets = self._target.precisions[self._plan.precision].budgets
        judged = {how: dataclasses.asdict(budget) for how, budget in budgets.items()}
        return self._plan.hash(checkpoint=self.checkpoint(files), code=digest([self._all_code, judged]), tools=self.tools)

    def published(self) -> str | None:
        """The hash of the published repository, if it is whole and what this plan's build would make."""
        repository = self._plan.repository(self._settings.build_dir)
        entry = self._known().get(self._plan.model)
        try:
            if entry is None or entry["listing"] != listing(path_of(self._plan.model)):
                return None
            report = BuildReport.read(repository / ENGINE_FOLDER)
            if report.inputs_hash != self.everything([Path(f) for f in entry["files"]]):
                return None
            check(repository, files=report.files, sha256=self.files.sha256, ignored=REPORTS)
        except (BuildError, OSError):
            return None  # missing or damaged: to be built
        self.files.save()
        return report.inputs_hash

    def _known(self) -> dict[str, Any]:
        try:
            known = json.loads(self._sources.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _of_target(root: Path, packages: Sequence[str]) -> list[Path]:
    """The sources of a target below `root`: the modules that all of them share, and its own packages."""
    return [*sorted((root / "targets").glob("*.py")), *(root / "targets" / package for package in packages)]


def named(files: Sequence[Path]) -> dict[str, Path]:
    """Short names for the checkpoint's files; if two folders have files of one name, all keep their paths."""
    short = {f.name: f for f in files}
    return short if len(short) == len(files) else {f.as_posix(): f for f in files}
