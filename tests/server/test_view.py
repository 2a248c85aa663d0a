"""What a server serves, as its run folder says. Run: pytest tests/server/test_view.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from triune_runtime.manifest import ENGINE_ELSEWHERE, engine_folder
from triune_server.errors import ServerError
from triune_server.view import ENGINES, View


def test_what_is_not_served_cannot_be_withdrawn_and_no_name_is_said_to_be_none(tmp_path: Path) -> None:
    view = View(tmp_path)
    for name, message in (("x", "^x is not being served; served: "), ("", "^no model was named; served: ")):
        with pytest.raises(ServerError, match=message) as caught:
            view.withdraw(name)
        assert "NAME=" in (caught.value.hint or "")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one model."""
    model = tmp_path / "repository" / "generate"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text('name: "generate"\n')
    (model / "1" / "model.py").write_text("# code\n")
    (model / "1" / "model.onnx").write_bytes(b"engine")
    return tmp_path / "repository"


def test_an_engine_is_found_where_the_view_says(repository: Path, tmp_path: Path) -> None:
    view = View(tmp_path / "run é ()")
    view.begin({"a": repository, "b": repository})
    plain = tmp_path / "plain"  # as the server is given a path that it cannot say
    plain.mkdir()
    (plain / "models").symlink_to(view.models)
    (plain / ENGINES).symlink_to(view.models.parent / ENGINES)
    for model in ("generate", "b__generate"):
        assert (engine_folder(str(view.models / model)) / "model.onnx").read_bytes() == b"engine"
        seen = engine_folder(str(plain / "models" / model))
        assert seen.is_relative_to(plain) and str(seen).isascii() and (seen / "model.onnx").exists()
    assert engine_folder(str(repository / "generate")) == repository / "generate" / "1"
    assert not (repository / "generate" / "1" / ENGINE_ELSEWHERE).exists()


def test_what_a_server_watches_is_not_touched_by_another_of_the_same_repository(repository: Path, tmp_path: Path) -> None:
    """Triton reloads a model when a time of a file changes; a file's links are one of the things that change one."""

    def times() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in sorted(view.models.rglob("*"))}

    view, other = View(tmp_path / "run"), View(tmp_path / "other")
    view.begin({"a": repository})
    before = times()
    other.begin({"a": repository})
    assert times() == before
    other.end()
    assert times() == before
