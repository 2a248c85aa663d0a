"""What is the same in many cases is tried once: a tokenizer, templates, the graph of a model.

A damaged checkpoint has most of that from the sound one. The trial of texts is that of `text_checks`, with its bounds, but in a
process forked off one that has all that it imports.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import triune_builder.dry_run
from triune_builder.checkpoint import Checkpoint
from triune_builder.errors import BuildError
from triune_builder.graph.promises import settled_config
from triune_builder.inputs import Settings
from triune_builder.plan import BuildPlan
from triune_builder.progress import Display
from triune_builder.text_trial import bound, findings, try_templates, try_tokenizer
from triune_runtime.text.tools import format_of

Known = dict[str, dict[str, str]]  # what was tried, as a hash -> what was found: a message and a hint, or nothing
_write = triune_builder.dry_run._write
_BOUNDS = (-signal.SIGXCPU, -signal.SIGABRT, -signal.SIGKILL)  # how a trial ends that takes too much


class BrokenTrial(Exception):
    """A trial ended as none should."""


def check_texts(checkpoint: Checkpoint, known: Known, new: Known) -> None:
    """As `check_text`, but what is in `known` is not tried again; what is tried is put into `new`.

    Raises:
        BuildError: as `check_text`.
        BrokenTrial: the trial ended neither by itself nor by its bounds.
    """
    vocab_size = checkpoint.config.get("vocab_size")
    template, tool_template = checkpoint.chat_template, checkpoint.tool_template
    job = {
        "tokenizer": checkpoint.tokenizer_json,
        "vocab_size": vocab_size if isinstance(vocab_size, int) else 0,
        "chat_template": template,
        "tool_template": tool_template,
        "special_tokens": checkpoint.special_tokens,
    }
    parts = {
        _name(job["tokenizer"], job["vocab_size"], format_of(template).markers): try_tokenizer,
        _name(template, tool_template, _read(checkpoint.special_tokens, f"{template}{tool_template}")): try_templates,
    }
    if not any(known.get(name) for name in parts) and (left := {name: parts[name] for name in parts if name not in known}):
        new |= (tried := _tried(job, left))
        known = known | tried
    if found := next((known[name] for name in parts if known.get(name)), None):
        raise BuildError(found["message"], found["hint"])


def write_once(
    plan: BuildPlan, why: str, settings: Settings, checkpoint: Checkpoint, display: Display, *, known: Known, new: Known
) -> None:
    """What a dry run does once all is checked, the float graph above all; of the checkpoint it reads what makes the name.

    That the estimate is of one precision or another matters little: whether each can be made is told before.
    """
    _, cfg = settled_config(checkpoint.config, checkpoint.weights.keys())
    weights = [(name, type(tensor).__name__, tensor.dtype, tensor.shape) for name, tensor in checkpoint.weights.items()]
    name = _name(asdict(plan.limits), why, str(checkpoint.config.get("model_type")), repr(cfg), weights)
    if name not in known:
        _write(plan, why, settings, checkpoint, display)
        new[name] = {}


def _read(special_tokens: Mapping[str, str], templates: str) -> dict[str, str]:
    """The tokens that templates can read: those they name."""
    return {name: token for name, token in special_tokens.items() if name in templates}


def _name(*what: Any) -> str:
    return sha256(json.dumps(what).encode()).hexdigest()


def _tried(job: dict[str, Any], parts: Mapping[str, Callable[[dict[str, Any]], None]]) -> Known:
    """What each of the parts finds, up to the first that finds something."""
    with os.fdopen(os.memfd_create("findings"), "w+b") as file:
        process = os.fork()
        if process == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                bound(len(json.dumps(job)))
                for part in parts.values():
                    file.write(json.dumps(found := findings(job, part)).encode() + b"\n")
                    file.flush()
                    if found:
                        break
            finally:
                os._exit(0)
        _, status = os.waitpid(process, 0)
        file.seek(0)
        said = [json.loads(line) for line in file.read().splitlines()]
    if len(said) < len(parts) and not any(said):
        number = os.waitstatus_to_exitcode(status)
        if number not in _BOUNDS:
            raise BrokenTrial(f"the trial of the texts ended with {number}")
        said.append({"message": f"the trial of the texts ended with {number}", "hint": "as `text_checks` says it"})
    return dict(zip(parts, said, strict=False))
