"""vLLM in one process, several, and on two machines that are one: the tokens of transformers in float32. Run: make test-vllm"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers

from fakes.repository import train_tokenizer
from support.real_server import free_port
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import plan_of
from triune_builder.repository.assemble import ENGINE_FOLDER
from triune_runtime.errors import DeviceLost, ManifestError
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Chunk, Event, Request, SamplingParams
from triune_runtime.targets.target import Hosting
from triune_runtime.targets.vllm.child import Host
from triune_runtime.targets.vllm.generator import VllmGenerator
from triune_runtime.targets.vllm.hosting import start
from triune_runtime.targets.vllm.joining import join
from triune_runtime.targets.vllm.meeting import VARIABLE
from triune_runtime.text.tokenizer import load_token_bytes

ROOT = Path(__file__).parents[2]
NANO = ROOT / "models/r1-nano/checkpoint"
COUNT = 24
SPLITS: dict[str, dict[str, int]] = {
    "one process": {},
    "two share each layer": {"tensor_parallel": 2},
    "two share the layers out": {"pipeline_parallel": 2},
    "two machines share each layer": {"tensor_parallel": 2, "nodes": 2},
    "two machines share the layers out": {"pipeline_parallel": 2, "nodes": 2},
}


@dataclasses.dataclass
class Model:
    """An engine of target vllm, prompts, and the tokens that the float model answers them with."""

    folder: Path
    prompts: list[list[int]]
    wanted: list[list[int]]


def _model(checkpoint: Path, reference: Any, prompts: list[list[int]], work: Path) -> Model:
    wanted = []
    for prompt in prompts:
        with torch.no_grad():
            found = reference.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
                min_new_tokens=COUNT, max_new_tokens=COUNT, eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        wanted.append(found[0, len(prompt) :].tolist())
    asked = {"model": str(checkpoint), "target": "vllm", "precision": "fp32", "max_length": 256, "max_sequences": 4}
    built = build(plan_of(asked), Settings(build_dir=work))
    return Model(built.repository / ENGINE_FOLDER, prompts, wanted)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random Llama of two layers."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = train_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, eos_token_id=0, bos_token_id=None,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(1)
    reference = transformers.LlamaForCausalLM(config).float().eval()
    reference.save_pretrained(folder / "tiny")
    tokenizer.save(str(folder / "tiny/tokenizer.json"))
    prompts = [[20, 30, 40], [50, 51, 52, 53, 54, 55], list(range(60, 100))]
    return _model(folder / "tiny", reference, prompts, folder / "build")


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """r1-nano, which a build rewrites to sizes that vLLM has kernels for; what it must answer is what the original does."""
    folder = tmp_path_factory.mktemp("nano")
    reference = transformers.DeepseekV3ForCausalLM.from_pretrained(NANO, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(NANO / "tokenizer.json"))
    prompts = [tokenizer.encode(text) for text in ("What is 12 + 30?", "What is 487 * 36?", "Which is larger, 8 or 12?")]
    return _model(NANO, reference, prompts, folder / "build")


@contextmanager
def served(model: Model, command: Sequence[str], **plan: Any) -> Iterator[VllmGenerator]:
    """By one process, or several; of two machines by this one, too."""
    if plan.get("nodes", 1) == 1:
        with leading(model, command, **plan) as generator:
            yield generator
        return
    with another(model, command, **plan) as there, leading(there, command) as generator:
        yield generator


@contextmanager
def another(model: Model, command: Sequence[str], **plan: Any) -> Iterator[Model]:
    """A second machine, as far as one can be it, and the engine for two."""
    with tempfile.TemporaryDirectory() as work, pytest.MonkeyPatch.context() as patch:
        folder = Path(work) / "engine"
        shutil.copytree(model.folder, folder)
        manifest = EngineManifest.load(folder)
        dataclasses.replace(manifest, plan=manifest.plan | plan).save(folder)
        master, stop = f"127.0.0.1:{free_port(in_a_row=2)}", threading.Event()
        patch.setenv(VARIABLE, master)
        thread = threading.Thread(target=join, args=(folder, master, 1, stop, os.environ, [*command[:-1], "node"]))
        thread.start()
        try:
            yield dataclasses.replace(model, folder=folder)
        finally:
            stop.set()
            thread.join()


@contextmanager
def leading(model: Model, command: Sequence[str], **plan: Any) -> Iterator[VllmGenerator]:
    manifest = EngineManifest.load(model.folder)
    manifest = dataclasses.replace(manifest, plan=manifest.plan | plan)
    generator = start(
        Hosting(
            manifest=manifest, folder=model.folder, token_bytes=load_token_bytes(model.folder, manifest), prefix_caching=True,
            client_sequences=None,
        ),
        command,
    )  # fmt: skip
    try:
        yield generator
    finally:
        generator.close()


def asked(prompt: Sequence[int], key: int, count: int = COUNT) -> Request:
    return Request(key=key, prompt=tuple(prompt), params=SamplingParams(max_tokens=count, ignore_eos=True), stream=False)


def answers(generator: VllmGenerator, model: Model) -> list[list[int]]:
    """The tokens of all prompts, served together."""
    events: list[Event] = []
    for key, prompt in enumerate(model.prompts):
        generator.submit_group([asked(prompt, key)])
    end = time.monotonic() + 300
    while generator.has_work:
        events += generator.step()
        assert time.monotonic() < end, "it does not come to an end"
    found: list[list[int]] = [[] for _ in model.prompts]
    for event in events:
        assert isinstance(event.item, Chunk), event.item
        found[event.key] += event.item.cut.token_ids
    return found


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["llama", "nano"])
def test_the_tokens_are_those_of_the_float_model_however_it_is_split(
    name: str, split: str, vllm_command: list[str], request: pytest.FixtureRequest
) -> None:
    model: Model = request.getfixturevalue(name)
    with served(model, vllm_command, **SPLITS[split]) as generator:
        assert answers(generator, model) == model.wanted


def test_an_abort_frees_within_a_second_and_a_killed_engine_answers_everyone(llama: Model, vllm_command: list[str]) -> None:
    with served(llama, vllm_command) as generator:
        generator.submit_group([asked(llama.prompts[0], 1, 200)])
        while not generator.snapshot().decoding:
            generator.step()
        began = time.monotonic()
        (ended,) = generator.abort(1)
        assert isinstance(ended.item, Chunk) and ended.item.finish_reason == "cancelled"
        while generator.has_work:
            generator.step()
        assert time.monotonic() - began < 1
        generator.submit_group([asked(llama.prompts[0], 2, 200)])
        assert isinstance(generator._engine, Host)
        cores = [p for p in psutil.process_iter() if _group(p) == generator._engine.pid]
        core = next(p for p in cores if p.ppid() != generator._engine.pid and p.pid != generator._engine.pid)
        os.kill(core.pid, signal.SIGKILL)
        with pytest.raises(DeviceLost):
            _step_for_ever(generator)


def _node() -> int:
    """The process group of the second machine's part."""
    return next(one.pid for one in psutil.Process().children() if "node" in one.cmdline())


@pytest.mark.parametrize(("sign", "said"), [(signal.SIGSTOP, "has made no step"), (signal.SIGKILL, "machine 1")])
def test_a_machine_that_stands_still_or_dies_answers_everyone_and_the_engine_is_back_when_it_is(
    sign: signal.Signals, said: str, llama: Model, vllm_command: list[str], record_property: Any
) -> None:
    with another(llama, vllm_command, pipeline_parallel=2, nodes=2) as model:
        with leading(model, vllm_command) as generator:
            generator.submit_group([asked(model.prompts[0], 1, 200)])
            while not generator.snapshot().decoding:
                generator.step()
            os.killpg(_node(), sign)
            began = time.monotonic()
            with pytest.raises(DeviceLost, match=said):
                _step_for_ever(generator)
            record_property("seconds", time.monotonic() - began)
            print(f"{sign.name}: known after {time.monotonic() - began:.1f} s")
        with leading(model, vllm_command) as generator:
            assert answers(generator, model) == model.wanted


def _step_for_ever(generator: VllmGenerator) -> None:
    while True:
        generator.step()


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1


def test_memory_that_is_not_there_is_told_in_a_sentence(llama: Model, vllm_command: list[str]) -> None:
    with (
        pytest.raises(ManifestError, match=r"vLLM does not start: ValueError: .*kv cache"),
        served(llama, vllm_command, kv_bytes=1 << 42),
    ):
        pass
