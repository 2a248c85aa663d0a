"""Random schemas, with SmolLM2's tokenizer and a random sampler. Run: pytest tests/runtime/test_schemas.py"""

from __future__ import annotations

import json
import random

import jsonschema
import numpy as np
import pytest

from fakes.schemas import draw, random_schema
from support.real_server import REPOSITORY
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.constraints.guide import json_schema
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request
from triune_runtime.text.tokenizer import load_token_bytes
from triune_runtime.text.vocabulary import TokenBytes


@pytest.fixture(scope="module")
def smollm2() -> tuple[EngineManifest, TokenBytes]:
    folder = REPOSITORY / "generate" / "1"
    if not folder.exists():
        pytest.fail(f"no engine in {folder}: run `make engine`")
    manifest = EngineManifest.load(folder)
    return manifest, load_token_bytes(folder, manifest)


def test_200_random_schemas_hold_with_a_random_sampler(smollm2: tuple[EngineManifest, TokenBytes]) -> None:
    manifest, table = smollm2
    compiler, generator = ConstraintCompiler(manifest, table), np.random.default_rng(7)
    finished = 0
    for number in range(200):
        schema = random_schema(random.Random(number))
        made = compiler.make(json_schema("x", schema), Request(key=1, prompt=(1,)))
        answer = draw(made, table, manifest.vocab_size, generator, 1500)
        if answer is not None:
            finished += 1
            jsonschema.validate(json.loads(answer), schema)
    assert finished >= 190
