"""triune.toml and the environment: what they say of the settings, checked before anything is done."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ServerError
from .settings import ENVIRONMENT, Setting

FILE = Path("triune.toml")  # where a command runs
OF_A_MODEL = (  # what each of several models may have of its own
    "model", "name", "target", "precision", "max_length", "max_sequences", "prefill_chunk", "verify", "rounding",
    "calibration", "speculation",
)  # fmt: skip
CONFIG_VARIABLE = "TRIUNE_CONFIG"


@dataclass(frozen=True, kw_only=True)
class Configured:
    """What was said of settings other than by options."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]  # of each value: the file's name, or ENVIRONMENT


def configured(file: Path | None, environment: Mapping[str, str], settings: Mapping[str, Setting]) -> Configured:
    """The values that the environment says, or else the file.

    Args:
        file: by default the one that TRIUNE_CONFIG names, or triune.toml here if there is one.

    Raises:
        ServerError: a file that is named is not there or is no TOML, or a value is not what its setting takes.
    """
    if file is None and environment.get(CONFIG_VARIABLE):
        file = Path(os.path.expanduser(environment[CONFIG_VARIABLE]))  # noqa: PTH111
    if file is None and FILE.exists():
        file = FILE
    values = {} if file is None else read(file, settings)
    origins = dict.fromkeys(values, str(file))
    for name, setting in settings.items():
        if text := environment.get(setting.environment):
            values[name], origins[name] = setting.parse(text), ENVIRONMENT
    return Configured(values=values, origins=origins)


def read(file: Path, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The values in a file, by their settings' names.

    Raises:
        ServerError: it cannot be read, is no TOML, or holds a key or a value that no setting has.
    """
    try:
        raw = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ServerError(f"{file} cannot be read: {error.strerror}", "name a file that is there: --config FILE") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ServerError(f"{file} is no TOML: {error}", "docs/configuration.md shows one") from None
    if "models" in settings and _is_tables(raw.get("models")):
        raw["models"] = [_entry(table, settings, file) for table in raw["models"]]
    return {name: _known(name, settings, file).check(value, f"{name} in {file}") for name, value in raw.items()}


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _entry(table: Mapping[str, Any], settings: Mapping[str, Setting], file: Path) -> str:
    """A table of [[models]], checked, as `Values.of_model` takes it."""
    own = {name: setting for name, setting in settings.items() if name in OF_A_MODEL}
    for name, value in table.items():
        _known(name, own, file).check(value, f"{name} in a [[models]] of {file}")
    if "model" not in table:
        raise ServerError(f"a [[models]] of {file} has no model", "add: model = ...")
    return json.dumps(dict(table))


def _known(name: str, settings: Mapping[str, Setting], file: Path) -> Setting:
    if name not in settings:
        raise ServerError(f"{file} has {name!r}, which is no setting", did_you_mean(name.lower().replace("-", "_"), settings))
    return settings[name]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest of the known names, or with all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
