"""Log probabilities of prompts from fp32 engines against transformers' own, through the loop that serves.

Run: pytest tests/builder/test_prompt_logprobs_torch.py (needs torch and transformers, and skips without)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes.engines import make_engine
from fakes.tiny_dense import dense_checkpoint
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.starting import step_loop
from triune_runtime.text.vocabulary import TokenBytes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KINDS = {"llama": {}, "qwen3": {}, "mistral": {"sliding_window": 16}}
CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen3": "Qwen3"}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_prompts_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    checkpoint = dense_checkpoint(kind, seed=3, head_dim=16, **KINDS[kind])
    engine = make_engine(checkpoint, "fp32", tmp_path)
    loop = step_loop(engine.manifest, engine.runner, TokenBytes([b"x"] * 256))
    random = np.random.default_rng(5)
    texts = [tuple(random.integers(1, 256, length).tolist()) for length in (2, 9, 40, 101)]
    for key, prompt in enumerate(texts):
        loop.submit(Request(key=key, prompt=prompt, params=SamplingParams(max_tokens=1, prompt_logprobs=5)))
    events = []
    while loop.has_work:
        events += loop.step()
    config = dict(checkpoint.config)
    if config.get("rope_scaling") is not None:
        config["rope_parameters"] = config.pop("rope_scaling") | {"rope_theta": config["rope_theta"]}
    made = getattr(transformers, f"{CLASSES[kind]}Config")(**config, attn_implementation="eager")
    model = getattr(transformers, f"{CLASSES[kind]}ForCausalLM")(made).eval()
    state = {name: torch.tensor(tensor.array) for name, tensor in checkpoint.weights.items()}
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state, strict=True)
    for event in events:
        assert isinstance(event.item, Chunk)
        prompt = texts[event.key]
        with torch.no_grad():
            rows = torch.log_softmax(model(torch.tensor([prompt])).logits[0].double(), -1).numpy()
        found = [entry.logprob for entry in event.item.scores]
        assert found == pytest.approx([rows[at, token] for at, token in enumerate(prompt[1:])], abs=1e-3)
        for entry, row in zip(event.item.scores, rows, strict=False):
            assert [value for _, value in entry.top] == pytest.approx(np.sort(row)[::-1][:5].tolist(), abs=1e-3)
    assert {event.key for event in events} == set(range(len(texts)))
