"""The stages in order, each skipped when its result is there already. Does no stage's work itself.

Heavy packages are imported by the target and the checkpoint's reader, and that only when there is something to build.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triune_runtime.manifest import EngineManifest

from . import disk
from .build_report import report_of
from .errors import BuildError, option
from .fingerprint import sha256, source_files
from .inputs import REPORTS, Inputs, Settings
from .manifest import manifest_of
from .places import note_model
from .plan import NONE, BuildPlan
from .progress import Display, StageClock
from .repository.assemble import ENGINE_FOLDER, assemble, leftovers, repair
from .repository.check import check
from .stage_cache import StageCache, locked
from .stages import Stages
from .targets import find_target
from .targets.facts import EngineFacts
from .targets.target import Proof, Target, VerifyJob
from .text_checks import check_text
from .verify.report import TEXT_NAME, BuildReport, verification_from
from .verify.verification import Verification

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

KEPT = {"engine": 3, "verify": 12}  # results that stay, so that going back and forth between choices is quick
FAILED = "failed"  # beside the repository: the report of a build over its budget
OpenCheckpoint = Callable[[str, Path, StageClock], "Checkpoint"]  # name, cache for what is fetched, clock


@dataclass(frozen=True, kw_only=True)
class Built:
    """A published repository."""

    repository: Path
    inputs_hash: str
    unchanged: bool  # nothing had to be done


@dataclass(frozen=True, kw_only=True)
class Made:
    """An engine that is compiled and proved as its plan asks; published or not, within its budget or not."""

    checkpoint: Checkpoint
    engine: Path  # the folder of its files, of which the cache may let go
    facts: EngineFacts
    manifest: EngineManifest
    report: BuildReport
    figures_key: str  # of the figures of its proof


def build(
    plan: BuildPlan,
    settings: Settings | None = None,
    *,
    force: bool = False,
    display: Display | None = None,
    target: Target | None = None,
    open_checkpoint: OpenCheckpoint | None = None,
) -> Built:
    """Make sure that the repository of `plan` is published and up to date.

    Args:
        force: do every stage again.
        target: what makes and proves the engine; by default the plan's.
        open_checkpoint: finds and reads the model; by default `checkpoint.open_checkpoint`.

    Raises:
        BuildError: whatever stops the build; what was published before stays as it was.
    """
    settings = settings or Settings()
    with _disk_told(settings):
        return _Build(plan, settings, display or Display(), force, target, open_checkpoint).run()


def make_engine(
    plan: BuildPlan,
    settings: Settings,
    *,
    display: Display | None = None,
    target: Target | None = None,
    open_checkpoint: OpenCheckpoint | None = None,
) -> Made:
    """Compile and prove the engine of `plan`, or take what the cache has of it; publishes nothing, and judges nothing.

    For the holder of the lock in `Settings.lock_file`; for the arguments see `build`.

    Raises:
        BuildError: whatever stops it.
    """
    with _disk_told(settings):
        return _Build(plan, settings, display or Display(), False, target, open_checkpoint).make_alone()


@contextmanager
def _disk_told(settings: Settings) -> Iterator[None]:
    try:
        yield
    except BuildError:
        raise
    except Exception as error:
        if (told := disk.explained(error, settings.build_dir)) is not None:
            raise told from error
        raise


def _open_checkpoint(model: str, cache: Path, clock: StageClock) -> Checkpoint:
    from .checkpoint import open_checkpoint

    return open_checkpoint(model, cache=cache, progress=clock.note, count=clock.count_bytes)


class _Build:
    """One build and the record of its stages."""

    def __init__(
        self,
        plan: BuildPlan,
        settings: Settings,
        display: Display,
        force: bool,
        target: Target | None,
        opened: OpenCheckpoint | None,
    ) -> None:
        self.target = target or find_target(plan.target)
        self.settings, self.display, self.force = settings, display, force
        self.folder = plan.folder(settings.build_dir)
        self.cache = StageCache(settings.cache_dir)
        self.inputs = Inputs(plan, settings, self.target)
        self.stages = Stages(self.cache, self.inputs.files, display, force=force)
        self._open_checkpoint = opened or _open_checkpoint

    @property
    def plan(self) -> BuildPlan:
        return self.inputs.plan

    def run(self) -> Built:
        tidy = not any(leftovers(self.folder)) and not any(self.cache.leftovers())
        if tidy and (built := self._unchanged()):
            return built
        with locked(self.settings.lock_file, f"building {self.plan.model} for {self.plan.target}"):
            repair(self.folder)
            self.cache.clean()
            try:
                return self._unchanged() or self._build()
            finally:
                self.inputs.files.save()

    def make_alone(self) -> Made:
        """The engine, whatever is published."""
        self.cache.clean()
        try:
            return self._make(self._fetch())
        finally:
            self.inputs.files.save()

    def _build(self) -> Built:
        checkpoint = self._fetch()
        if built := self._unchanged():
            return built
        made = self._make(checkpoint)
        self._judge(made.report)
        note_model(self.plan.model, self.plan.target, self.settings.build_dir)
        repository = self._assemble(made)
        shutil.rmtree(self.folder / FAILED, ignore_errors=True)
        for stage, count in KEPT.items():
            self.cache.prune(stage, count)
        return Built(repository=repository, inputs_hash=made.manifest.inputs_hash, unchanged=False)

    def _make(self, checkpoint: Checkpoint) -> Made:
        check_text(checkpoint)
        engine, facts = self._compile(checkpoint, engine_key := self.inputs.engine_key(checkpoint.files))
        manifest = manifest_of(checkpoint, facts, self.plan, self.inputs.tools, self.inputs.everything(checkpoint.files))
        found, proof = self._verify(checkpoint, engine_key, engine, facts, manifest)
        manifest = dataclasses.replace(manifest, verified=proof.how)
        if found and found.decode is None:  # drafts are decoded with, and that was left out
            manifest = dataclasses.replace(manifest, speculation=None)
        report = report_of(self.inputs, self.target, checkpoint, facts, manifest, found, self.stages.runs)
        return Made(
            checkpoint=checkpoint, engine=engine, facts=facts, manifest=manifest, report=report,
            figures_key=self.inputs.verify_key(engine_key, proof),
        )  # fmt: skip

    def _unchanged(self) -> Built | None:
        if self.force or (inputs_hash := self.inputs.published()) is None:
            return None
        repository = self.plan.repository(self.settings.build_dir)
        self.display.say(f"unchanged  {repository}")
        return Built(repository=repository, inputs_hash=inputs_hash, unchanged=True)

    def _fetch(self) -> Checkpoint:
        from .estimate import room_of  # these import what a build that has nothing to do does without
        from .shapes import check_shapes

        with self.stages.stage("fetch") as clock:
            checkpoint = self._open_checkpoint(self.plan.model, self.settings.cache_dir / "checkpoints", clock)
            self.inputs.size(room_of(self.plan, checkpoint))
            check_shapes(self.plan, checkpoint, self.target)
            clock.note("hashing")
            tell = clock.adder(sum(path.stat().st_size for path in checkpoint.files))
            self.inputs.checkpoint(checkpoint.files, tell)
            self.inputs.remember(checkpoint.files)
        self.display.notes(checkpoint.notes)
        limits = self.plan.limits
        self.display.say(f"{'limits':<10} {limits.max_sequences} sequences of {limits.max_length:,} tokens, {self.inputs.why}")
        return checkpoint

    def _compile(self, checkpoint: Checkpoint, key: str) -> tuple[Path, EngineFacts]:
        """Export, quantize, lower and write; kept as one result, since what passes between them lives in memory."""

        def make(folder: Path) -> dict[str, Any]:
            return self.target.compile(self.plan, checkpoint, folder, self.stages.stage).to_json()

        folder, facts = self.stages.kept("engine", key, make)
        return folder, EngineFacts.from_json(facts)

    def _verify(
        self, checkpoint: Checkpoint, engine_key: str, engine: Path, facts: EngineFacts, manifest: EngineManifest
    ) -> tuple[Verification | None, Proof]:
        if self.plan.verify == NONE or self.target.unproved:
            why = self.target.unproved or "left out, as --verify none asks: nothing says that the engine is right"
            self.display.say(f"{'verify':<10} {why}")
            return None, Proof(how=NONE)
        job = VerifyJob(
            asked=self.plan.verify, manifest=manifest, folder=engine, checkpoint=checkpoint,
            loaded_bytes=facts.loaded_bytes, sizes=self.settings.sizes,
        )  # fmt: skip
        proof = self.target.proof(job)

        def make(folder: Path) -> dict[str, Any]:
            with self.stages.stage("verify") as clock:
                return dataclasses.asdict(self.target.verify(dataclasses.replace(job, note=clock.note), proof))

        _, raw = self.stages.kept("verify", self.inputs.verify_key(engine_key, proof), make)
        found = verification_from(raw)
        if found.left_out:
            self.display.say(f"{'verify':<10} in part: {found.left_out}")
        return found, proof

    def _judge(self, report: BuildReport) -> None:
        """Stop the build if the engine is over its budget; the report then goes to `failed`."""
        if report.problems:
            failed = self.folder / FAILED
            failed.mkdir(parents=True, exist_ok=True)
            report.write(failed)
            raise BuildError(
                f"{self.plan.model} at {self.plan.precision} is over its budget and was not published: "
                + "; ".join(report.problems),
                f"see {failed / TEXT_NAME}" + self._nearer(),
            )

    def _nearer(self) -> str:
        """A precision nearer to the float weights, as words of a hint; none where this one is the nearest."""
        twin = self.target.float_twin
        return "" if self.plan.precision == twin else f", or choose what is nearer to the weights: {option('precision', twin)}"

    def _assemble(self, made: Made) -> Path:
        engine, manifest = made.engine, made.manifest

        def finish(new: Path) -> None:
            inside = new / ENGINE_FOLDER
            (inside / manifest.tokenizer).write_text(made.checkpoint.tokenizer_json, "utf-8")
            manifest.save(inside)
            originals = {inside / name: engine / name for name in made.facts.files}
            files = {}
            for path in source_files(new):
                hashed = self.inputs.files.sha256(originals[path]) if path in originals else sha256(path)
                files[path.relative_to(new).as_posix()] = {"bytes": path.stat().st_size, "sha256": hashed}
            dataclasses.replace(made.report, files=files, stages=tuple(self.stages.runs)).write(inside)
            known = {new / name: str(entry["sha256"]) for name, entry in files.items()}
            check(new, files=files, sha256=known.__getitem__, ignored=REPORTS)

        with self.stages.stage("assemble"):
            return assemble(
                self.settings.model_repository,
                self.folder,
                name=manifest.inputs_hash[:16],
                linked={name: engine / name for name in made.facts.files},
                finish=finish,
            )
