"""python -m bench.gguf_files FILE REPOSITORY: an engine made of a GGUF file beside llama.cpp on the same file and tokens.

Perplexity over the texts that a build is judged by, of llama.cpp, of the numbers that the file stands for (NumPy, from the
build's report) and of the engine; and greedy answers to the bundled prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from pathlib import Path
from typing import Any

from triune_builder.checkpoint import open_checkpoint
from triune_builder.verify.measure import Sizes, answer_prompts, text_windows
from triune_builder.verify.report import BuildReport
from triune_builder.verify.texts import evaluation_ids, texts_of, token_ids
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import make_runner

from .process import ROOT

TOKENS = 32  # of an answer


def main() -> None:
    options = _arguments()
    checkpoint = open_checkpoint(str(options.file), cache=Path("build/.cache/checkpoints"))
    folder = options.repository / "generate" / "1"
    manifest, report = EngineManifest.load(folder), BuildReport.read(folder)
    texts = texts_of({})
    windows, _ = text_windows(evaluation_ids(checkpoint.tokenizer_json, texts), Sizes(), manifest.limits.max_length)
    prompts = token_ids(checkpoint.tokenizer_json, texts.prompts)
    theirs = _judged(options.llama, options.file, [(w.tokens, w.followers) for w in windows], prompts)
    losses = [loss for window in theirs["losses"] for loss in window]
    found = report.verification
    if found is None:
        raise SystemExit("the build was not verified: make engine VERIFY=full")
    print(f"{options.file.name}, {manifest.precision}: perplexity over {len(losses):,} tokens")
    print(f"  llama.cpp                     {math.exp(math.fsum(losses) / len(losses)):.4f}")
    print(f"  the file's numbers, in NumPy  {found.perplexity_reference:.4f}")
    print(f"  the engine                    {found.perplexity_engine:.4f}")
    ours = answer_prompts(make_runner(manifest, folder), manifest.limits, prompts, Sizes(answer=TOKENS))
    agreed = [_shared([*e.tokens[len(p) :], e.chosen[len(e.tokens) - 1]], a) for e, p, a in
              zip(ours, prompts, theirs["answers"], strict=True)]  # fmt: skip
    print(f"greedy answers of {TOKENS} tokens: {agreed.count(TOKENS)} of {len(agreed)} equal; equal tokens until the first "
          f"difference {sum(agreed) / len(agreed):.1f} on average")  # fmt: skip


def _judged(python: Path, file: Path, windows: list[Any], prompts: list[list[int]]) -> dict[str, Any]:
    asked = json.dumps({"windows": windows, "prompts": prompts, "count": TOKENS})
    command = [str(python), str(ROOT / "bench" / "gguf_judge.py"), str(file)]
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens are equal before the first that is not."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gguf_files", description=__doc__)
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("repository", type=Path, help="what was built of it")
    parser.add_argument("--llama", type=Path, required=True, help="a Python with the package llama-cpp-py-sync")
    return parser.parse_args()


if __name__ == "__main__":
    main()
