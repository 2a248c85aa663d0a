"""Writes what is made from the declarations: `make contracts`. Nothing here is read by a server; a test tells what is stale.

Whole files: the models' configs, and the client's table. Marked blocks: the fields of `SamplingParams` and `Options`, and the
documentation's tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..options.declared import FIELDS, NAMES, SECTIONS
from ..options.rows import Alias, Elsewhere, Name, Only, Option, Prescribes, Refused
from ..options.values import BIG, UINT64
from .configs import configs
from .models import ENSEMBLES, ONE_RESPONSE, STEPS
from .outputs import OUTPUTS

_PYTHON = "    # written by `make contracts` from options/declared.py: {}\n"
_PAGE = "<!-- written by `make contracts`: {} -->\n"


def written(root: Path) -> dict[Path, str]:
    """Every file that is made, in whole or in part, and its text as it should be. Marked blocks stand in what is there."""
    models = root / "model_repository"
    files = {models / name / "config.pbtxt": text for name, text in configs().items()}
    files |= {models / one.name / "1" / ".gitkeep": "" for one in ENSEMBLES}
    files[root / "clients" / "triune_client" / "_declared.py"] = client_table()
    runtime = root / "runtime" / "triune_runtime"
    blocks: dict[Path, tuple[str, Callable[[], str]]] = {
        runtime / "request.py": (_PYTHON, lambda: fields(sampling=True)),
        runtime / "options" / "wire.py": (_PYTHON, lambda: fields(sampling=False)),
        root / "docs" / "options.md": (_PAGE, reference),
        root / "docs" / "compatibility.md": (_PAGE, models_table),
        root / "clients" / "README.md": (_PAGE, client_options),
    }
    return files | {path: _with_block(path, mark, make()) for path, (mark, make) in blocks.items()}


def links(root: Path) -> dict[Path, str]:
    """The programs of models that have another's, and where they lead."""
    shared = {"tokenize_2d": "tokenize"} | {one.name: one.program for one in ONE_RESPONSE if one.program}
    return {root / "model_repository" / name / "1" / "model.py": f"../../{of}/1/model.py" for name, of in shared.items()}


def stale(root: Path) -> list[Path]:
    """What is not as it should be: to be written anew, or a model's folder that is not declared."""
    texts = [path for path, text in written(root).items() if not path.is_file() or path.read_text("utf-8") != text]
    led = [path for path, target in links(root).items() if not path.is_symlink() or str(path.readlink()) != target]
    declared = {*STEPS, *configs()}
    return [*texts, *led, *(path for path in sorted((root / "model_repository").iterdir()) if path.name not in declared)]


def write(root: Path) -> list[Path]:
    """Write what is stale; the paths. Folders that are not declared stay."""
    wanted = stale(root)
    for path, text in written(root).items():
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    for path, target in links(root).items():
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
    return wanted


def _with_block(path: Path, mark: str, block: str) -> str:
    text = path.read_text("utf-8")
    begin, end = mark.format("begin"), mark.format("end")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(
            f"{path} has not one line {begin.strip()!r} and one line {end.strip()!r}; put them where the block is to be"
        )
    before, _, rest = text.partition(begin)
    return before + begin + block + end + rest.partition(end)[2]


def fields(*, sampling: bool) -> str:
    """The fields of `SamplingParams`, or of `Options`, as Python writes them."""
    lines = []
    for one in FIELDS.values():
        if one.sampling == sampling:
            annotation = one.reader.annotation + (" | None" if one.default is None else "")
            lines.append(f"    {one.name}: {annotation} = {_python(one.default)}  # {one.says}\n")
    return "".join(lines)


def _python(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def client_table() -> str:
    """The client's own module: it must not need the runtime."""
    rows = {_client_name(row): row for row in NAMES.values() if row.client}
    scalars = [f'    "{name}": "{row.tensor}",\n' for name, row in rows.items() if row.dims == (1,)]
    lists = [f'    "{name}": "{row.tensor}",\n' for name, row in rows.items() if row.dims != (1,)]
    renamed = [f'    "{name}": "{row.name}",\n' for name, row in rows.items() if name != row.name]
    return (
        '"""Options and the tensors that they are sent as. Written by `make contracts`, from the server\'s declaration."""\n\n'
        f"SCALARS = {{  # option -> datatype\n{''.join(scalars)}}}\n"
        f"LISTS = {{  # the same of those with several values\n{''.join(lists)}}}\n"
        f"TENSORS = {{  # options whose tensor has another name\n{''.join(renamed)}}}\n"
    )


def _client_name(row: Name) -> str:
    return (row.sets or row.name) if isinstance(row, Option) else row.name


def client_options() -> str:
    """The client's options, but those that it makes JSON of."""
    rows = [row for row in NAMES.values() if isinstance(row, Option) and row.client]
    return _table("option | meaning", [f"`{_client_name(row)}` | {row.says}" for row in rows])


def models_table() -> str:
    """The models that clients name."""
    rows = [f"`{e.name}` | {e.clients} | `{'[rows, 1]' if e.rows else '[1]'}` | {e.answers}" for e in ENSEMBLES]
    whole = ", ".join(f"`{one.name}`" for one in ONE_RESPONSE)
    asked = ", ".join(f"`{one.ensemble}`" for one in ONE_RESPONSE)
    rows.append(f"{whole} | HTTP `/infer` and gRPC ModelInfer | as {asked} | one response")
    return _table("model | for clients of | tensors | answers", rows)


def reference() -> str:
    """Every name that a request may carry, and every tensor of a response."""
    parts = []
    for title, rows in SECTIONS.items():
        told = [_told(row) for row in rows if isinstance(row, (Option, Prescribes, Only, Elsewhere)) and not row.inner]
        refused = [f"`{row.name}`" for row in rows if isinstance(row, Refused)]
        table = _table("name | tensor | values | what it says | API | client", told) if told else ""
        parts.append(f"### {title[0].upper()}{title[1:]}\n\n{table}")
        if refused:
            parts.append(f"{'Refused' if told else 'Refused by name'}: {', '.join(refused)}.\n")
    outputs = [f"`{one.name}` | {one.type} {_shape(one.dims)} | {one.says}" for one in OUTPUTS.values() if not one.inner]
    parts.append("### What comes back: the tensors of a response\n\n" + _table("name | tensor | what it says", outputs))
    return "\n" + "\n".join(parts) + "\n"


def _told(row: Name) -> str:
    also = [f"`{one.name}`" for one in NAMES.values() if isinstance(one, Alias) and one.of == row.name and not one.inner]
    names = f"`{row.name}`" + (f" ({', '.join(also)})" if also else "")
    tensor = f"{row.tensor} {_shape(row.dims)}" if row.tensor else ""
    values, says = "", ""
    if isinstance(row, Only):
        values = " or ".join(str(value).lower() for value in row.allowed) + " only"
    elif isinstance(row, Option):
        values, says = row.reader.values.replace(str(BIG), "2^31 - 1").replace(str(UINT64), "2^64 - 1"), row.says
    elif isinstance(row, (Prescribes, Elsewhere)):
        says = row.says
    api, client = ("yes" if known else "" for known in (row.openai, row.client))
    return f"{names} | {tensor} | {values} | {says} | {api} | {client}"


def _shape(dims: tuple[int, ...]) -> str:
    return f"`[{', '.join(map(str, dims))}]`"


def _table(head: str, rows: list[str]) -> str:
    rule = "|".join("---" for _ in head.split("|"))
    return "".join(f"| {line} |\n" for line in [head]) + f"|{rule}|\n" + "".join(f"| {line} |\n" for line in rows)


if __name__ == "__main__":
    for made in write(Path(__file__).parents[3]):
        print(made)
