"""Changes to a checkpoint's files as such: missing, spare, of another checkpoint, or no files at all."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

from .bases import GGUF, bases


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.open(path.parent, os.O_RDONLY)  # a socket's path may have no more than 107 bytes
        try:
            one.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


def _hollow(path: Path) -> None:
    path.touch()
    os.truncate(path, 64 << 30)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


# What may lie where a file should: in words -> how it is put there.
THINGS: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a folder": lambda path: path.mkdir(),
    "64 GB of nothing": _hollow,
    "a link to /dev/zero": _link("/dev/zero"),
    "a link to /dev/null": _link("/dev/null"),
    "a link to /dev/urandom": _link("/dev/urandom"),
    "a link to nothing": _link("../blobs/gone"),
    "a link to itself": _link("."),
    "a link to a folder": _link(".."),
    "a link to /proc/self/mem": _link("/proc/self/mem"),
    "a link to /etc/passwd": _link("/etc/passwd"),
    "a link to a name with \x1b": _link("\x1b[2J"),
}
Content = bytes | str  # bytes of a file, or one of `THINGS`


def change_files(files: dict[str, Content], dice: random.Random) -> str:
    """Change which files there are; returns what was done."""
    name = dice.choice(sorted(files))
    match dice.randrange(6):
        case 0:
            files[name] = dice.choice(sorted(THINGS))
            return f"{name} is {files[name]!a}"
        case 1:
            if name == GGUF:
                return "nothing"
            del files[name]
            return f"{name} gone"
        case 2:
            other = dice.choice(sorted(bases()))
            there = [n for n in bases()[other] if n != GGUF and (n in files or dice.random() < 0.3)]
            if not there or GGUF in files:
                return "nothing"
            taken = dice.choice(there)
            files[taken] = bases()[other][taken]
            return f"{taken} is that of {other}"
        case 3:
            one, other = dice.choice(sorted(files)), dice.choice(sorted(files))
            files[one], files[other] = files[other], files[one]
            return f"{one} and {other} change places"
        case 4:
            spare = dice.choice(
                [
                    "other.safetensors",
                    "model.safetensors",
                    "model.safetensors.index.json",
                    "chat_template.jinja",
                    "chat_template.json",
                    "pytorch_model.bin",
                    "adapter_config.json",
                    "\x1b[31m.safetensors",
                    "a\nb.safetensors",
                ]
            )
            content = files[name] if GGUF not in files else b""
            files[spare] = dice.choice([content, b"", b"{}", dice.choice(sorted(THINGS))])
            return f"{spare!a} added"
        case _:
            return _misled(files, dice)


def _misled(files: dict[str, Content], dice: random.Random) -> str:
    """An index that names other places."""
    index = "model.safetensors.index.json"
    shards = [n for n in files if n.endswith(".safetensors")]
    try:
        content = files[index]
        raw = json.loads(content if isinstance(content, bytes) else b"")
        places = raw["weight_map"]
        names = sorted(places)
    except (KeyError, ValueError, TypeError, RecursionError):
        return "nothing"
    if not names or not isinstance(places, dict):
        return "nothing"
    place = dice.choice(
        ["../../x.safetensors", "/etc/passwd", "", ".", "\x1b.safetensors", *shards, *(f"./{n}" for n in shards), 5, None]
    )
    for name in names if dice.random() < 0.3 else [dice.choice(names)]:
        places[name] = place
    files[index] = json.dumps(raw).encode()
    return f"weights lie in {place!a}"
