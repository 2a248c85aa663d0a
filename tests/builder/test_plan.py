"""Run: pytest tests/builder/test_plan.py"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from triune_builder.errors import BuildError
from triune_builder.fingerprint import FileHashes, code_hash, digest, listing, sha256, tool_versions
from triune_builder.plan import BuildPlan
from triune_builder.targets import find_target
from triune_runtime.manifest import Limits

GIVEN: dict[str, Any] = {"checkpoint": {"a.gguf": "1"}, "code": "2", "tools": {"onnx": "3"}}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"target": "tpu"}, "unknown target 'tpu'; known: cpu"),
        ({"precision": "int3"}, "unknown precision 'int3'; known: fp32, bf16, fp16, fp8, int8, int4, w8a8"),
        ({"model": "  "}, "name is empty"),
        ({"model": "x" * 300}, "is too long for the name of a file"),
        ({"model": "a\0b"}, "has control characters"),
        ({"limits": Limits(max_sequences=0)}, "--max-sequences is 0; it can be 1 to 1,024"),
        ({"limits": Limits(max_length=-5)}, "--max-length is -5"),
        ({"limits": Limits(max_length=1)}, "no room for an answer"),
        ({"limits": Limits(prefill_chunk=10**9)}, "--prefill-chunk is 1,000,000,000; it can be"),
        ({"limits": Limits(max_queue=0)}, "--max-queue is 0"),
    ],
)
def test_a_wrong_choice_is_refused_with_the_right_ones_named(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=says) as caught:
        BuildPlan(**wrong)
    assert caught.value.hint


def test_every_choice_and_input_changes_the_hash() -> None:
    plans = [BuildPlan(precision=p) for p in find_target("cpu").precisions] + [BuildPlan(model="other")]
    plans += [BuildPlan(target="tensorrt"), BuildPlan(target="tensorrt", options={"weight_streaming": True})]
    plans += [BuildPlan(limits=dataclasses.replace(Limits(), **{f.name: 77})) for f in dataclasses.fields(Limits)]
    hashes = [p.hash(**GIVEN) for p in plans]
    hashes += [BuildPlan().hash(**(GIVEN | {name: value})) for name, value in
               [("checkpoint", {"a.gguf": "9"}), ("code", "9"), ("tools", {"onnx": "9"})]]  # fmt: skip
    assert len(set(hashes)) == len(hashes)
    assert BuildPlan().hash(**GIVEN) == BuildPlan().hash(**GIVEN)


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, memory = tmp_path / "weights", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    first = FileHashes(memory)
    expected = first.sha256(path)
    first.save()
    assert expected == sha256(path)
    monkeypatch.setattr("triune_builder.fingerprint.sha256", pytest.fail)
    assert FileHashes(memory).sha256(path) == expected


@pytest.mark.parametrize("what", ["contents", "time"])
def test_a_touched_file_is_read_again(tmp_path: Path, what: str) -> None:
    path, memory = tmp_path / "weights", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    first = FileHashes(memory)
    first.sha256(path)
    first.save()
    if what == "contents":
        path.write_bytes(b"three")
    else:
        path.write_bytes(b"two")  # of the same size
        os.utime(path, ns=(1, 1))
    assert FileHashes(memory).sha256(path) == sha256(path)


@pytest.mark.parametrize("memory", [b"", b"{", b"[]", b'{"x": 3}', b"\xff"])
def test_a_broken_memory_of_hashes_is_started_anew(tmp_path: Path, memory: bytes) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    (tmp_path / "hashes.json").write_bytes(memory)
    assert FileHashes(tmp_path / "hashes.json").sha256(path) == sha256(path)


def test_code_is_known_by_names_and_contents_without_caches(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = code_hash([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    assert code_hash([tmp_path]) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    second = code_hash([tmp_path])
    (tmp_path / "b.py").write_text("2")
    assert len({first, second, code_hash([tmp_path])}) == 3


def test_code_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="does not exist"):
        code_hash([tmp_path / "gone"])


def test_listing_sees_added_files_but_opens_none(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    before = listing(tmp_path)
    (tmp_path / "b").touch()
    assert set(listing(tmp_path)) - set(before) == {"b"}
    assert listing(tmp_path / "nothing") == {}


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})


def test_versions_are_those_of_installed_tools() -> None:
    assert "numpy" in tool_versions()
