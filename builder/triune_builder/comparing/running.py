"""Makes every precision that is asked for, reads texts with each, has each run alone in rounds. Prints and draws nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from triune_runtime.errors import DeviceLost, TriuneError
from triune_runtime.interruption import SILENT
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import make_runner

from ..errors import BuildError, printable
from ..fingerprint import FileHashes, digest
from ..inputs import Settings
from ..machine import this_host
from ..named_models import FOLDERS
from ..pipeline import KEPT, Made, make_engine
from ..progress import Display
from ..stage_cache import StageCache, locked
from ..stages import Stages
from ..targets import find_target
from ..verify.comparison import compare_texts
from ..verify.measure import read_windows
from ..verify.texts import token_ids
from ..verify.verification import TextLoss
from .asking import Asked, Variant
from .rows import Comparison, Round, Row, Score

_LAYERS = "texts and speeds need the engine as a whole, which this machine's memory does not hold"


class Asking(Protocol):
    """Problems with known answers, see `problems.Problems`."""

    prompts: list[list[int]]
    most_tokens: int

    def score(self, answers: Sequence[Sequence[int]]) -> Score: ...


@dataclass(frozen=True)
class _Engine:
    """What is left of a made engine once its checkpoint is closed."""

    row: Row
    folder: Path
    manifest: EngineManifest


def compare(asked: Asked, settings: Settings, display: Display) -> Comparison:
    """Build, or take from the cache, and measure; what fails for one precision is told in its row.

    Nothing is published, and what is published stays as it is.

    Raises:
        BuildError: another build is running there, or the device that runs engines is lost.
    """
    target = find_target(str(asked.chosen.get("target") or asked.plan(asked.variants[0]).target))
    found = Comparison(
        model=asked.model, target=target.name, twin=target.float_twin, machine=str(this_host()), rounds=asked.rounds, rows=[]
    )
    with locked(settings.lock_file, f"comparing precisions of {asked.model}"):
        engines, problems = list[_Engine](), None
        for variant in asked.variants:
            row = Row(name=variant.name, precision=variant.precision)
            found.rows.append(row)
            try:
                made = _made(asked, variant, row, settings, display)
            except DeviceLost as error:
                raise BuildError(str(error)) from error
            except (TriuneError, MemoryError) as error:
                row.failed = str(error.args[0]) if error.args else "there is not enough memory"
                display.say(f"{variant.name:<10} {row.failed}")
                continue
            problems = problems or _problems(asked, made)
            if not row.failed:
                engines.append(_Engine(row, made.engine, made.manifest))
        for number in range(asked.rounds):
            _round(number, engines[::-1] if number % 2 else engines, problems, asked.rounds, display)
        cache = StageCache(settings.cache_dir)
        for stage, count in {**KEPT, "texts": KEPT["verify"]}.items():
            cache.prune(stage, max(count, len(asked.variants)))
    return found


def _made(asked: Asked, variant: Variant, row: Row, settings: Settings, display: Display) -> Made:
    """The engine of a precision; its figures go into `row`."""
    display.say(f"{'compare':<10} {variant.name}")
    plan = asked.plan(variant)
    made = make_engine(plan, settings, display=display)
    row.report = made.report
    row.disk_bytes = sum((made.engine / name).stat().st_size for name in made.facts.files)
    row.build_s = sum(run.seconds for run in made.report.stages if run.name not in ("fetch", "verify"))
    if row.found is not None and row.found.left_out:
        row.failed = _LAYERS
    elif asked.texts:
        row.texts = _texts(asked, made, settings, display)
    return made


def _texts(asked: Asked, made: Made, settings: Settings, display: Display) -> tuple[TextLoss, ...]:
    """What the user's texts cost; kept as the other figures of an engine are."""
    hashes = FileHashes(settings.cache_dir / "hashes.json")
    stages = Stages(StageCache(settings.cache_dir), hashes, display)

    def make(folder: Path) -> dict[str, Any]:
        with stages.stage("texts") as clock:
            ids = token_ids(made.checkpoint.tokenizer_json, [text.text for text in asked.texts])
            runner = make_runner(made.manifest, made.engine)
            try:
                runner.warm_up()
                kinds = [(text.kind, tokens) for text, tokens in zip(asked.texts, ids, strict=True)]
                read = read_windows(runner, made.manifest.limits, kinds, settings.sizes)
            finally:
                runner.close()
            clock.note("the float reference")
            return {"losses": [asdict(loss) for loss in compare_texts(read, made.checkpoint)]}

    key = digest({"figures": made.figures_key, "texts": [[text.kind, text.sha256] for text in asked.texts]})
    _, raw = stages.kept("texts", key, make)
    return tuple(TextLoss(**loss) for loss in raw["losses"])


def _problems(asked: Asked, made: Made) -> Asking | None:
    if not asked.problems or asked.model not in FOLDERS:
        return None
    from .problems import Problems  # with what only a checkout has

    return Problems(made.checkpoint.tokenizer_json, asked.problems)


def _round(number: int, engines: Sequence[_Engine], problems: Asking | None, of: int, display: Display) -> None:
    """Every engine once, one after the other; the problems in the first round alone."""
    for engine in engines:
        if engine.row.failed:
            continue
        asks = problems if number == 0 else None
        with display.stage(engine.row.name) as clock:
            clock.note(f"alone, round {number + 1} of {of}")
            told = _run(engine, asks.prompts if asks else [], asks.most_tokens if asks else 0)
        if "error" in told:
            engine.row.failed, engine.row.rounds = told["error"], None
            display.say(f"{engine.row.name:<10} {engine.row.failed}")
            continue
        if asks:
            engine.row.score = asks.score(told["answers"])
        one = Round(
            tokens_per_s=told["tokens_per_s"], memory_bytes=told["memory_bytes"], peak_bytes=told["peak_bytes"]
        )  # fmt: skip
        engine.row.rounds = [*(engine.row.rounds or []), one]


def _run(engine: _Engine, prompts: Sequence[Sequence[int]], most_tokens: int) -> dict[str, Any]:
    """What the engine's own process tells, see `worker`; or {"error": why it does not}."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), SILENT: "1"}
    with tempfile.TemporaryDirectory(prefix="triune-compare-") as folder:
        engine.manifest.save(Path(folder))
        job = {"manifest": folder, "engine": str(engine.folder.absolute()), "prompts": prompts, "most_tokens": most_tokens}
        ended = subprocess.run(
            [sys.executable, "-m", f"{__package__}.worker"], input=json.dumps(job), capture_output=True, text=True,
            env=environment, check=False,
        )  # fmt: skip
    if ended.returncode == 0:
        told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return told
    said = ended.stderr.strip().splitlines()
    why = f": {said[-1][:300]}" if said else ""
    if ended.returncode == -signal.SIGKILL:
        why = ", as the system does where memory is short"
    return {"error": printable(f"the process that ran the engine ended with {ended.returncode}{why}")}
