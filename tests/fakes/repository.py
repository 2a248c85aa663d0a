"""A whole model repository over the fake runner, with a byte-level tokenizer trained here: everything but a real engine."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from triune_runtime.manifest import CacheTensor, EngineManifest, Limits

from .host_engines import as_tensorrt

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "model_repository"
DEFAULT_LIMITS = Limits()
END_OF_TURN = "<|end|>"
CHAT_TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
_SAMPLE = "the quick brown fox jumps over the lazy dog and says hello to the world. 你好，世界！ Ça va? 😀 ".split(" ")


def train_tokenizer(vocab_size: int = 320) -> Tokenizer:
    """A byte-level BPE tokenizer; every text can be encoded, and characters beyond ASCII take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SAMPLE * 20, trainer)
    return tokenizer


def fake_engine(folder: Path, limits: Limits = DEFAULT_LIMITS) -> EngineManifest:
    """Write engine.json and tokenizer.json of an engine without a model into `folder`."""
    tokenizer = train_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    manifest = EngineManifest(
        model="fake",
        architecture="fake",
        target="fake",
        precision="fake",
        engine="none",
        vocab_size=tokenizer.get_vocab_size(),
        cache=(),
        stop_token_ids=(tokenizer.token_to_id(END_OF_TURN),),
        chat_template=CHAT_TEMPLATE,
        limits=limits,
    )
    manifest.save(folder)
    return manifest


def fake_repository(path: Path, limits: Limits = DEFAULT_LIMITS) -> Path:
    """The checked-in model repository as Triton mounts it, at `path`, with the fake engine in generate/1."""
    shutil.copytree(TEMPLATE, path, ignore=shutil.ignore_patterns("__pycache__"))
    fake_engine(path / "generate" / "1", limits)
    return path


def tensorrt_repository(path: Path, plan: bytes = b"no real plan") -> Path:
    """The same with a manifest as of a TensorRT engine, whose plan is `plan`."""
    folder = fake_repository(path) / "generate" / "1"
    served = dataclasses.replace(
        EngineManifest.load(folder), engine="model.plan", cache=(CacheTensor(name="0.key", heads=1, dim=8, dtype="float16"),)
    )
    (folder / served.engine).write_bytes(plan)
    as_tensorrt(served, plan_bytes=len(plan), plan_sha256=hashlib.sha256(plan).hexdigest()).save(folder)
    return path
