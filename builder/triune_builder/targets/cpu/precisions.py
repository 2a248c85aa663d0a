"""The precisions of engines for the CPU: a row each, with all that is to be said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triune_runtime.targets.cpu.processor import has_vnni

from ...errors import BuildError, option
from ...quantize.policy import FLOAT, HEAD, ROUTERS, Precision
from ...verify.budget import Budget
from ..sizes import Kind, PrecisionSize, Weight, scheme_of

FULL, LAYERS = "full", "layers"  # proofs: the engine as a whole, or a few of its weights at a time


@dataclass(frozen=True, kw_only=True)
class CpuPrecision:
    """One row."""

    weights: Precision  # which weight gets which scheme, and how float weights are stored
    budget: Budget
    float_bytes: int = 4  # bytes that a build writes for each number of a matrix that stays floats
    in_place: frozenset[str] = frozenset()  # types of the checkpoint's weights that are read where they lie
    widened: bool = False  # whether a server's memory holds float32, whatever the files hold

    @property
    def budgets(self) -> Mapping[str, Budget]:
        return {FULL: self.budget, LAYERS: self.budget}

    def size(self, weights: Sequence[Weight], tied: bool, slots: int) -> PrecisionSize:
        """The estimate for a checkpoint's weights.

        Args:
            tied: whether the head is the embedding table, which then is a product of its own where it is quantized.
            slots: bytes of all KV slots.
        """
        in_place = [w for w in weights if self._in_place(w)]
        written = sum(self._bytes(w, w.kind) for w in weights if not self._in_place(w))
        if tied and not self.widened:
            written += sum(self._bytes(w, "head") for w in weights if w.kind == "table")
        loaded = 4 * sum(w.size for w in weights) if self.widened else written
        return PrecisionSize(
            written=written,
            in_place=sum(w.nbytes for w in in_place),
            loaded=loaded,
            serving=loaded + slots,
        )

    def _bytes(self, weight: Weight, kind: Kind) -> int:
        """What a build writes of a weight that is read as `kind`."""
        if kind == "vector":
            return 4 * weight.size  # whatever the form of matrices
        scheme = scheme_of(self.weights, weight.name, kind)
        if scheme is None:
            return self.float_bytes * weight.size
        rows, columns = weight.shape
        return scheme.bytes(rows, columns, self.weights.scale_bytes)

    def _in_place(self, weight: Weight) -> bool:
        return bool(self.in_place) and weight.kind != "expanded" and (weight.dtype in self.in_place or weight.kind == "vector")


_EXACT = Budget(logits_error=1e-3, mean_kl=1e-5, greedy_agreement=1.0, perplexity_ratio=1.001, chunk_error=1e-3)
_HALVES = Budget(mean_kl=0.01, greedy_agreement=0.97, perplexity_ratio=1.01)  # exact where the checkpoint has that form
_ROUGH = Budget(
    mean_kl=0.08, greedy_agreement=0.88, perplexity_ratio=1.03, kind_ratio=1.05,
    # Without VNNI, MatMulNBits of 4 bits takes rows two by two, and sums the last of an odd number in another order.
    batch_error=0.0 if has_vnni() else 0.2,
)  # fmt: skip
_DEFAULT = Budget(mean_kl=0.08, greedy_agreement=0.88, perplexity_ratio=1.03, kind_ratio=1.03)

# Products whose inputs have outliers that no calibration foretells; the graph's names and the checkpoint's own, for estimates.
_UNEVEN = ("*.mlp.*down_proj.weight", "*.qkv_proj.weight", "*.[qkv]_proj.weight")

PRECISIONS = {
    row.weights.name: row
    for row in (
        CpuPrecision(
            weights=Precision(name="fp32", linear=(("*", FLOAT),)),
            budget=_EXACT,
            widened=True,
        ),
        # Nothing is quantized in these three: they say how float weights are stored. The engine computes with float32.
        CpuPrecision(
            weights=Precision(name="bf16", linear=(("*", FLOAT),), stored="BF16"),
            budget=_HALVES,
            float_bytes=2,
            in_place=frozenset({"BF16"}),
            widened=True,
        ),
        CpuPrecision(
            weights=Precision(name="fp16", linear=(("*", FLOAT),), stored="F16"),
            budget=_HALVES,
            float_bytes=2,
            in_place=frozenset({"F16"}),
            widened=True,
        ),
        CpuPrecision(
            weights=Precision(name="fp8", linear=(("*", FLOAT),), stored="F8_E4M3"),
            budget=_EXACT,
            in_place=frozenset({"F32", "F16", "BF16", "F8_E4M3"}),
            widened=True,
        ),
        CpuPrecision(
            weights=Precision(name="int8", linear=(ROUTERS, ("*", "blocks8")), embedding="embedding_blocks8"),
            budget=Budget(mean_kl=0.03, greedy_agreement=0.93, perplexity_ratio=1.03, kind_ratio=1.03),
        ),
        # The head decides every token and is read once a step: it keeps eight bits.
        CpuPrecision(
            weights=Precision(
                name="int4", linear=(ROUTERS, (HEAD, "blocks8"), ("*", "blocks4")), embedding="embedding_blocks8"
            ),
            budget=_ROUGH,
        ),
        # Where a scale for a whole row of activations costs most on texts that were not calibrated on, blocks have scales of
        # their own: docs/quantization.md
        CpuPrecision(
            weights=Precision(
                name="w8a8",
                linear=(ROUTERS, *((name, "blocks8") for name in (HEAD, *_UNEVEN)), ("*", "w8a8")),
                embedding="embedding_blocks8",
            ),
            budget=_DEFAULT,
        ),
    )
}


def find_precision(name: str) -> Precision:
    """The rules of the precision of that name.

    Raises:
        BuildError: there is none.
    """
    if name not in PRECISIONS:
        raise BuildError(f"no precision {name!r}; known: {', '.join(PRECISIONS)}", f"choose {option('precision', 'fp32')}")
    return PRECISIONS[name].weights


def sizes(weights: Sequence[Weight], tied: bool, slots: int) -> dict[str, PrecisionSize]:
    """See `Target.estimate`. Where a checkpoint has no FP8 of its own, that precision is none of its."""
    kept = [name for name, row in PRECISIONS.items()
            if row.weights.stored != "F8_E4M3" or any(w.dtype == "F8_E4M3" for w in weights)]  # fmt: skip
    return {name: PRECISIONS[name].size(weights, tied, slots) for name in kept}
