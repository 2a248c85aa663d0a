"""Asks a published engine for a token, with the server's own classes but without a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from triune_runtime.errors import RequestError, TriuneError
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request, SamplingParams
from triune_runtime.serving.prompts import PromptService
from triune_runtime.starting import step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.tokenizer import load_token_bytes

_USER, _SYSTEM = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}


def ask(folder: Path) -> str:
    """The text of an engine's first token.

    Raises:
        Exception: there is none.
    """
    manifest = EngineManifest.load(folder)
    service = PromptService.load(folder)
    prompts = [_prompt(service, {"text_input": b"Hi"})]
    if manifest.chat_template is not None:  # which may refuse what it does not like
        prompts += [_prompt(service, {"messages": json.dumps(chat).encode()}) for chat in ([_USER], [_SYSTEM, _USER])]
    sent = [ids for ids in prompts if 0 < len(ids) < manifest.limits.max_length]
    table = load_token_bytes(folder, manifest)
    loop = step_loop(manifest, make_runner(manifest, folder), table)
    loop.start()
    one = SamplingParams(max_tokens=1, ignore_eos=True)
    for key, ids in enumerate([*sent, (0,)]):
        loop.submit_group([Request(key=key, prompt=ids, params=one)])
    told = ""
    while loop.has_work:
        for event in loop.step():
            if isinstance(event.item, TriuneError):
                raise event.item
            told += table.text(list(event.item.cut.token_ids), 0) if event.item.cut.token_ids else ""
    loop.close()
    return f"{len(sent) + 1} prompts, {told!a}"


def _prompt(service: PromptService, inputs: dict[str, bytes]) -> tuple[int, ...]:
    """The ids of a prompt; none where it is refused."""
    try:
        ids, _ = service.prompt({name: np.array([value], np.object_) for name, value in inputs.items()}, {})
    except RequestError:
        return ()
    return tuple(int(one) for one in ids)
