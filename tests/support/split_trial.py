"""r1-nano with R1's sizes of attention, shared by several GPUs through vLLM: its greedy tokens beside a reference's.

    python -m support.split_trial --write FILE      the reference in float64, once, where transformers is
    python -m support.split_trial --reference FILE --tensor-parallel 2 [--precision fp32] [--ensemble]

Needs nothing installed, but a Python that has vLLM in TRIUNE_VLLM_PYTHON. Prints one JSON line last. A token that differs from
the reference's is told with how much more likely the reference holds its own, in nats; what follows it is another text.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from bench.gpu.clients import Asked, Clients
from bench.gpu.distributed import QUIET
from bench.gpu.ensemble import sums
from bench.machine import gpu_memory_mib
from bench.serving import Serving
from tokenizers import Tokenizer

from r1_nano.problems import held_out
from r1_nano.recipe import Recipe
from r1_nano.tokenizer import prompt_text
from triune_runtime.targets.vllm.finding import find_python

ROOT = Path(__file__).parents[2]
NANO = ROOT / "models" / "r1-nano" / "checkpoint"
ASKED, ANSWER, KEPT = 10, 192, 16  # prompts; tokens of an answer at most; of each position the best tokens
LIMIT_S = 120.0


def write(path: Path, checkpoint: Path) -> None:
    """The reference's tokens until the end of each answer, and at each the best and their distance in nats."""
    import transformers

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float64, experts_implementation="eager"
    ).eval()
    asked = held_out(Recipe(), "add", ASKED)
    prompts = [tokenizer.encode(prompt_text(one.messages, thinks=one.thinks), add_special_tokens=False).ids for one in asked]
    answers = []
    for prompt in prompts:
        with torch.no_grad():
            made = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
                max_new_tokens=ANSWER, eos_token_id=1, pad_token_id=2, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        best = [row[0].topk(KEPT) for row in made.logits]
        behind = [(row.values[0] - row.values).tolist() for row in best]
        rows = [dict(zip(row.indices.tolist(), gaps, strict=True)) for row, gaps in zip(best, behind, strict=True)]
        answers.append({"tokens": made.sequences[0, len(prompt) :].tolist(), "behind": rows})
    path.write_text(json.dumps({"prompts": prompts, "answers": answers}), "utf-8")


def compared(reference: dict[str, Any], tokens: list[list[int]]) -> dict[str, Any]:
    """How many answers are the reference's, and of the others where they leave it, and how near a tie that is."""
    differ = []
    for answer, theirs in zip(reference["answers"], tokens, strict=True):
        wanted = answer["tokens"]
        at = next((n for n, token in enumerate(wanted) if n >= len(theirs) or theirs[n] != token), None)
        if at is not None:
            gap = answer["behind"][at].get(str(theirs[at])) if at < len(theirs) else None
            differ.append({"token": at, "of": len(wanted), "nats": None if gap is None else round(gap, 4)})
    return {"asked": len(tokens), "equal": len(tokens) - len(differ), "differ": differ}


def build(checkpoint: Path, options: argparse.Namespace) -> Path:
    """The folder of engine.json."""
    command = [sys.executable, "-m", "triune_builder", "build", "--model", str(checkpoint), "--target", "vllm"]
    command += ["--precision", options.precision, "--tensor-parallel", str(options.tensor_parallel), "--max-length", "1024"]
    command += ["--max-sequences", "32", "--build-dir", str(options.folder / "build")]
    command += ["--expert-parallel"] if options.expert_parallel else []
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_S).stdout
    return next(Path(said.splitlines()[-1]).rglob("engine.json")).parent


def ask(engine: Path, reference: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """vLLM's engine alone, with the arguments that Triune gives it."""
    asked = options.folder / "asked.json"
    asked.write_text(json.dumps({"prompts": reference["prompts"]}), "utf-8")
    longest = max(len(one["tokens"]) for one in reference["answers"])
    command = [str(find_python()), "-m", "bench.gpu.bare", str(engine), "--ask", str(asked), "--answer", str(longest)]
    around = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "runtime"), str(ROOT)])}
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_S, env=around).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    tokens = found.pop("tokens")
    return found | compared(reference, tokens)


def served(engine: Path, reference: dict[str, Any]) -> dict[str, Any]:
    """Through Triton: the texts of the reference's answers, and sums."""
    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    wanted = [tokenizer.decode(one["tokens"]) for one in reference["answers"]]
    chosen = held_out(Recipe(), "add", ASKED)
    chats = [json.dumps([{"role": role, "content": content} for role, content in one.messages]) for one in chosen]
    with (
        Serving(str(engine.absolute().parents[1]), openai=False, limit_s=LIMIT_S) as serving,
        Clients(serving.grpc_url, 2) as clients,
    ):
        memory = gpu_memory_mib()
        answers = [clients.ask([Asked(chat, ANSWER, ignore_eos=False, chat=True)])[0] for chat in chats]
        texts = [answer.text.decode("utf-8", "replace") for answer in answers]
        equal = sum(text.strip() == want.strip() for text, want in zip(texts, wanted, strict=True))
        return {"asked": len(texts), "equal": equal, "sums": sums(clients, 20), "gpu_memory_mib": memory, "first": texts[0]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.split_trial", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=NANO)
    parser.add_argument("--write", type=Path, help="file for the reference; nothing else is done")
    parser.add_argument("--reference", type=Path, help="that file")
    parser.add_argument("--tensor-parallel", type=int, default=2)
    parser.add_argument("--expert-parallel", action="store_true", help="GPUs hold whole experts")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--ensemble", action="store_true", help="ask through Triton, too")
    parser.add_argument("--folder", type=Path, default=Path("build/split-trial"))
    parser.add_argument("--output", type=Path, help="file of what is printed")
    options = parser.parse_args()
    if options.write is not None:
        write(options.write, options.checkpoint)
        return
    os.environ.update(QUIET)
    options.folder.mkdir(parents=True, exist_ok=True)
    reference = json.loads(options.reference.read_text("utf-8"))
    engine = build(options.checkpoint, options)
    found: dict[str, Any] = {"precision": options.precision, "tensor_parallel": options.tensor_parallel}
    found["expert_parallel"] = options.expert_parallel
    for name, do in (("alone", lambda: ask(engine, reference, options)), ("served", lambda: served(engine, reference))):
        if name == "alone" or options.ensemble:
            try:
                found[name] = do()
            except (RuntimeError, subprocess.SubprocessError) as error:
                found[name] = {"failed": str(error)[:500]}
            if options.output is not None:
                options.output.write_text(json.dumps(found), "utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
