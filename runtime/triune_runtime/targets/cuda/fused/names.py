"""Which initializers of a graph are the weights of a dense decoder: what its builder says of it, as JSON in the plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ....errors import ManifestError
from .shape import SCALED, DecoderShape, DecoderWeights, LayerWeights

_CACHES = ("keys", "values")
_MATRICES = ("query", "key", "value", "out", "gate", "up", "down")  # of a layer
_SCALES = frozenset(f"{name}_scale" for name in _MATRICES)  # where matrices are quantized
_LAYER = frozenset(field.name for field in dataclasses.fields(LayerWeights)) - _SCALES - frozenset(_CACHES)
_WHOLE = frozenset({"embedding", "norm", "head", "cosines", "sines"})
_OPTIONAL = frozenset({"query_bias", "key_bias", "value_bias", "query_norm", "key_norm"})


class Rows(NamedTuple):
    """A weight: rows of an initializer from one on."""

    name: str
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class DecoderNames:
    """A dense decoder in terms of its graph."""

    shape: DecoderShape
    layers: tuple[Mapping[str, Rows], ...]  # by the names of `LayerWeights` without the caches; what is not there is left out
    whole: Mapping[str, Rows]  # by the names of `DecoderWeights` without the layers
    caches: tuple[tuple[str, str], ...]  # of each layer the names of its keys and values, as the manifest has them

    def to_json(self) -> dict[str, Any]:
        """As a plan holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> DecoderNames:
        """The inverse of `to_json`.

        Raises:
            ManifestError: it does not fit.
        """
        try:
            found = cls(
                shape=DecoderShape(**raw["shape"]),
                layers=tuple({name: Rows(*rows) for name, rows in layer.items()} for layer in raw["layers"]),
                whole={name: Rows(*rows) for name, rows in raw["whole"].items()},
                caches=tuple((keys, values) for keys, values in raw["caches"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ManifestError(
                f"what engine.json says of the decoder does not fit this runtime: {error!r}", "build the engine again"
            ) from error
        parts, whole = _LAYER, _WHOLE
        if found.shape.weight_bits < 16:
            parts, whole = parts | _SCALES, whole | {"head_scale"}
        right = all(parts - _OPTIONAL <= layer.keys() <= parts for layer in found.layers)
        if not right or found.whole.keys() != whole or not found.shape.layers == len(found.layers) == len(found.caches):
            raise ManifestError("engine.json names other weights of the decoder than it has", "build the engine again")
        return found

    def locate(self, weights: Mapping[str, int], caches: Mapping[str, int]) -> DecoderWeights:
        """Addresses of all weights.

        Args:
            weights: address of each initializer that is named.
            caches: address of each cache tensor, by the manifest's name.

        Raises:
            ManifestError: one that is named is in neither.
        """
        shape = self.shape
        lengths = {"out": shape.heads * shape.head_dim, "down": shape.intermediate}  # of rows; others have `hidden` numbers

        def at(part: str, rows: Rows) -> int:
            length, row = lengths.get(part.removesuffix("_scale"), shape.hidden), 2
            if part in _MATRICES:
                row = length * shape.weight_bits // 8
            elif part in _SCALES:
                row = 2 * (length // SCALED)
            return weights[rows.name] + row * rows.first

        try:
            layers = tuple(
                LayerWeights(**{part: at(part, rows) for part, rows in layer.items()}, keys=caches[keys], values=caches[values])
                for layer, (keys, values) in zip(self.layers, self.caches, strict=True)
            )
            return DecoderWeights(layers=layers, **{part: at(part, rows) for part, rows in self.whole.items()})
        except KeyError as error:
            raise ManifestError(f"engine.json names the weight {error}, which the engine has not", "build it again") from error
