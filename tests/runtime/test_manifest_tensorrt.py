"""What engine.json says of a TensorRT engine. Run: pytest tests/runtime/test_manifest_tensorrt.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from triune_runtime.errors import ManifestError
from triune_runtime.manifest import FILE_NAME, CacheTensor, EngineManifest
from triune_runtime.targets.device.plan import Profile, SlotPlan, slot_plan
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

PLAN = TensorRtPlan(
    flavour="tensorrt_rtx",
    version="1.7.1.116",
    compute_capabilities=("8.9", "12.0"),
    capacity=32,
    profiles=(
        Profile(name="prefill", batch=(1, 1, 1), tokens=(1, 8, 8), logits=(1, 1, 8)),
        Profile(name="decode", batch=(1, 4, 4), tokens=(1, 1, 1), logits=(1, 1, 1)),
    ),
    plan_bytes=1000,
    plan_sha256="0" * 64,
    weight_streaming=True,
)
MANIFEST = EngineManifest(
    model="tiny", architecture="llama", target="tensorrt", precision="bf16", engine="model.plan", vocab_size=7,
    cache=(CacheTensor(name="0.key", heads=2, dim=8, dtype="bfloat16"),), stop_token_ids=(1,), plan=PLAN.to_json(),
)  # fmt: skip


def change(folder: Path, **changes: Any) -> None:
    path = folder / FILE_NAME
    raw = json.loads(path.read_text("utf-8"))
    raw["plan"] |= changes
    path.write_text(json.dumps(raw), "utf-8")


def test_a_tensorrt_engine_is_read_as_it_was_written(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    loaded = EngineManifest.load(tmp_path)
    assert loaded == MANIFEST and TensorRtPlan.of(loaded) == PLAN
    assert slot_plan(loaded) == SlotPlan(capacity=32, profiles=PLAN.profiles)


def test_bfloat16_takes_two_bytes_though_numpy_does_not_know_it() -> None:
    assert MANIFEST.kv_bytes_per_token == 2 * 8 * 2


@pytest.mark.parametrize(
    "changes", [{"colour": "red"}, {"profiles": [{"name": "prefill"}]}, {"profiles": 3}, {"compute_capabilities": 8.9},
                {"profiles": [{"name": "decode", "batch": [1, 2], "tokens": [1, 1, 1], "logits": [1, 1, 1]}]}],
)  # fmt: skip
def test_what_does_not_fit_is_refused_when_the_target_reads_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    MANIFEST.save(tmp_path)
    change(tmp_path, **changes)
    loaded = EngineManifest.load(tmp_path)  # which knows no target
    with pytest.raises(ManifestError, match=r"what engine\.json says of TensorRT does not fit this runtime"):
        TensorRtPlan.of(loaded)


@pytest.mark.parametrize(
    "changes", [{"plan": 3}, {"plan": None}, {"cache": [{"name": "k", "heads": 1, "dim": 8, "dtype": "f4"}]}]
)
def test_a_manifest_of_another_form_is_refused_with_the_file_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    MANIFEST.save(tmp_path)
    raw = json.loads((tmp_path / FILE_NAME).read_text("utf-8"))
    (tmp_path / FILE_NAME).write_text(json.dumps(raw | changes), "utf-8")
    with pytest.raises(ManifestError, match=r"engine\.json does not fit this runtime"):
        EngineManifest.load(tmp_path)


def test_a_manifest_of_an_earlier_build_says_to_build_again(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    raw = json.loads((tmp_path / FILE_NAME).read_text("utf-8"))
    raw |= {"format": 1, "tensorrt": raw.pop("plan")}
    (tmp_path / FILE_NAME).write_text(json.dumps(raw), "utf-8")
    with pytest.raises(ManifestError, match="has format 1, this runtime reads 2") as error:
        EngineManifest.load(tmp_path)
    assert error.value.hint == "build the engine again"
