"""Every published R1 checkpoint passes a dry run, from headers alone. Run: pytest tests/builder/test_published_models.py"""

from __future__ import annotations

import json
import math
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from fakes.planned import geometry
from fakes.published import CONFIGS, Published, tensors
from triune_builder.dry_run import DryRun, dry_run
from triune_builder.estimate import Estimate
from triune_builder.inputs import Settings
from triune_builder.plan import BuildPlan, folder_of
from triune_builder.progress import Display

NAMES = sorted(path.stem for path in CONFIGS.glob("*.json"))
# Attention's share of a token: 2 x layers x key and value heads x 128, or layers x (512 + 64), in float32.
KV_BYTES = {
    "deepseek-r1": 61 * (512 + 64) * 4,
    "r1-0528-qwen3-8b": 2 * 36 * 8 * 128 * 4,
    "r1-distill-llama-8b": 2 * 32 * 8 * 128 * 4,
    "r1-distill-llama-70b": 2 * 80 * 8 * 128 * 4,
    "r1-distill-qwen-1.5b": 2 * 28 * 2 * 128 * 4,
    "r1-distill-qwen-7b": 2 * 28 * 4 * 128 * 4,
    "r1-distill-qwen-14b": 2 * 48 * 8 * 128 * 4,
    "r1-distill-qwen-32b": 2 * 64 * 8 * 128 * 4,
}


def run(folder: Path, model: Path, **choices: Any) -> DryRun:
    return dry_run(BuildPlan(model=str(model), **choices), Settings(build_dir=folder / "build"), display=Display(quiet=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_fixture_has_as_many_numbers_of_each_type_as_was_published(name: str) -> None:
    published = Published.read(name)
    counts: Counter[str] = Counter()
    for dtype, shape in tensors(published.config).values():
        counts[dtype] += math.prod(shape)
    assert counts == published.parameters


@pytest.mark.parametrize("name", NAMES)
def test_a_published_checkpoint_passes_from_headers_alone(tmp_path: Path, name: str) -> None:
    published = Published.read(name)
    model = published.write(tmp_path / name)
    assert sum(path.stat().st_blocks * 512 for path in model.iterdir()) < 64e6  # nothing but headers takes disk
    found = run(tmp_path, model)
    assert found.folder == folder_of(str(tmp_path / name), "cpu", tmp_path / "build") / "plan"
    graph = onnx.load(found.folder / "model.onnx", load_external_data=False).graph
    assert {i.name for i in graph.input} >= {"input_ids", "total_lengths", "logit_positions"}
    assert next(o.name for o in graph.output) == "logits"
    assert (found.folder / "mtp.onnx").exists() == ("num_nextn_predict_layers" in published.config)
    assert found.estimate.kv_bytes_per_token == KV_BYTES[name]
    assert found.estimate.checkpoint_bytes.keys() == published.parameters.keys()
    assert json.loads((found.folder / "plan.json").read_text())["parameters"] == found.estimate.parameters
    held = found.estimate.parameters + found.estimate.spare_parameters
    scales = sum(math.prod(s) for n, (_, s) in tensors(published.config).items() if n.endswith("_scale_inv"))
    assert held + scales == sum(published.parameters.values())
    counted = geometry(name)  # what `triune plan` counts, of config.json alone
    for count in ("parameters", "active_parameters", "spare_parameters"):
        assert getattr(counted, count) == getattr(found.estimate, count)
    if name == "deepseek-r1":  # here, as its dry run takes longest
        _is_671_billion_of_which_a_token_meets_37(found.estimate)


def _is_671_billion_of_which_a_token_meets_37(found: Estimate) -> None:
    assert round(found.parameters / 1e9) == 671 and round(found.active_parameters / 1e9) == 37
    assert found.spare_parameters > 11.5e9  # the predicting layer, with its copies of the table and the head
    assert found.precisions["fp8"].in_place > 0.97 * sum(found.checkpoint_bytes.values()) * 671 / 685
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 4 << 30
