"""Rotary position tables: cos and sin of every position and frequency; and how config.json says which. Pure NumPy.

What keys mean is what transformers 5 takes them for (modeling_rope_utils.py: convert_rope_params_to_dict,
standardize_rope_params and the ROPE_INIT_FUNCTIONS), but for YaRN's `attn_factor`, which it does not know: see docs/config.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError, option
from .keys import FLAG, Key, Kind, count, is_number, is_whole, number, read_key, shown
from .rope_scalings import DynamicScaling, LinearScaling, Llama3Scaling, LongRopeScaling, Scaling
from .rope_scalings import YarnScaling as YarnScaling

USUAL_THETA = 10_000.0
_FACTOR = Key(kind=number(above=0))
_SIZE = Key(kind=number(least=0), missing=None, null=None)
_FACTORS = Key(kind=Kind("a list of numbers above 0",
                         lambda value: isinstance(value, list) and all(is_number(v) and v > 0 for v in value)))  # fmt: skip

# rope_type -> what it reads besides rope_theta and original_max_position_embeddings
TYPES: dict[str, dict[str, Key]] = {
    "default": {},
    "linear": {"factor": _FACTOR},
    "dynamic": {"factor": _FACTOR},
    "llama3": dict.fromkeys(("factor", "low_freq_factor", "high_freq_factor"), _FACTOR),
    "yarn": {
        "factor": Key(kind=number(above=0), null=None),
        **dict.fromkeys(("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim"), _SIZE),
        "attn_factor": Key(kind=number(above=0), missing=1.0, null=1.0),
        "truncate": Key(kind=FLAG, missing=True, null=False),
    },
    "longrope": {
        "short_factor": _FACTORS, "long_factor": _FACTORS, "factor": Key(kind=number(above=0), missing=None, null=None),
        "attention_factor": _SIZE,
    },
}  # fmt: skip
_BAND = 4096  # rows of the tables that are made at once
_FROM_ORIGINAL = ("llama3", "yarn", "longrope")  # types that read original_max_position_embeddings
_ANY = frozenset({"rope_theta", "rope_type", "type", "original_max_position_embeddings", "partial_rotary_factor", "finetuned"})


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary embedding of `dim` numbers a head: base frequency `theta` and an optional scaling."""

    dim: int
    theta: float
    scaling: Scaling | None = None
    remarks: tuple[str, ...] = field(default=(), compare=False)  # what was settled in reading

    @property
    def longest(self) -> int | None:
        """Tokens of a text from which on the frequencies are others, which is not built; None: they never are."""
        return self.scaling.limit if isinstance(self.scaling, DynamicScaling | LongRopeScaling) else None

    def tables(self, max_length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """cos and sin [max_length, dim/2]; frequencies theta^(-2i/dim) (Su et al. 2021).

        Powers, sines and cosines are taken of long doubles: of doubles, NumPy has other last bits with AVX-512 than without,
        and one of half a million entries is then rounded otherwise.

        Raises:
            BuildError: the scaling has other frequencies for texts of that length.
        """
        if self.longest is not None and max_length > self.longest:
            raise BuildError(
                f"--max-length is {max_length:,}; this model's rotary frequencies change within a text of more than "
                f"{self.longest:,} tokens, which is not built",
                f"choose {option('max_length', self.longest)} or less, or leave it out",
            )
        exponents = -(np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)
        frequencies = (np.longdouble(self.theta) ** exponents.astype(np.longdouble)).astype(np.float64)
        if self.scaling:
            frequencies = self.scaling.apply(frequencies, self.theta)
        if not np.isfinite(frequencies * max_length).all():
            raise BuildError(
                "config.json: rotary frequencies are beyond all numbers", "correct rope_theta and the rope scaling"
            )
        amplitude = self.scaling.amplitude if isinstance(self.scaling, YarnScaling | LongRopeScaling) else 1.0
        cos, sin = (np.empty((max_length, len(frequencies)), np.float32) for _ in range(2))
        for start in range(0, max_length, _BAND):  # long doubles of a million tokens would take gigabytes
            positions = np.arange(start, min(start + _BAND, max_length), dtype=np.float64)
            angles = (positions[:, None] * frequencies).astype(np.longdouble)
            cos[start : start + _BAND], sin[start : start + _BAND] = amplitude * np.cos(angles), amplitude * np.sin(angles)
        return cos, sin


def read_rope(config: Mapping[str, Any], dim: int, *, max_positions: int | None = None) -> Rope:
    """The rotary embedding that config.json describes, under its older (`rope_scaling`) or newer (`rope_parameters`) keys.

    Args:
        max_positions: the model's max_position_embeddings.

    Raises:
        BuildError: a scaling type or key that is not understood; two keys that contradict each other.
    """
    if dim % 2:
        raise BuildError(f"{dim} numbers of a head are rotated in pairs", "correct head_dim in config.json")
    name, raw = _parameters(config)
    kind, remarks = _kind(name, raw)
    theta = _theta(config, name, raw)
    _refuse_unknown(config, name, raw, kind)
    said = {key: _as_float(_value(raw, key, meant, f"{name}.")) for key, meant in TYPES[kind].items()}
    original = _original(config, raw, max_positions) if kind in _FROM_ORIGINAL else 0
    if kind == "dynamic" and max_positions is None:
        _refuse("max_position_embeddings is missing", "rope scaling 'dynamic' needs it")
    scaling = _scaling(kind, said, original, max_positions or 0, dim)
    if kind == "yarn" and theta <= 1:
        _refuse(f"rope_theta is {theta:g}; rope scaling 'yarn' needs one above 1", "correct rope_theta in config.json")
    remarks += _settled(config, name, raw, kind, theta)
    return Rope(dim=dim, theta=theta, scaling=scaling, remarks=tuple(remarks))


def _parameters(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The object that counts, and its name: rope_scaling, unless it is empty."""
    said = {name: config.get(name) for name in ("rope_scaling", "rope_parameters")}
    for name, value in said.items():
        if value is not None and not isinstance(value, dict):
            _refuse(f"{name} is {shown(value)}; expected an object or null", f"correct {name} in config.json")
    for name, value in said.items():
        if value:
            inner = [key for key, entry in value.items() if isinstance(entry, dict)]
            if inner:
                _refuse(
                    f"{name} has parameters of its own for {', '.join(inner)}; one set for all layers is built",
                    "this model is not one that can be built here",
                )
            return name, value
    return "rope_parameters", {}


def _kind(name: str, raw: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The scaling's type; of its two spellings the newer counts."""
    kind = raw.get("rope_type", raw.get("type", "default"))
    if not isinstance(kind, str) or kind not in TYPES:
        _refuse(
            f"rope scaling {shown(kind)} in {name} is not known; known: {', '.join(TYPES)}",
            "correct it in config.json, or choose a model with a known one",
        )
    if raw.get("type", kind) != kind:
        return kind, [
            f"config.json: {name} has rope_type {kind!r} and type {raw['type']!r}: rope_type counts, as in transformers"
        ]
    return kind, []


def _theta(config: Mapping[str, Any], name: str, raw: Mapping[str, Any]) -> float:
    inside = "rope_theta" in raw
    key = Key(kind=number(above=0), missing=USUAL_THETA)
    theta = float(_value(raw if inside else config, "rope_theta", key, f"{name}." if inside else ""))
    other = config.get("rope_parameters") or {}
    dropped = other.get("rope_theta") if name == "rope_scaling" and isinstance(other, dict) else None
    if dropped is not None and dropped != theta:
        _refuse(
            f"rope_scaling replaces rope_parameters, whose rope_theta is {shown(dropped)}, and means rope_theta {theta:g}",
            "write rope_theta into rope_scaling, and remove rope_parameters",
        )
    return theta


def _refuse_unknown(config: Mapping[str, Any], name: str, raw: Mapping[str, Any], kind: str) -> None:
    known = _ANY.union(*TYPES.values())
    unknown = [key for key in raw if key not in known and raw[key] is not None]
    if unknown:
        _refuse(
            f"rope scaling {kind!r} has the keys {', '.join(sorted(raw.keys() - {'type', 'rope_type'}))} in {name}; expected "
            f"{', '.join(TYPES[kind]) or 'rope_theta'}",
            f"correct {name} in config.json",
        )
    for where, value in (("", config.get("partial_rotary_factor")), (f"{name}.", raw.get("partial_rotary_factor"))):
        if value is not None and not (is_number(value) and value == 1):
            _refuse(f"{where}partial_rotary_factor is {shown(value)}; heads are rotated as a whole", "only 1 is built")
    if kind not in ("default", "yarn") and raw.get("mscale_all_dim"):
        _refuse(f"{name}.mscale_all_dim is {shown(raw['mscale_all_dim'])} beside rope scaling {kind!r}", "only yarn has it")


def _original(config: Mapping[str, Any], raw: Mapping[str, Any], max_positions: int | None) -> int:
    """The context that the model was first trained for; a key outside of the scaling counts before the one inside."""
    source = config if "original_max_position_embeddings" in config else raw
    meant = Key(kind=count(), missing=max_positions) if max_positions is not None else Key(kind=count())
    return int(_value(source, "original_max_position_embeddings", meant, ""))


def _scaling(kind: str, said: dict[str, Any], original: int, max_positions: int, dim: int) -> Scaling | None:
    if kind == "llama3":
        if not said["low_freq_factor"] < said["high_freq_factor"]:
            _refuse(
                f"low_freq_factor is {said['low_freq_factor']}, high_freq_factor {said['high_freq_factor']}",
                "high_freq_factor must be the greater; correct it in config.json",
            )
        return Llama3Scaling(**said, original_max_position_embeddings=original)
    if kind == "linear":
        return LinearScaling(**said)
    if kind == "dynamic":
        return DynamicScaling(**said, limit=max_positions)
    if kind in ("yarn", "longrope") and said["factor"] is None:
        if not max_positions:
            _refuse(f"rope scaling {kind!r} has no factor", "say it, or max_position_embeddings")
        said["factor"] = max_positions / original
    if kind == "yarn":
        betas = {"beta_fast": said["beta_fast"] or 32.0, "beta_slow": said["beta_slow"] or 1.0}
        return YarnScaling(**(said | betas), original_max_position_embeddings=original)
    if kind == "longrope":
        short, long = said["short_factor"], said.pop("long_factor")
        if not len(short) == len(long) == dim // 2:
            _refuse(f"short_factor and long_factor have {len(short)} and {len(long)} numbers", f"{dim // 2} are needed")
        return LongRopeScaling(**(said | {"short_factor": tuple(short)}), limit=original)
    return None


def _settled(config: Mapping[str, Any], name: str, raw: Mapping[str, Any], kind: str, theta: float) -> list[str]:
    """What of two keys was taken, where both are there and differ."""
    said = []
    other = config.get("rope_parameters")
    if (
        name == "rope_scaling"
        and other
        and {k: v for k, v in other.items() if k != "rope_theta"} != {k: v for k, v in raw.items() if k != "rope_theta"}
    ):
        said.append("config.json has rope_scaling and rope_parameters, which differ: rope_scaling counts, as in transformers")
    outer = config.get("rope_theta")
    if "rope_theta" in raw and outer is not None and outer != theta:
        said.append(f"config.json has two values of rope_theta: {theta:g} in {name} counts, as in transformers")
    outer = config.get("original_max_position_embeddings")
    if kind in _FROM_ORIGINAL and outer is not None and raw.get("original_max_position_embeddings", outer) != outer:
        said.append(f"config.json has two values of original_max_position_embeddings: {outer} counts, as in transformers")
    if kind == "yarn" and raw.get("attn_factor") is not None:
        said.append(f"config.json: attn_factor = {shown(raw['attn_factor'])} is read as vLLM and llama.cpp read it; "
                    "transformers ignores it")  # fmt: skip
    return said


def _value(source: Mapping[str, Any], name: str, key: Key, where: str) -> Any:
    value, problem = read_key(source, name, key)
    if problem:
        _refuse(f"{where}{problem}", "correct config.json, or fetch the model's own again")
    return value


def _as_float(value: Any) -> Any:
    """A number as one that NumPy computes with, however many digits it has; lists, flags and None as they are."""
    return float(value) if is_whole(value) else value


def _refuse(problem: str, hint: str) -> NoReturn:
    raise BuildError(f"config.json: {problem}", hint)
