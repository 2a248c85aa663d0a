"""What a build depends on, as hashes: files by content, our own code, the tools' versions. Imports none of the tools."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import BuildError

_PIECE = 4 << 20  # bytes that are hashed at once
TOOLS = ("gguf", "ml-dtypes", "numpy", "onnx", "onnx-ir", "safetensors", "tokenizers")


def digest(value: Any) -> str:
    """Hash of a JSON-like value; the same for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def tool_versions(of_target: Iterable[str] = ()) -> dict[str, str]:
    """Installed versions of the packages that decide what an engine looks like; the missing are left out.

    Args:
        of_target: those that count beside the common ones.
    """
    versions = {}
    for name in sorted({*TOOLS, *of_target}):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_files(root: Path) -> Iterator[Path]:
    """Files under `root` (or `root` itself), sorted, without caches and hidden files.

    Raises:
        BuildError: nothing there.
    """
    if root.is_file():
        yield root
        return
    if not root.is_dir():
        raise BuildError(f"{root} does not exist", "run from a checkout of the project, or name the folder that holds it")
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n != "__pycache__" and not n.startswith("."))
        yield from (Path(folder) / f for f in sorted(files) if not f.endswith((".pyc", ".pyo")) and not f.startswith("."))


def code_hash(roots: Iterable[Path]) -> str:
    """Hash of the files under `roots`: their names and contents."""
    listing = []
    for root in roots:
        base = root if root.is_dir() else root.parent
        for path in source_files(root):
            listing.append([path.relative_to(base).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()])
    return digest(listing)


def sha256(path: Path, tell: Callable[[int], None] = lambda count: None) -> str:
    """Hash of the contents of `path`; `tell` gets the bytes of each piece that was read."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
            tell(len(piece))
    return hashed.hexdigest()


class FileHashes:
    """Content hashes of files, remembered in one JSON file: one unchanged in size and time is not read again.

    Nor is a hard link to a file that was read: it has the same number in its file system, and the same size and time.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known: dict[str, list[Any]] = {}  # path -> [size, mtime_ns, sha256, number]
        self._by_number: dict[tuple[int, int, int], str] = {}  # (number, size, mtime_ns) -> sha256
        self._changed = False
        try:
            known = json.loads(memory.read_text("utf-8"))
        except (OSError, ValueError):
            return  # nothing remembered, or half a file: hash anew
        if isinstance(known, dict):
            self._known = known
        for entry in self._known.values():
            match entry:
                case [int(size), int(mtime), str(found), int(number)]:
                    self._by_number[number, size, mtime] = found

    def sha256(self, path: Path, tell: Callable[[int], None] = lambda count: None) -> str:
        """Hash of the contents of `path`; `tell` gets the bytes of each piece that had to be read.

        Raises:
            OSError: it cannot be read.
        """
        key, stat = str(path.resolve()), path.stat()
        match self._known.get(key):
            case [size, mtime, str(found), *_] if (size, mtime) == (stat.st_size, stat.st_mtime_ns):
                return found
        same = stat.st_ino, stat.st_size, stat.st_mtime_ns
        sha = self._by_number.get(same) if stat.st_nlink > 1 else None
        sha = sha or sha256(path, tell)
        self._known[key] = [stat.st_size, stat.st_mtime_ns, sha, stat.st_ino]
        self._by_number[same] = sha
        self._changed = True
        return sha

    def save(self) -> None:
        """Remember what was hashed; forgets files that are gone."""
        if not self._changed:
            return
        self._known = {path: entry for path, entry in self._known.items() if Path(path).exists()}
        write_atomically(self._memory, json.dumps(self._known, indent=1))
        self._changed = False


def listing(root: Path) -> Mapping[str, list[int]]:
    """Size and time of every file directly in the folder `root`, or of the file `root`; empty if there is none."""
    if root.is_file():
        return {str(root.resolve()): _stamp(root)}
    if root.is_dir():
        return {p.name: _stamp(p) for p in sorted(root.iterdir()) if p.is_file()}
    return {}


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def write_atomically(path: Path, text: str) -> None:
    """Write `path` beside and rename: readers see the old contents or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    beside.write_text(text, "utf-8")
    beside.replace(path)
