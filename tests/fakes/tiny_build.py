"""A whole build in miniature: a tiny checkpoint on disk, stages that take milliseconds, a small model repository.

The engine is the checkpoint's weights in one file; its runner computes them independently (see tiny_llama.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from triune_builder.inputs import Settings
from triune_builder.pipeline import Built, build
from triune_builder.plan import BuildPlan
from triune_builder.quantize.policy import FLOAT, Precision
from triune_builder.targets import find_target
from triune_builder.targets.facts import EngineFacts
from triune_builder.targets.target import Proof, Target, VerifyJob
from triune_builder.verify.budget import Budget
from triune_builder.verify.measure import Sizes
from triune_builder.verify.report import WeightChange
from triune_builder.verify.verification import Verification
from triune_builder.verify.verify import verify
from triune_runtime.manifest import CacheTensor, Limits

from .tiny_llama import FakeTensor, TinyRunner, tiny_checkpoint, tiny_config

LIMITS = Limits(max_sequences=3, max_length=16, prefill_chunk=4)
SIZES = Sizes(text=12, window=6, kept=4, answer=3)

_PYTHON = 'backend: "python"\nmax_batch_size: 0\n'
CONFIGS = {
    "tokenize": _PYTHON
    + 'input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]\n'
    + 'output [ { name: "ids" data_type: TYPE_INT32 dims: [ -1 ] } ]\n',
    "generate": _PYTHON
    + "model_transaction_policy { decoupled: true }  # one response a chunk\n"
    + 'input [ { name: "ids" data_type: TYPE_INT32 dims: [ -1 ] },\n'
    + '        { name: "seed" data_type: TYPE_INT64 dims: [ 1 ] optional: true } ]\n'
    + 'output [ { name: "tokens" data_type: TYPE_INT32 dims: [ -1 ] } ]\n',
    "triune": 'platform: "ensemble"\n'
    + 'input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]\n'
    + 'output [ { name: "out" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
    + "ensemble_scheduling { step [\n"
    + '  { model_name: "tokenize" model_version: -1 input_map { key: "text_input" value: "text_input" }\n'
    + '    output_map { key: "ids" value: "_ids" } },\n'
    + '  { model_name: "generate" model_version: -1 input_map { key: "ids" value: "_ids" }\n'
    + '    output_map { key: "tokens" value: "out" } } ] }\n',
}


def write_template(folder: Path) -> Path:
    """A model repository's sources: three configs, code, a shared file by symbolic link, a stray cache."""
    for name, config in CONFIGS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(f'name: "{name}"\n{config}')
        if "python" in config:
            (folder / name / "1").mkdir()
            (folder / name / "1" / "model.py").write_text(f"# {name}\n")
    (folder / "generate" / "1" / "shared.py").symlink_to("../../tokenize/1/model.py")
    (folder / "generate" / "1" / "__pycache__").mkdir()
    (folder / "generate" / "1" / "__pycache__" / "model.pyc").write_bytes(b"stale")
    return folder


def settings(root: Path, **changes: Any) -> Settings:
    """A build in `root`/build, from `root`/template."""
    if not (root / "template").exists():
        write_template(root / "template")
    defaults: dict[str, Any] = {
        "build_dir": root / "build",
        "model_repository": root / "template",
        "sizes": SIZES,
    }
    return Settings(**(defaults | changes))


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """A checkpoint's file; its one number decides the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(seed))
    return path


@dataclass
class TinyPrecision:
    """With a budget that a right engine meets."""

    budgets: Mapping[str, Budget]
    weights: Precision


PRECISIONS = {
    name: TinyPrecision(
        {"full": Budget(logits_error=1e-4, greedy_agreement=1.0, perplexity_ratio=1.001)},
        Precision(name=name, linear=(("*", FLOAT),)),
    )
    for name in ("fp32", "int8", "int4", "w8a8")
}


@dataclass
class TinyTools:
    """A target in miniature; `calls` tells what was really done, `faults` spoil the engine's numbers."""

    faults: Mapping[str, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    config: Mapping[str, Any] = field(default_factory=dict)  # keys of the checkpoint's that are otherwise

    @property
    def target(self) -> Target:
        return dataclasses.replace(
            find_target("cpu"), head_unit=1, precisions=PRECISIONS, compile=self.compile, proof=self.proof, verify=self.verify
        )

    def build(self, plan: BuildPlan, settings: Settings, **options: Any) -> Built:
        """`pipeline.build` with these."""
        return build(plan, settings, target=self.target, open_checkpoint=self.open_checkpoint, **options)

    def open_checkpoint(self, model: str, cache: Path, clock: Any) -> Any:
        self.calls.append("fetch")
        cache.mkdir(parents=True, exist_ok=True)
        path = Path(model)
        return tiny_checkpoint(seed=int(path.read_text()), files=(path,), num_hidden_layers=1, **self.config)

    def compile(self, plan: Any, checkpoint: Any, folder: Path, stage: Any) -> EngineFacts:
        self.calls.append("compile")
        with stage("export"), stage("quantize") as clock:
            clock.note("pretending")
            clock.count(1, 2)
        with stage("write"):
            (folder / "model.onnx").write_text(plan.precision)
            with (folder / "model.data").open("wb") as file:
                np.savez(file, **{name: t.array for name, t in sorted(checkpoint.weights.items())})
        return EngineFacts(
            architecture="llama",
            vocab_size=256,
            cache=(CacheTensor(name="0.key", heads=2, dim=8), CacheTensor(name="0.value", heads=2, dim=8)),
            changes=(WeightChange(name="w", scheme="blocks8", bytes_before=4, bytes_after=1, error=0.25),),
            files=("model.onnx", "model.data"),
            engine="model.onnx",
        )

    def proof(self, job: VerifyJob) -> Proof:
        return Proof(how="full")

    def verify(self, job: VerifyJob, proof: Proof) -> Verification:
        self.calls.append("verify")
        with np.load(job.folder / "model.data") as data:
            weights = {name: FakeTensor(data[name]) for name in data.files}
        runner = TinyRunner(tiny_config(num_hidden_layers=1), weights, self.faults)
        return verify(runner, job.manifest.limits, job.checkpoint, sizes=job.sizes, note=job.note)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` and its contents; the report's seconds and memory left out."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith("report.")
    }
