"""What was planned, as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .choosing import Candidate, Load, Speed, speed
from .formats import stored_bytes
from .hardware import GIB
from .memory import Rank, gib
from .roofline import Roofline, touched
from .rule import Rule, compare
from .simulate import PERCENTILES, Outcome
from .sources import Planned

_HOST_POWER = 1.25  # of the GPUs' own: processors, memory, fans, losses; a convention, not measured
_SHOWN = 6  # candidates that the table has
_LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 163840)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A finished plan."""

    model: Planned
    best: Candidate
    why: str
    candidates: list[Candidate]  # empty: the split was given
    load: Load
    build: Mapping[str, Any] = field(default_factory=dict)  # options of a build that makes the engine; empty: of no build
    simulated: Outcome | None = None
    fewest: bool = False  # it is simulated with the fewest replicas that keep the objectives
    objectives: str = ""

    @property
    def roofline(self) -> Roofline:
        assert self.best.roofline is not None
        return self.best.roofline

    @property
    def command(self) -> str:
        """What builds the engine."""
        said = {"target": self.roofline.engine.name, "model": self.model.name, **self.build}
        values = {name: int(value) if value is True else value for name, value in said.items() if value is True or value != 1}
        return " ".join(("make engine", *(f"{name.upper()}={value}" for name, value in values.items())))

    @property
    def rule(self) -> Rule:
        return compare(self.roofline.plan, self.load.sequences, self.load.length)

    def speeds(self) -> list[Speed]:
        """At 1, 2, 4, ... sequences, up to what fits."""
        most = min(self.best.held, self.roofline.plan.sequences * self.best.split.data)
        batches = [1 << n for n in range(most.bit_length()) if 1 << n < most]
        return [speed(self.roofline, batch, self.load) for batch in (*batches, most)]

    def capacity(self) -> dict[int, int]:
        """Tokens of a sequence -> how many of them fit, on all GPUs together."""
        longest = self.model.geometry.longest or _LENGTHS[-1]
        lengths = sorted({n for n in (*_LENGTHS, self.load.length, longest) if n <= max(longest, self.load.length)})
        return {length: self.roofline.plan.held(length) for length in lengths}

    def to_json(self) -> dict[str, Any]:
        """All figures; bytes, seconds, W."""
        plan, geometry = self.roofline.plan, self.model.geometry
        return {
            "model": self.model.name,
            "architecture": geometry.model_type,
            "parameters": geometry.parameters,
            "active_parameters": geometry.active_parameters,
            "spare_parameters": geometry.spare_parameters,
            "stored_bytes": self.stored,
            "gpu": asdict(plan.gpu) | {"bytes": plan.gpu.bytes},
            "gpus": plan.split.gpus,
            "split": asdict(plan.split),
            "why": self.why,
            "build": dict(self.build),
            "precision": plan.precision,
            "kv_dtype": plan.kv_dtype,
            "engine": self.roofline.engine.name,
            "ranks": [_rank(rank) for rank in plan.ranks],
            "kv_bytes_per_token": sum(rank.kv_per_token for rank in plan.ranks) * plan.split.tensor,
            "capacity": self.capacity(),
            "first_token_s": self.best.first_token,
            "speeds": [asdict(one) for one in self.speeds()],
            "power_w": self.power,
            "host_memory_bytes": self.host_memory,
            "rule_gb": asdict(self.rule),
            "candidates": [
                {"split": asdict(one.split), "why_not": one.why, "held": one.held, "speed": one.speed and asdict(one.speed)}
                for one in self.candidates
            ],
            "simulated": self.simulated and asdict(self.simulated),
            "times_planned": self.simulated and self.simulated.replicas // plan.split.data,
            "fewest": self.fewest,
        }

    @property
    def stored(self) -> int:
        """Bytes of the checkpoint's tensors."""
        geometry = self.model.geometry
        return self.model.stored or stored_bytes(geometry, "fp8" if geometry.fp8 else "bf16")

    @property
    def power(self) -> float:
        plan = self.roofline.plan
        return plan.gpu.power * plan.split.gpus * _HOST_POWER

    @property
    def host_memory(self) -> int:
        """Of all machines: the checkpoint once in the page cache, so that a start reads no disk, and some for processes."""
        return self.stored + self.roofline.plan.split.gpus * (4 << 30)

    def tables(self) -> Group:
        """The plan for a terminal."""
        plan = self.roofline.plan
        where = f"{plan.split.gpus} x {plan.gpu.name} · {plan.split}"
        head = Text(f"{self.model.name} · {where} · {plan.precision}, KV {plan.kv_dtype}")
        parts: list[RenderableType] = [head]
        parts += [Text(self.model.remark)] if self.model.remark else []
        parts += [_pairs("the plan", self._facts()), self._memory(), self._capacity(), self._speeds()]
        parts += [self._candidates()] if len(self.candidates) > 1 else []
        parts += [self._rule()]
        parts += [self._simulation(self.simulated)] if self.simulated else []
        return Group(*parts)

    def _facts(self) -> list[tuple[str, str]]:
        geometry, plan, line = self.model.geometry, self.roofline.plan, self.roofline
        spare = f"; {geometry.spare_parameters:,} more predict further tokens" if geometry.spare_parameters else ""
        token = sum(rank.kv_per_token for rank in plan.ranks) * plan.split.tensor
        facts = [
            ("parameters", f"{geometry.parameters:,}, {geometry.active_parameters:,} active for a token{spare}"),
            ("checkpoint", f"{gib(self.stored)} on disk; {gib(self.host_memory)} of host memory to start again without it"),
            ("why this split", self.why),
            *([("how it is built", self.command)] if self.build else []),
            ("KV of a token", f"{token:,} bytes on all ranks of a replica together"),
            ("first token", f"{self.best.first_token * 1e3:,.1f} ms for a prompt of {self.load.prompt:,} alone"),
        ]
        if geometry.experts:
            batch = self.best.speed.batch if self.best.speed else 1
            found = touched(geometry.experts, geometry.active, batch)
            told = f"{batch} sequences need {found:.0f} of a layer's {geometry.experts}, if they choose evenly"
            facts.append(("experts", told))
        sums, exchange = line.volume(1)
        if plan.split.gpus > 1:
            there = f", {exchange:,.0f} to experts elsewhere" if exchange else ""
            facts.append(("sent by a rank", f"{sums:,.0f} bytes a token in all-reduces{there}; {plan.gpu.link_name}"))
        if self.power:
            rate = self.best.speed.overall if self.best.speed else 0.0
            facts.append(("power", f"{self.power:,.0f} W with the hosts; {self.power / rate:,.3g} J a token" if rate else ""))
        return facts

    def _memory(self) -> Table:
        columns = ("layers", "weights", "activations", "libraries", "KV", "kept free", "KV tokens")
        table = _table(f"memory of a GPU of {gib(self.roofline.plan.gpu.bytes)}, by pipeline stage, GiB", *columns)
        for rank in self.roofline.plan.ranks:
            sizes = (f"{n / GIB:,.2f}" for n in (rank.weights, rank.activations, rank.runtime, rank.room, rank.free))
            table.add_row(f"{rank.layers.start} to {rank.layers.stop - 1}", *sizes, f"{rank.tokens:,}")
        return table

    def _capacity(self) -> Table:
        table = _table("sequences that fit, on all GPUs together", "tokens of each", "sequences")
        for length, count in self.capacity().items():
            table.add_row(f"{length:,}", f"{count:,}")
        return table

    def _speeds(self) -> Table:
        title = f"speed: prompts of {self.load.prompt:,}, answers of {self.load.output:,} (a roofline; see docs/planning.md)"
        table = _table(title, "sequences", "ms between tokens", "tokens/s decoding", "tokens/s with prompts", "bound by")
        for one in self.speeds():
            each = one.batch / self.best.split.data
            bound = self.roofline.parts(0, each, each * self.load.length).bound
            table.add_row(f"{one.batch:,}", f"{one.between * 1e3:.2f}", f"{one.decode:,.0f}", f"{one.overall:,.0f}", bound)
        return table

    def _candidates(self) -> Table:
        shown = self.candidates[:_SHOWN]
        reasons = ("why not",) if any(one.why for one in shown) else ()
        table = _table("ways to split", "split", "sequences that fit", "tokens/s", "ms between tokens", *reasons)
        for one in shown:
            rate, gap = (f"{one.speed.overall:,.0f}", f"{one.speed.between * 1e3:.2f}") if one.speed else ("none", "none")
            table.add_row(
                str(one.split), f"{one.held:,}" if one.speed else "none", rate, gap, *[one.why or "it fits" for _ in reasons]
            )
        return table

    def _rule(self) -> Table:
        rule = self.rule
        title = f"the article's rule for {self.load.sequences} sequences of {self.load.length:,}"
        table = _table(f"{title}: parameters x 2.2 + batch x length x 0.0005", "GB", "the rule", "computed", "why they differ")
        table.add_row("weights", f"{rule.weights:,.1f}", f"{rule.computed_weights:,.1f}", rule.why[0])
        table.add_row("KV", f"{rule.kv:,.1f}", f"{rule.computed_kv:,.1f}", rule.why[1])
        table.add_row("all", f"{rule.rule:,.1f}", f"{rule.computed:,.1f}", rule.why[2])
        return table

    def _simulation(self, one: Outcome) -> Group:
        times = one.replicas // self.best.split.data
        head = f"simulated: {one.requests:,} requests in {one.seconds:,.0f} s on {times:,} x the plan, {one.busy:.0%} busy"
        if self.fewest:
            head += f"; {'fewer do not' if times > 1 else 'enough to'} keep {self.objectives} for 99%"
        table = _table(head, "ms", *(f"p{n}" for n in PERCENTILES))
        for name, values in one.latencies.items():
            table.add_row(name.replace("_", " "), *(f"{value * 1e3:,.1f}" for value in values))
        facts = [
            ("tokens/s", f"{one.tokens_per_s:,.0f}"),
            ("goodput", f"{one.goodput:,.2f} requests/s keep {self.objectives}: {one.kept:.1%} of them"),
        ]
        if one.sent_back:
            facts.append(("sent back", f"{one.sent_back:,} times a sequence gave its KV memory to older ones"))
        return Group(table, _pairs("", facts))


def _rank(rank: Rank) -> dict[str, Any]:
    return {
        "stage": rank.stage, "layers": [rank.layers.start, rank.layers.stop], "weights": rank.weights,
        "activations": rank.activations, "runtime": rank.runtime, "kv_room": rank.room, "kept_free": rank.free,
        "kv_bytes_per_token": rank.kv_per_token, "kv_tokens": rank.tokens,
    }  # fmt: skip


def _pairs(title: str, rows: list[tuple[str, str]]) -> Table:
    table = _table(title, "", "")
    table.show_header = False
    for row in rows:
        table.add_row(*row)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        words = column.startswith("why") or not column
        table.add_column(column, justify="right" if number and not words else "left", overflow="fold")
    return table
