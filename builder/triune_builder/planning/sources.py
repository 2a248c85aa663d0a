"""What is planned: the config.json that MODEL leads to, with headers where there are some; or one made of a few numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checkpoint.files import CONFIG_BYTES, parse_object, read_text
from ..errors import BuildError
from ..naming import meaning_of
from ..targets.vllm.planned import served_geometry
from .calibration import VLLM, Engine
from .geometry import Geometry, geometry_of
from .mixtures import MODEL_TYPE

_STEP = 64  # what inner widths are multiples of
_CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A model that is planned.

    Raises:
        BuildError: its config.json has no geometry that is understood.
    """

    name: str
    config: Mapping[str, Any]
    weights: Collection[str] = ()  # names of them, where there are headers
    stored: int | None = None  # bytes of its tensors as headers tell them; None: there are no headers
    remark: str = ""
    geometry: Geometry = field(init=False, repr=False, compare=False)  # of the model as it is; it follows from the others

    def __post_init__(self) -> None:
        object.__setattr__(self, "geometry", geometry_of(self.config, self.weights))

    def on(self, engine: Engine) -> Geometry:
        """Of the model as that engine keeps it."""
        return served_geometry(self.config, self.weights) if engine is VLLM else self.geometry


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A model that is known by its numbers alone."""

    params: float
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    vocab: int
    experts: int = 0
    experts_per_token: int = 0


def open_model(model: str, cache: Path) -> Planned:
    """A known name, a folder, a .gguf file, a config.json, or a hub id whose config.json the hub's cache has.

    Raises:
        BuildError: it is none of these, or what it leads to is not understood.
    """
    path = Path(model).expanduser()
    if path.suffix == ".json" and path.is_file():
        return _of_config(str(path), path)
    meaning = meaning_of(model)
    if meaning.kind == "hub":
        from ..checkpoint.hub import cached_config

        return _of_config(model, cached_config(model))
    if meaning.path is not None and (meaning.path / _CONFIG).is_file():
        return _of_config(model, meaning.path / _CONFIG)
    from ..checkpoint import open_checkpoint

    checkpoint = open_checkpoint(model, cache=cache, headers_only=True)  # raises what a build would
    stored = sum(tensor.nbytes for tensor in checkpoint.weights.values())
    return Planned(name=model, config=checkpoint.config, weights=checkpoint.weights.keys(), stored=stored)


def _of_config(name: str, path: Path) -> Planned:
    config = parse_object(path, read_text(path, CONFIG_BYTES))
    if "config" in config and "model_type" not in config:  # as the project keeps published ones, with what their files hold
        config = config["config"]
    if not any(path.parent.glob("*.safetensors")):
        return Planned(name=name, config=config)
    from ..checkpoint.folder import with_quantization
    from ..checkpoint.safetensors_files import read_weights
    from ..checkpoint.stored_forms import join_stored

    tensors, _ = read_weights(path.parent)
    weights, _ = join_stored(tensors, with_quantization(path.parent, config))
    stored = sum(tensor.nbytes for tensor in tensors.values())
    return Planned(name=name, config=config, weights=weights.keys(), stored=stored)


def of_numbers(numbers: Numbers) -> Planned:
    """A Llama of these numbers, or with experts a mixture like Qwen3's; the inner width follows from the parameters.

    Raises:
        BuildError: no such model can have that many parameters, or a number is none that a model can have.
    """
    inner = _inner(numbers)
    config: dict[str, Any] = {
        "model_type": MODEL_TYPE if numbers.experts else "llama",
        "hidden_size": numbers.hidden,
        "num_hidden_layers": numbers.layers,
        "num_attention_heads": numbers.heads,
        "num_key_value_heads": numbers.kv_heads,
        "head_dim": numbers.hidden // numbers.heads,
        "vocab_size": numbers.vocab,
        "intermediate_size": inner,
        "max_position_embeddings": 1 << 20,
        "tie_word_embeddings": False,
    }
    if numbers.experts:
        config |= {
            "num_experts": numbers.experts, "num_experts_per_tok": numbers.experts_per_token, "moe_intermediate_size": inner,
        }  # fmt: skip
    geometry = (planned := Planned(name=f"{numbers.params / 1e9:g}B", config=config)).geometry
    mixture = f", {numbers.experts} experts of which {numbers.experts_per_token} are chosen" if numbers.experts else ""
    return replace(
        planned,
        remark=f"of {numbers.params:,.0f} parameters follows an inner width of {inner:,}{mixture}: "
        f"{geometry.parameters:,} parameters, no table shared with the head",
    )


def _inner(numbers: Numbers) -> int:
    for name, value in vars(numbers).items():
        least, most = 0 if name.startswith("experts") else 1, 1e15 if name == "params" else 1 << 24
        if not least <= value <= most:
            raise BuildError(
                f"--{name.replace('_', '-')} is {value:,g}; it can be {least} to {most:,.0f}", "give the model's own numbers"
            )
    if numbers.hidden % numbers.heads:
        raise BuildError(
            f"--hidden {numbers.hidden:,} is not shared evenly by {numbers.heads} heads", "correct --hidden or --heads"
        )
    if bool(numbers.experts) != bool(numbers.experts_per_token):
        raise BuildError("--experts and --experts-per-token go together", "give both, or neither for a dense model")
    hidden, experts = numbers.hidden, max(numbers.experts, 1)
    head = hidden // numbers.heads
    attention = 2 * hidden * hidden + 2 * hidden * numbers.kv_heads * head
    rest = 2 * numbers.vocab * hidden + numbers.layers * (attention + 2 * hidden + numbers.experts * hidden) + hidden
    each = 3 * hidden * numbers.layers * experts
    inner = round((numbers.params - rest) / each / _STEP) * _STEP
    if inner < _STEP:
        raise BuildError(
            f"{numbers.params:,.0f} parameters are too few: table, head and attention of that model have {rest:,} already",
            "give more --params, or fewer --layers, --hidden or --vocab",
        )
    return inner


def required(given: Mapping[str, float | None]) -> Numbers:
    """The numbers of options, by their names.

    Raises:
        BuildError: names those that are missing.
    """
    missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None and name != "kv_heads"]
    if missing:
        raise BuildError(
            f"without a model --params needs {', '.join(missing)}, too",
            "e.g. --params 45e9 --layers 32 --hidden 4096 --heads 32 --kv-heads 8 --vocab 129280",
        )
    values = {name: value for name, value in given.items() if value is not None}
    whole = {name: round(value) for name, value in values.items() if name != "params"}
    return Numbers(params=values["params"], **({"kv_heads": whole["heads"]} | whole))
