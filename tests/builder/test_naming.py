"""A model has one folder of its own, however it is spelled. Run: pytest tests/builder/test_naming.py"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.tiny_build import LIMITS, TinyTools, settings, write_checkpoint
from triune_builder.checkpoint import open_checkpoint
from triune_builder.errors import BuildError
from triune_builder.naming import meaning_of, names
from triune_builder.places import built, folder_of
from triune_builder.plan import BuildPlan, repository_of

ODD = [
    "my model (v2)",
    "it's $HOME",
    'a "quoted" name',
    "модель",
    "模型",
    "näïve é",
    "-dash",
    "--help",
    "#1",
    "a&b;c|d",
    "50%",
    "x=y",
]


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def test_known_names_keep_their_folders() -> None:
    assert repository_of("smollm2-135m", "cpu", Path("build")) == Path("build/smollm2-135m/cpu/repository")
    assert all(meaning_of(name).folder_name == name for name in names())


def test_two_models_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [
        "A/checkpoint-1",
        "B/checkpoint-1",
        "модель",
        "模型",
        "x",
        "a--b",
        "./smollm2-135m",
        "own/Model",
        "own/model",
        "m.v1",
    ]
    for path in paths:
        make_folder(tmp_path / path)
    for file in ("x.gguf", "A/x.gguf", "m.v1.gguf"):
        (tmp_path / file).write_text("0")
    models = [
        *paths, "x.gguf", "A/x.gguf", "m.v1.gguf", *names(), "a/b", "a/b@main", "a/b@v1", "A/b", "a--b/c", "a/b--c", "gone/one",
        "not-there", "a-b/c", "a/b-c", "a.b/c", "my model", "my/model (1)", "my/model [1]", "x" * 200 + "1", "x" * 200 + "2",
    ]  # fmt: skip
    folders = [meaning_of(model).folder_name for model in models]
    for (one, first), (other, second) in combinations(zip(models, folders, strict=True), 2):
        assert first.lower() != second.lower(), f"{one} and {other} share {first}"  # some systems do not tell A from a


@pytest.mark.parametrize("name", ["plain", *ODD])
def test_every_spelling_of_a_path_is_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = make_folder(tmp_path / "home" / "models" / name)
    (tmp_path / "home" / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    spelled = [
        "link", str(folder), f"{folder}/", f"models/{name}",
        f"./models/{name}/", f"~/models/{name}", f"models/../models/{name}",
        f"models//{name}", str(tmp_path / "home" / "link"), f"../home/models/{name}", f"models/{name}/.",
    ]  # fmt: skip
    assert len({meaning_of(model) and meaning_of(model).folder_name for model in spelled}) == 1
    monkeypatch.chdir(folder)
    assert meaning_of(".").folder_name == meaning_of(str(folder)).folder_name
    assert all((meaning_of(model).path or Path()).samefile(folder) for model in [".", f"~/models/{name}/"])


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80).filter(str.strip))
def test_any_name_gives_one_safe_folder(model: str) -> None:
    name = meaning_of(model).folder_name
    assert name.isascii() and all(character.isalnum() or character in "._-" for character in name)
    assert name[0] not in ".-" and len(name) < 100


@pytest.mark.parametrize("model", ["", "  ", "a\0b", "a\nb", "a\x1b[31mb", "x" * 256, "/".join(["x" * 100] * 50), "a\udcffb"])
def test_what_no_model_can_be_called_is_refused_in_words(model: str) -> None:
    with pytest.raises(BuildError) as caught:
        BuildPlan(model=model)
    assert caught.value.hint and str(caught.value).isprintable()


def test_a_home_that_nobody_has_and_a_loop_of_links_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for model in (
        "~nobody-is-called-so/model",
        str(tmp_path / "loop"),
        str(tmp_path / "dangling"),
        str(tmp_path / "loop" / "x"),
    ):
        with pytest.raises(BuildError, match="does not exist"):
            open_checkpoint(model, cache=tmp_path)


def test_a_mistyped_path_is_answered_with_what_lies_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "models" / "Llama-3.2-1B")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BuildError) as caught:
        open_checkpoint("models/Lama-3.2-1B/", cache=tmp_path)
    assert caught.value.hint == "did you mean models/Llama-3.2-1B?"


def test_builds_of_equal_names_stand_side_by_side_and_are_listed(tmp_path: Path) -> None:
    models = [write_checkpoint(tmp_path / folder / "checkpoint-1.gguf", seed) for seed, folder in enumerate("AB")]
    tiny, tools = settings(tmp_path), TinyTools()
    made = [tools.build(BuildPlan(model=str(model), precision="int8", limits=LIMITS), tiny) for model in models]
    found = built(tiny.build_dir)
    assert {one.model: one.repository for one in found} == {
        str(model): one.repository for model, one in zip(models, made, strict=True)
    }
    assert {(one.target, one.precision, one.max_length) for one in found} == {("cpu", "int8", LIMITS.max_length)}
    assert all((one.repository / "generate" / "1" / "model.data").is_file() for one in found)
    assert built(tmp_path / "nothing") == ()


def test_a_moved_checkpoint_is_not_served_under_its_old_path(tmp_path: Path) -> None:
    model, tiny, tools = write_checkpoint(tmp_path / "old" / "m.gguf"), settings(tmp_path), TinyTools()
    plan = BuildPlan(model=str(model), precision="int8", limits=LIMITS)
    tools.build(plan, tiny)
    (tmp_path / "new").mkdir()
    model.replace(tmp_path / "new" / "m.gguf")
    with pytest.raises(FileNotFoundError):  # what the tiny tools say of a file that is gone
        tools.build(plan, tiny)
    write_checkpoint(model, seed=1)
    assert not tools.build(plan, tiny).unchanged
    tools.calls.clear()
    moved = tools.build(BuildPlan(model=str(tmp_path / "new" / "m.gguf"), precision="int8", limits=LIMITS), tiny)
    assert tools.calls == ["fetch"], "the same bytes need no second compilation"
    assert moved.repository.parent.parent != folder_of(str(model), "cpu", tiny.build_dir).parent
