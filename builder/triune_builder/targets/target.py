"""What the builder asks of a target, and what the two tell each other. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from triune_runtime.manifest import Limits

from ..quantize.policy import Precision
from ..verify.budget import Budget
from .facts import EngineFacts
from .sizes import PrecisionSize, Weight

if TYPE_CHECKING:
    from triune_runtime.manifest import CacheTensor, EngineManifest

    from ..checkpoint import Checkpoint
    from ..plan import BuildPlan
    from ..progress import StageClock
    from ..verify.measure import Sizes
    from ..verify.verification import Note, Verification

StageFactory = Callable[[str], "AbstractContextManager[StageClock]"]


class TargetPrecision(Protocol):
    """What everybody may know of a precision; how it is made its target alone knows."""

    @property
    def weights(self) -> Precision:
        """Which weight gets which scheme."""
        ...

    @property
    def budgets(self) -> Mapping[str, Budget]:
        """How far an engine may be from its checkpoint, for each of the target's proofs."""
        ...


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An option of the command line that is of use to one target only."""

    name: str  # of the value in `BuildPlan.options`, e.g. weight_streaming for --weight-streaming
    kind: type[bool] | type[int] | type[str] | type[list[str]]  # a switch, a number, a word, or what may be repeated
    help: str
    stands_for: str = ""  # a limit of the plan's of which it is another name; empty: none

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How an engine is to be proved on this machine."""

    how: str  # one of the target's proofs, or "none"
    device: str = ""  # what runs it, if that matters: figures of another device are not this one's


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """An engine to be proved."""

    asked: str  # "auto" or one of the target's proofs
    manifest: EngineManifest
    folder: Path  # of the compiled engine, with all that `Target.compile` left there
    checkpoint: Checkpoint
    loaded_bytes: int  # of weights, in a server's memory
    sizes: Sizes
    note: Note = lambda _: None


def nothing_here(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a target whose engines do not depend on the machine that builds them."""
    return {}


def no_choices(plan: BuildPlan) -> Sequence[object]:
    """Of a target that adds nothing to an engine's key."""
    return ()


def any_checkpoint(plan: BuildPlan, checkpoint: Checkpoint) -> None:
    """Of a target that takes all whose shapes fit."""


def same_cache(plan: BuildPlan, cache: tuple[CacheTensor, ...]) -> tuple[CacheTensor, ...]:
    """Of a target whose engines keep the cache as the graph has it."""
    return cache


def asked_length(plan: BuildPlan, own: int | None) -> int:
    """Of a target whose engines are made for the plan's length alone."""
    return plan.limits.max_length


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target: the TARGET of its folder. Making one imports nothing heavy; its functions import what they need."""

    name: str
    precisions: Mapping[str, TargetPrecision]
    default_precision: str
    float_twin: str  # the precision nearest to the float weights
    proofs: tuple[str, ...]  # ways to prove an engine
    proofs_help: str  # what they are, and which one "auto" takes
    unproved: str = ""  # why there are none, where a build proves nothing
    speculations: tuple[str, ...] = ("off",)
    flags: tuple[Flag, ...] = ()
    tools: tuple[str, ...] = ()  # packages that decide, beside the common ones, what an engine looks like
    head_unit: int = 1  # numbers of a head are multiples of it
    head_most: int | None = None  # numbers of a head at most, where each has keys of its own; None: any
    rotary_unit: int = 1  # numbers of a head that are rotated are multiples of it
    latent_unit: int = 1  # numbers of a token's latent are multiples of it, where heads share one
    longest_unasked: int = Limits.max_length  # tokens of a sequence, at most, where nobody says how many
    serves_here: bool = False  # whether the memory of the building machine is that of a server
    chunks_per_s: float = Limits.chunks_per_s  # see there: what a server of such engines can hand out
    code: tuple[str, ...]  # packages of the builder's targets that make its engines
    further_code: tuple[str, ...] = ()  # packages of the builder's that decide, too, what they look like
    runtime_code: tuple[str, ...]  # packages of the runtime's targets that run them

    found_here: Callable[[Mapping[str, Any]], Mapping[str, Any]] = nothing_here
    """Options that the machine says where those of the command line do not, so that what depends on it is part of the plan."""

    check: Callable[[BuildPlan], None]
    """Raise BuildError if the plan cannot be built, as far as only the target knows. Reads no file."""

    check_checkpoint: Callable[[BuildPlan, Checkpoint], None] = any_checkpoint
    """The same of a checkpoint whose weights are those that its config.json promises. Reads no weight."""

    engine_choices: Callable[[BuildPlan], Sequence[object]] = no_choices
    """What of the plan shapes the engine beside precision, speculation and `engine_length`; JSON-like."""

    engine_length: Callable[[BuildPlan, int | None], int] = asked_length
    """Tokens of a sequence that the engine itself is made for: at least the plan's; of the plan and the model's own length."""

    cache: Callable[[BuildPlan, tuple[CacheTensor, ...]], tuple[CacheTensor, ...]] = same_cache
    """How the plan's engine keeps a cache of which the graph says what it holds; for estimates."""

    compile: Callable[[BuildPlan, Checkpoint, Path, StageFactory], EngineFacts]
    """Write the engine into a folder; every part of the work runs in `with stage(name)`.

    The folder is empty, or holds what an interrupted call with the same arguments left there.
    """

    proof: Callable[[VerifyJob], Proof]
    """The way asked for, of "auto" the best that this machine can go; raises TriuneError if it cannot go the way asked for."""

    verify: Callable[[VerifyJob, Proof], Verification]
    """Compare the engine with the checkpoint's float weights in that way."""

    estimate: Callable[[Sequence[Weight], bool, int], Mapping[str, PrecisionSize]] | None = None
    """Sizes by precision, of the weights, whether the head is the embedding table, and bytes of all KV slots; None: unknown."""


def budget_of(precision: TargetPrecision, how: str) -> Budget:
    """What an engine of that precision, proved in that way, must keep to; of one that is not proved any will do."""
    return precision.budgets.get(how) or next(iter(precision.budgets.values()), _ANY)


_ANY = Budget(greedy_agreement=0.0, perplexity_ratio=1.0)  # of engines that no build proves
