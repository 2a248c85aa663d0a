"""Every number of the model, the data and the training, in one place. Computes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRecipe:
    """The architecture; each field is named as in DeepSeek-V3's config.json."""

    vocab_size: int = 1024
    hidden_size: int = 256
    intermediate_size: int = 768
    moe_intermediate_size: int = 96
    num_hidden_layers: int = 7
    num_nextn_predict_layers: int = 1
    first_k_dense_replace: int = 1
    num_attention_heads: int = 8
    q_lora_rank: int = 96
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    n_routed_experts: int = 16
    n_shared_experts: int = 1
    num_experts_per_tok: int = 2
    n_group: int = 4
    topk_group: int = 2
    routed_scaling_factor: float = 1.0
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    bos_token_id: int = 0
    eos_token_id: int = 1
    pad_token_id: int = 2

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecipe:
    """What the model is taught: the share of each task, and how examples are packed."""

    row_tokens: int = 1024  # examples are packed whole into rows of this length
    longest_tokens: int = 900  # a longer example is not used; the longest trace stays under 700
    wrong_guess_share: float = 0.08  # quotient digits first guessed wrong, so that repairing one is learned too
    cut_thinking_share: float = 0.01  # thinking that was stopped early: the answer says that it was not finished
    system_prompt_share: float = 0.05
    shares: dict[str, float] = field(
        default_factory=lambda: {
            "add": 0.10,
            "subtract": 0.12,
            "multiply": 0.22,
            "divide": 0.16,
            "compare": 0.06,
            "expression": 0.16,
            "word": 0.07,
            "follow_up": 0.04,
            "direct": 0.04,
            "chat": 0.03,
        }
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRecipe:
    """Optimization. A fraction is of the whole run, whether the run is planned in minutes or in steps."""

    seed: int = 1
    rows: int = 64  # a step's rows: 65,536 tokens
    matrix_lr: float = 0.02  # Muon, for every matrix but the embeddings, the head and the routers
    vector_lr: float = 0.004  # AdamW, for the rest
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    matrix_decay: float = 0.01
    warmup: float = 0.01
    cooldown: float = 0.45  # the last fraction, in which the learning rate falls to zero
    gradient_clip: float = 1.0
    mtp_weight: tuple[float, float] = (0.3, 0.1)  # of the MTP loss, at the start and at the end
    bias_step: float = 0.001  # the routers' correction bias moves by this much a step
    dense_fraction: float = 0.3  # --dense-to-sparse: the fraction over which 16 active experts become 2
    checkpoint_s: float = 120.0
    log_s: float = 10.0
    sparsity_threshold: float = 0.01  # a hidden activation below this counts as silent


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    train: TrainRecipe = field(default_factory=TrainRecipe)


def small_model() -> ModelRecipe:
    """A model for a quick look on a CPU: the same parts, fewer and narrower."""
    return ModelRecipe(
        hidden_size=128, intermediate_size=256, moe_intermediate_size=32, num_hidden_layers=4, num_attention_heads=4,
        q_lora_rank=64, kv_lora_rank=32,
    )  # fmt: skip
