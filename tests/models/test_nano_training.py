"""The trainer's model is DeepSeek-V3 as `transformers` has it, and an interrupted run goes on as if it had not been."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from r1_nano.data import Encoder, make_block
from r1_nano.recipe import DataRecipe, ModelRecipe, Recipe, TrainRecipe
from r1_nano.tokenizer import train_tokenizer

torch = pytest.importorskip("torch", reason="the trainer needs PyTorch")

from r1_nano.decode import greedy  # noqa: E402  # these import torch
from r1_nano.experts import MoE  # noqa: E402
from r1_nano.export import export  # noqa: E402
from r1_nano.model import Nano, count_parameters  # noqa: E402
from r1_nano.optimizer import Optimizer  # noqa: E402
from r1_nano.plan import active_experts, learning_rate  # noqa: E402
from r1_nano.trainer import Options, Trainer  # noqa: E402

TINY = ModelRecipe(
    hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=16,
    kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
)  # fmt: skip
RECIPE = Recipe(model=TINY, data=DataRecipe(row_tokens=512), train=TrainRecipe(rows=2))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(RECIPE, examples=6000)


def random_model(recipe: ModelRecipe, seed: int) -> Nano:
    torch.manual_seed(seed)
    model = Nano(recipe)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3 if parameter.ndim == 1 else 0.08)
    for layer in model.layers:
        if isinstance(layer.mlp, MoE):
            layer.mlp.gate.e_score_correction_bias.normal_(std=0.2)
    return model


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_logits_equal_transformers(seed: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    recipe = replace(TINY, routed_scaling_factor=1.0 + seed / 2, num_experts_per_tok=1 + seed, topk_group=1 + seed % 3)
    model = random_model(recipe, seed)
    export(model, tokenizer, tmp_path, dtype=torch.float32)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert all(f".layers.{recipe.num_hidden_layers}." in name for name in info["unexpected_keys"])  # the MTP layer
    tokens = torch.randint(0, recipe.vocab_size, (3, 50))
    with torch.no_grad():
        ours, reference = model.logits(tokens), theirs(tokens).logits
    assert (ours - reference).abs().max() < 1e-4 * reference.abs().max()


def test_greedy_decoding_equals_whole_passes() -> None:
    model = random_model(TINY, 4)
    prompts = [[0, 5, 6, 7, 100], [0, 9], [0, *range(300, 320)]]
    for prompt, answer in zip(prompts, greedy(model, prompts, most_tokens=40, batch=2), strict=True):
        tokens = list(prompt)
        for token in answer:
            with torch.no_grad():
                assert model.logits(torch.tensor([tokens]))[0, -1].argmax().item() == token
            tokens.append(token)


def test_examples_of_a_row_do_not_see_each_other(tokenizer: Tokenizer) -> None:
    model, encoder = random_model(TINY, 5), Encoder(tokenizer)
    trainer = Trainer(RECIPE, Options(), torch.device("cpu"))
    trainer.model = model
    block = make_block(encoder, RECIPE.data, 1, 0, 2)
    trainer._forward = model
    loss = trainer._losses(block, 0.0).loss.item()
    total, learned = 0.0, 0
    flat, targets = block.tokens.reshape(-1), block.targets.reshape(-1)
    for start, end in zip(block.ends, block.ends[1:], strict=False):
        kept = targets[start:end] >= 0
        if kept.any():
            with torch.no_grad():
                logits = model.logits(torch.from_numpy(flat[None, start:end].astype(np.int64)))[0]
            chosen = torch.nn.functional.cross_entropy(
                logits[torch.from_numpy(kept)], torch.from_numpy(targets[start:end][kept].astype(np.int64)), reduction="sum"
            )
            total, learned = total + chosen.item(), learned + int(kept.sum())
    assert learned == block.learned
    assert loss == pytest.approx(total / learned, rel=1e-4)


def test_resumed_run_equals_uninterrupted_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoder, steps = Encoder(tokenizer), 6

    def run(trainer: Trainer, until: int) -> None:
        while trainer.step_number < until:
            trainer.step(make_block(encoder, RECIPE.data, 1, trainer.step_number, 2), trainer.step_number / steps)

    whole = Trainer(RECIPE, Options(dense_to_sparse=True, l1=0.1), torch.device("cpu"))
    run(whole, steps)
    first = Trainer(RECIPE, Options(dense_to_sparse=True, l1=0.1), torch.device("cpu"))
    run(first, 3)
    first.save(tmp_path / "state.pt")
    second = Trainer(RECIPE, Options(dense_to_sparse=True, l1=0.1), torch.device("cpu"))
    second.load(tmp_path / "state.pt")
    run(second, steps)
    for (name, ours), (_, theirs) in zip(second.model.state_dict().items(), whole.model.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    Trainer(RECIPE, Options(), torch.device("cpu")).save(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="of another run"):
        Trainer(RECIPE, Options(l1=1.0), torch.device("cpu")).load(tmp_path / "state.pt")


def test_a_few_steps_lower_the_loss(tokenizer: Tokenizer) -> None:
    trainer, encoder = Trainer(RECIPE, Options(), torch.device("cpu")), Encoder(tokenizer)
    losses = [trainer.step(make_block(encoder, RECIPE.data, 1, i, 2), 0.3).loss.item() for i in range(12)]
    assert losses[-1] < 0.75 * losses[0]


def test_loads_even_out() -> None:
    """The correction bias alone, moved by the sign of the load, brings the experts' loads together."""
    torch.manual_seed(0)
    router = next(layer.mlp.gate for layer in random_model(TINY, 6).layers if isinstance(layer.mlp, MoE))
    x, counted = torch.randn(2000, TINY.hidden_size) + 0.5, torch.ones(2000)
    spread = []
    with torch.no_grad():
        for _ in range(400):
            load = router(x, torch.tensor(2), counted).load
            spread.append((load.max() / load.mean()).item())
            router.e_score_correction_bias += 0.003 * torch.sign(load.mean() - load)
    assert spread[-1] < 1.3 < spread[0]


def test_muon_takes_every_matrix_once() -> None:
    model = Nano(TINY)
    optimizer = Optimizer(model, RECIPE.train)
    adam = [p for group in optimizer.adam.param_groups for p in group["params"]]
    muon = [p for group in optimizer.groups for p in group]
    assert len({id(p) for p in (*adam, *muon)}) == len(adam) + len(muon) == len(list(model.parameters()))


def test_plan_ends_at_zero_and_with_the_final_experts() -> None:
    train = RECIPE.train
    assert learning_rate(1.0, train) == 0.0 and learning_rate(0.3, train) == 1.0
    numbers = [active_experts(i / 1000, TINY, train, dense_to_sparse=True) for i in range(1000)]
    assert numbers[0] == 16 and numbers[-1] == 2 and numbers == sorted(numbers, reverse=True)
    assert set(numbers) == set(range(2, 17))


def test_published_size_is_within_its_budget(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = Nano(ModelRecipe())
    assert count_parameters(model) <= 12_000_000
    export(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size <= 25_000_000
    assert json.loads((tmp_path / "config.json").read_text())["num_nextn_predict_layers"] == 1
