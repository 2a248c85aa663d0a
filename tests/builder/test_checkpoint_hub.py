"""The hub, stood in for by a local HTTP server. Run: pytest tests/builder/test_checkpoint_hub.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from tokenizers import Tokenizer, models

from fakes.hub import Hub, standing_in
from triune_builder.checkpoint.folder import open_folder
from triune_builder.checkpoint.hub import fetch_from_hub, fetch_headers_from_hub
from triune_builder.errors import BuildError

WEIGHTS = save({"a": np.arange(1 << 20, dtype=np.float32)})  # 4 MB: several chunks of a download


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {
        "config.json": b'{"model_type": "llama", "eos_token_id": 0}',
        "tokenizer.json": Tokenizer(models.BPE({"a": 0}, [])).to_str().encode(),
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"not wanted",
        "README.md": b"not wanted",
    }
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with standing_in(Hub(files)) as hub:
        yield hub


def fetch(hub: Hub, cache: Path, model: str = "own/tiny") -> Path:
    return fetch_from_hub(model, endpoint=hub.endpoint, cache_dir=cache)


def test_only_what_is_needed_is_fetched_and_only_once(hub: Hub, tmp_path: Path) -> None:
    folder = fetch(hub, tmp_path)
    assert sorted(hub.fetched) == ["config.json", "model.safetensors", "tokenizer.json"]
    checkpoint = open_folder(folder, name="own/tiny")
    assert checkpoint.weights["a"].float32()[-1] == (1 << 20) - 1
    assert fetch(hub, tmp_path) == folder and len(hub.fetched) == 3


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 3_000_000
    assert (fetch(hub, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    whole, again = hub.ranges
    assert whole is None and again is not None
    assert 2_900_000 < int(again.removeprefix("bytes=").rstrip("-")) <= 3_000_000


def test_a_run_that_broke_off_keeps_its_whole_files(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after, hub.down_after_cut = 3_000_000, True
    with pytest.raises(BuildError, match="own/tiny"):
        fetch(hub, tmp_path)
    whole = {name for name in hub.fetched if name != "model.safetensors"}
    hub.status, hub.fetched = 200, []
    assert (fetch(hub, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert "model.safetensors" in hub.fetched and not whole & set(hub.fetched)


def test_without_a_connection_the_cache_serves(hub: Hub, tmp_path: Path) -> None:
    folder = fetch(hub, tmp_path)
    assert fetch_from_hub("own/tiny", endpoint="http://127.0.0.1:9", cache_dir=tmp_path) == folder
    with pytest.raises(BuildError, match="cannot be reached"):
        fetch_from_hub("own/tiny", endpoint="http://127.0.0.1:9", cache_dir=tmp_path / "other")


@pytest.mark.parametrize(
    ("status", "code", "model", "message"),
    [
        (404, "RepoNotFound", "own/none", "has no model own/none that you may read"),
        (403, "GatedRepo", "own/tiny", "does not let you read own/tiny"),
        (404, "RevisionNotFound", "own/tiny@nope", "has own/tiny, but not this revision"),
        (503, "", "own/tiny", "cannot be reached|broke off"),
        (200, "", "own/--bad--name..", "is not a name"),
    ],
)
def test_refusals_are_one_clear_error(hub: Hub, tmp_path: Path, status: int, code: str, model: str, message: str) -> None:
    hub.status, hub.error_code = status, code
    with pytest.raises(BuildError, match=message) as error:
        fetch(hub, tmp_path, model)
    assert error.value.hint
    assert "\n" not in str(error.value.args[0])


def test_headers_alone_are_fetched_for_a_dry_run(hub: Hub, tmp_path: Path) -> None:
    whole = open_folder(fetch_from_hub("own/tiny", endpoint=hub.endpoint, cache_dir=tmp_path / "cache"))
    folder = fetch_headers_from_hub("own/tiny", tmp_path / "hollow", endpoint=hub.endpoint, cache_dir=tmp_path / "other")
    found = open_folder(folder)
    assert found.config == whole.config and found.tokenizer_json == whole.tokenizer_json
    shapes = {name: (t.dtype, t.shape) for name, t in whole.weights.items()}
    assert {name: (t.dtype, t.shape) for name, t in found.weights.items()} == shapes
    assert (folder / "model.safetensors").stat().st_blocks * 512 < 1 << 16  # of four megabytes
    assert not any((tmp_path / "other").rglob("*.safetensors"))
    hub.status, hub.error_code = 404, "RepoNotFound"
    with pytest.raises(BuildError, match="no model own/tiny"):
        fetch_headers_from_hub("own/tiny", tmp_path / "hollow", endpoint=hub.endpoint, cache_dir=tmp_path / "third")
