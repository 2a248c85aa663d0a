"""An engine's logits and greedy text beside transformers' in float32, which reads the checkpoint by itself.

    PYTHONPATH=runtime:. python -m bench.gpu.reference ENGINE CHECKPOINT [--text FILE ...]

CHECKPOINT is a folder of safetensors or a GGUF file. Each prompt is read as a server reads it, in one run; of the tokens that
the reference answers with the engine is told one after the other, all prompts as a batch, so one early difference makes no
others. Perplexity is of the texts, token by token. Prints one JSON line. Needs torch, transformers; for GGUF gguf, accelerate.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Runner, Work
from triune_runtime.targets import make_runner

Tokens = list[int]
_NEAR = 0.1  # nats between the reference's two best tokens: whatever rounds otherwise may choose the other
_PROMPTS = (
    "The capital of France is", "Water boils at a temperature of", "To make a good cup of tea, first",
    "Here is a poem about the sea:\n", "The three laws of motion are", "Once upon a time, in a small village,",
    "A list of five fruits:\n1.", "The difference between a virus and a bacterium is", "def fibonacci(n):\n",
    "import numpy as np\n\n", "SELECT name, age FROM users WHERE", "for (int i = 0; i < n; i++) {\n",
    "12 + 30 = 42\n15 + 27 =", "The square root of 144 is", "If a train travels 60 miles in an hour, then in three hours",
    "法国的首都是", "今天天气很好，我们", "Die Hauptstadt von Deutschland ist", "La capitale de l'Italie est",
    "Q: What is photosynthesis?\nA:",
)  # fmt: skip


class Reference:
    """The model in float32, on the GPU if there is one."""

    def __init__(self, checkpoint: Path) -> None:
        where: dict[str, Any] = {"gguf_file": checkpoint.name} if checkpoint.is_file() else {}
        folder = checkpoint.parent if checkpoint.is_file() else checkpoint
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **where)
        self._model = model.to(self._device)  # a loaded model is in evaluation mode

    def answer(self, prompt: Tokens, count: int) -> Tokens:
        """The greedy tokens that follow, whatever ends a text."""
        ids = torch.tensor([prompt], device=self._device)
        with torch.no_grad():
            made = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=count, max_new_tokens=count,
                eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        return [int(token) for token in made[0, len(prompt) :]]

    def logits(self, tokens: Tokens) -> NDArray[np.float32]:
        """After each of them, [len(tokens), vocab_size]."""
        with torch.no_grad():
            found: NDArray[np.float32] = self._model(torch.tensor([tokens], device=self._device)).logits[0].cpu().numpy()
        return found


def stepped(runner: Runner, texts: Sequence[Tokens], starts: Sequence[int]) -> list[NDArray[np.float32]]:
    """Of each text the logits after its tokens from `starts` on, one a step, all texts at once in slots 0, 1, ..."""
    rows: list[list[NDArray[np.float32]]] = [[] for _ in texts]
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]) - starts[n], reverse=True)
    assert list(order) == list(range(len(texts))), "the longest first, so that those that go on are the first slots"
    for step in range(len(texts[0]) - starts[0]):
        going = [n for n in range(len(texts)) if starts[n] + step < len(texts[n])]
        made = runner.run([Work(n, starts[n] + step, (texts[n][starts[n] + step],)) for n in going])
        for n, row in zip(going, made, strict=True):
            rows[n].append(row.copy())
    return [np.stack(one) for one in rows]


def compared_answers(runner: Runner, reference: Reference, prompts: Sequence[Tokens], count: int, slots: int) -> dict[str, Any]:
    """How many greedy answers are the reference's, where the others leave it, and how far logits are apart."""
    differ, errors = [], list[float]()
    for group in _groups(prompts, slots):
        texts = [prompt + reference.answer(prompt, count) for prompt in group]
        first = [runner.run([Work(n, 0, tuple(prompt))])[0].copy() for n, prompt in enumerate(group)]
        rest = stepped(runner, [text[:-1] for text in texts], [len(prompt) for prompt in group])
        for prompt, text, row, rows in zip(group, texts, first, rest, strict=True):
            ours, theirs = np.vstack([row, rows]), reference.logits(text)[len(prompt) - 1 : -1]
            errors += (np.abs(ours - theirs).max(1) / np.abs(theirs).max(1)).tolist()
            wrong = np.flatnonzero(ours.argmax(1) != theirs.argmax(1))
            if len(wrong):
                at = int(wrong[0])
                lost = float(theirs[at].max() - theirs[at, ours[at].argmax()])
                differ.append({"token": at, "nats": round(lost, 4)})
    near = sum(one["nats"] < _NEAR for one in differ)
    return {
        "answers": len(prompts), "tokens": count, "equal": len(prompts) - len(differ), "left at a near tie": near,
        "differ": differ, "logits' error": {"median": statistics.median(errors), "worst": max(errors)},
    }  # fmt: skip


def compared_texts(runner: Runner, reference: Reference, texts: Sequence[Tokens], slots: int) -> dict[str, Any]:
    """Perplexity of both, and of the engine's logits the mean divergence in nats."""
    sums, divergences, count = [0.0, 0.0], list[float](), 0
    for group in _groups(sorted(texts, key=len, reverse=True), slots):
        for text, rows in zip(group, stepped(runner, [text[:-1] for text in group], [0] * len(group)), strict=True):
            both = [_log_softmax(rows), _log_softmax(reference.logits(text[:-1]))]
            for n, one in enumerate(both):
                sums[n] -= float(one[np.arange(len(text) - 1), text[1:]].sum())
            divergences += (np.exp(both[1]) * (both[1] - both[0])).sum(1).tolist()
            count += len(text) - 1
    ours, theirs = (float(np.exp(total / count)) for total in sums)
    found = {"tokens": count, "engine": ours, "reference": theirs, "ratio": ours / theirs}
    return found | {"mean divergence": statistics.mean(divergences)}


def _groups(items: Sequence[Tokens], slots: int) -> Iterator[list[Tokens]]:
    for n in range(0, len(items), slots):
        yield list(items[n : n + slots])


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64) - logits.max(1, keepdims=True)
    found: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.reference", description=__doc__)
    parser.add_argument("engine", type=Path, help="folder of engine.json")
    parser.add_argument("checkpoint", type=Path, help="what it was built of: a folder, or a GGUF file")
    parser.add_argument("--answer", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="files to measure perplexity on")
    parser.add_argument("--tokens", type=int, default=512, help="of each text at most")
    options = parser.parse_args()
    manifest = EngineManifest.load(options.engine)
    tokenizer = Tokenizer.from_file(str(options.engine / "tokenizer.json"))

    def encoded(text: str) -> Tokens:
        return [int(token) for token in tokenizer.encode(text, add_special_tokens=False).ids]

    reference, runner = Reference(options.checkpoint), make_runner(manifest, options.engine)
    slots = manifest.limits.max_sequences
    found = {"greedy": compared_answers(runner, reference, [encoded(text) for text in _PROMPTS], options.answer, slots)}
    if options.text:
        texts = [encoded(path.read_text("utf-8"))[: options.tokens] for path in options.text]
        found["perplexity"] = compared_texts(runner, reference, texts, slots)
    runner.close()
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
