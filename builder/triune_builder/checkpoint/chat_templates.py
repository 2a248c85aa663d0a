"""Finds a model's chat templates in its folder, as transformers does. Compiles nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import BuildError
from .files import exists, parse_object

DEFAULT, TOOL_USE = "default", "tool_use"
_FILE, _OLD_FILE, _MORE = "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"
_MOST_FILES = 64
TEMPLATE_FILES = (_FILE, _OLD_FILE, _MORE)  # the last a pattern


def read_chat_templates(
    folder: Path, tokenizer_config: Mapping[str, Any], text_of: Callable[[Path], str]
) -> tuple[str | None, str | None]:
    """The template for all chats, and the one for chats with tools if it is another.

    Files of their own count for more than tokenizer_config.json, where there may be one template or several with names. Of
    names, `default` and `tool_use` are used; the only one of several chats is the default whatever its name.

    Args:
        text_of: reads a file.

    Raises:
        BuildError: the templates are not understood, or none is the default.
    """
    config = folder / "tokenizer_config.json"
    files = [*([folder / _FILE] if exists(folder / _FILE) else []), *sorted(folder.glob(_MORE))]
    if len(files) > _MOST_FILES:
        raise BuildError(f"{folder} has {len(files):,} chat templates; at most {_MOST_FILES} are read", "remove the others")
    if files:
        named = {DEFAULT if path.name == _FILE else path.stem: text_of(path) for path in files}
        return _chosen(folder, named)
    entry = tokenizer_config.get("chat_template")
    if entry is None and exists(folder / _OLD_FILE):
        config = folder / _OLD_FILE
        entry = _old(config, text_of(config))
    if entry is None or isinstance(entry, str):
        return entry, None
    hint = "it should be one template, or a list whose entries have a name and a template"
    if not isinstance(entry, list):
        raise BuildError(f"{config} has a chat_template of type {type(entry).__name__}", hint)
    try:
        named = {str(e["name"]): e["template"] for e in entry}
    except (KeyError, TypeError) as error:
        raise BuildError(f"{config} has a chat_template list that is not understood: {error!r}", hint) from error
    strange = [name for name, template in named.items() if not isinstance(template, str)]
    if strange:
        raise BuildError(f"{config} has a chat_template {strange[0]} that is no text", hint)
    return _chosen(config, named)


def _chosen(where: Path, named: Mapping[str, str]) -> tuple[str | None, str | None]:
    if DEFAULT not in named and len(named) != 1:
        raise BuildError(
            f"{where} names its chat templates {', '.join(named) or 'nothing'}; none is default",
            f"put the one to use into {_FILE}",
        )
    default = named.get(DEFAULT, next(iter(named.values())))
    with_tools = named.get(TOOL_USE)
    return default, None if with_tools == default else with_tools


def _old(path: Path, text: str) -> Any:
    found = parse_object(path, text)
    if "chat_template" not in found:
        raise BuildError(f"{path} has no chat_template", "fetch the file again")
    return found["chat_template"]
