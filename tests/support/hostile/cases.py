"""A case: a number that, with the seed, decides which checkpoint is damaged and how; and how it comes to lie on a disk."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .bases import GGUF, bases
from .file_changes import THINGS, Content, change_files
from .header_changes import change_gguf, change_safetensors
from .json_changes import change_json, change_text
from .text_changes import change_template, change_tokenizer

SEED = 1
Change = Callable[[bytes, random.Random], tuple[bytes, str]]
PRECISIONS = ("fp32",) * 5 + ("w8a8", "int8", "bf16")
LENGTHS = ("64", "64", "64", "64", "64", "auto", "auto", "2", "1048576")
_SOUND = 0.01  # of the cases nothing is changed: they must build


@dataclass(frozen=True, kw_only=True)
class Case:
    """One checkpoint, and how it is to be built."""

    seed: int
    number: int
    base: str
    files: dict[str, Content]
    done: tuple[str, ...]  # what was changed, in words
    precision: str
    max_length: str
    linked: bool  # as in the hub's cache: names are links to files in a folder beside

    def __str__(self) -> str:
        return f"{self.base}, {self.precision}, {self.max_length} tokens: {'; '.join(self.done) or 'as it is'}"

    def write(self, root: Path) -> Path:
        """The checkpoint below the empty folder `root`; returns its path."""
        folder, blobs = root / "model", root / "blobs"
        folder.mkdir()
        if self.linked:
            blobs.mkdir()
        for number, (name, content) in enumerate(self.files.items()):
            if isinstance(content, str):
                THINGS[content](folder / name)
            elif self.linked:
                (blobs / str(number)).write_bytes(content)
                (folder / name).symlink_to(f"../blobs/{number}")
            else:
                (folder / name).write_bytes(content)
        return folder / GGUF if GGUF in self.files else folder


def case_of(seed: int, number: int) -> Case:
    """The case of that number; always the same."""
    dice = random.Random(f"{seed} {number}")
    base = dice.choice(sorted(bases()))
    files: dict[str, Content] = dict(bases()[base])
    done = []
    if dice.random() >= _SOUND:
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            done.append(_change(files, dice))
    return Case(
        seed=seed, number=number, base=base, files=files, done=tuple(done), precision=dice.choice(PRECISIONS),
        max_length=dice.choice(LENGTHS), linked=dice.random() < 0.2,
    )  # fmt: skip


def _change(files: dict[str, Content], dice: random.Random) -> str:
    if dice.random() < 0.15:
        return change_files(files, dice)
    weights = {"config.json": 12, "tokenizer.json": 5, "tokenizer_config.json": 3, "generation_config.json": 3}
    known = [name for name, content in files.items() if isinstance(content, bytes)]
    if not known:
        return change_files(files, dice)
    name = dice.choices(known, [weights.get(name, 2) for name in known])[0]
    content = files[name]
    assert isinstance(content, bytes)
    try:
        changed, what = _change_of(name, dice)(content, dice)
    except RecursionError:  # an earlier change has nested it
        changed, what = change_text(content, dice)
    files[name] = changed
    return f"{name} {what}"


def _change_of(name: str, dice: random.Random) -> Change:
    if name.endswith(".safetensors"):
        return change_safetensors
    if name.endswith(".gguf"):
        return change_gguf
    if name.endswith(".jinja"):
        return dice.choice([change_template, change_text])
    if name == "tokenizer.json" and dice.random() < 0.6:
        return change_tokenizer
    if name == "tokenizer_config.json" and dice.random() < 0.5:
        return change_template
    return change_json


def empty(root: Path) -> Path:
    """`root` with nothing in it."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    return root
