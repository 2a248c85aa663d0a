"""Run: pytest tests/builder/test_repository.py"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.tiny_build import CONFIGS, write_template
from triune_builder.errors import BuildError
from triune_builder.fingerprint import sha256, source_files
from triune_builder.repository import assemble as assembling
from triune_builder.repository.assemble import assemble, leftovers, publish, repair
from triune_builder.repository.check import check, check_models
from triune_builder.repository.config_text import parse
from triune_runtime.manifest import EngineManifest


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return write_template(tmp_path / "template")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine" / "model.data"
    path.parent.mkdir()
    path.write_bytes(b"weights" * 1000)
    return path


def manifest() -> EngineManifest:
    return EngineManifest(model="m", architecture="llama", target="cpu", precision="int8", engine="model.data",
                          vocab_size=8, cache=(), stop_token_ids=(0,))  # fmt: skip


def finish(new: Path) -> None:
    manifest().save(new / "generate" / "1")
    (new / "generate" / "1" / "tokenizer.json").write_text("{}")


def files_of(repository: Path) -> dict[str, dict[str, Any]]:
    return {
        p.relative_to(repository).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in source_files(repository)
    }


@pytest.fixture
def repository(template: Path, engine: Path, tmp_path: Path) -> Path:
    return assemble(template, tmp_path / "out", name="one", linked={"model.data": engine}, finish=finish)


def test_links_become_files_and_caches_stay_out(repository: Path) -> None:
    assert (repository / "generate" / "1" / "shared.py").read_text() == "# tokenize\n"
    assert not any(p.is_symlink() or p.name == "__pycache__" for p in repository.rglob("*"))
    assert (repository / "triune" / "1").is_dir()  # an ensemble has no code but needs a version


def test_the_engine_takes_no_disk_twice(repository: Path, engine: Path) -> None:
    assert (repository / "generate" / "1" / "model.data").stat().st_ino == engine.stat().st_ino


def test_the_engine_is_copied_where_links_are_impossible(
    template: Path, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(assembling.os, "link", refuse)
    made = assemble(template, tmp_path / "out", name="one", linked={"model.data": engine}, finish=finish)
    assert (made / "generate" / "1" / "model.data").read_bytes() == engine.read_bytes()


def test_nothing_is_published_when_finishing_fails(repository: Path, template: Path, engine: Path) -> None:
    before = files_of(repository)

    def fail(new: Path) -> None:
        raise BuildError("no")

    with pytest.raises(BuildError):
        assemble(template, repository.parent, name="two", linked={"model.data": engine}, finish=fail)
    assert files_of(repository) == before
    repair(repository.parent)
    assert [p.name for p in repository.parent.iterdir()] == ["repository"]


def test_what_is_no_model_repository_is_refused(tmp_path: Path, engine: Path) -> None:
    with pytest.raises(BuildError, match=r"is no model repository: it has no generate/config\.pbtxt"):
        assemble(tmp_path, tmp_path / "out", name="one", linked={}, finish=finish)


def test_a_repository_moved_away_and_not_replaced_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".old-a").mkdir()
    (tmp_path / ".old-a" / "old").touch()
    (tmp_path / ".tmp-b").mkdir()
    repair(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["repository"]
    assert (tmp_path / "repository" / "old").exists()
    assert not list(leftovers(tmp_path))


def test_a_replaced_repository_is_removed(tmp_path: Path) -> None:
    for name in ("repository", ".tmp-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name.strip(".")).touch()
    publish(tmp_path / ".tmp-b", tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["repository", "repository/tmp-b"]


def test_a_right_repository_passes(repository: Path) -> None:
    found = check(repository, files=files_of(repository), sha256=sha256, ignored=frozenset())
    assert found == manifest()


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(repository: Path) -> None:
        path = repository / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def replace_by_link(repository: Path) -> None:
    path = repository / "generate" / "1" / "model.py"
    path.rename(repository.parent / "model.py")
    path.symlink_to(repository.parent / "model.py")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda r: (r / "generate/1/engine.json").unlink(), "no engine.json"),
        (lambda r: (r / "generate/1/model.data").unlink(), "engine.json names model.data"),
        (lambda r: (r / "generate/1/tokenizer.json").unlink(), "engine.json names tokenizer.json"),
        (lambda r: (r / "generate/1/model.py").unlink(), "has no generate/1/model.py"),
        (lambda r: (r / "generate/1/other.py").touch(), "files that no build put there: generate/1/other.py"),
        (replace_by_link, "symbolic link"),
        (lambda r: (r / "tokenize/1/model.py").write_text("# tokenise\n"), "sha256 differs"),
        (lambda r: (r / "tokenize/1/model.py").write_text("#\n"), "has 2 bytes; it was built with 11"),
    ],
)
def test_damage_is_named(repository: Path, damage: Callable[[Path], None], says: str) -> None:
    files = files_of(repository)
    damage(repository)
    with pytest.raises(BuildError, match=says):
        check(repository, files=files, sha256=sha256, ignored=frozenset())


TRIUNE = "triune/config.pbtxt"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda r: (r / "empty").mkdir(), "no config.pbtxt; Triton takes every folder for a model"),
        (lambda r: (r / "triune/1").rmdir(), "no version folder"),
        (lambda r: (r / "tokenize/1/model.py").unlink(), "no 1/model.py"),
        (edit("tokenize/config.pbtxt", '"tokenize"', '"tokenise"'), "says name 'tokenise', its folder is 'tokenize'"),
        (edit(TRIUNE, 'model_name: "tokenize"', 'model_name: "lost"'), "the step 'lost'"),
        (edit(TRIUNE, 'input_map { key: "ids"', 'input_map { key: "no"'), "maps input 'no'"),
        (edit(TRIUNE, 'key: "tokens"', 'key: "no"'), "maps output 'no', which generate"),
        (edit(TRIUNE, 'input_map { key: "ids" value: "_ids" }', ""), "gives generate no ids"),
        (edit(TRIUNE, 'key: "ids" value: "_ids" } },', 'key: "ids" value: "_other" } },'), "nothing makes _ids"),
        (edit(TRIUNE, 'value: "out"', 'value: "in"'), "promises out, which no step makes"),
        (edit(TRIUNE, "step [", "stop ["), "no steps"),
        (edit("generate/config.pbtxt", "{ decoupled", "( decoupled"), "line 4: .* is not protobuf text"),
        (edit("generate/config.pbtxt", "decoupled: true }", "decoupled: true"), "where '}' should be"),
    ],
)  # fmt: skip
def test_a_config_that_triton_would_refuse_is_named(repository: Path, damage: Callable[[Path], None], says: str) -> None:
    check_models(repository)
    damage(repository)
    with pytest.raises(BuildError, match=says):
        check_models(repository)


def test_protobuf_text_in_all_its_forms() -> None:
    text = """
      name: "a" "b"  # two strings are one
      dims: [ -1, 2 ] dims: 3;
      nested { x: 1.5e-3, y: 'q' } nested: < x: true >
      list: [ { k: 1 }, { k: 2 } ] empty: []
    """
    assert parse(text, "test") == {
        "name": ["ab"],
        "dims": ["-1", "2", "3"],
        "nested": [{"x": ["1.5e-3"], "y": ["q"]}, {"x": ["true"]}],
        "list": [{"k": ["1"]}, {"k": ["2"]}],
        "empty": [],
    }


def test_the_fake_configs_are_read() -> None:
    assert parse(CONFIGS["triune"], "triune")["platform"] == ["ensemble"]
