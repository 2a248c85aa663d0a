"""The report that lies beside an engine: JSON for programs, a table for people. Measures nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..errors import BuildError
from .budget import Budget
from .drafts import DraftFigures
from .verification import Disagreement, LogitsError, TextLoss, Verification, problems, shown

JSON_NAME, TEXT_NAME = "report.json", "report.txt"
FORMAT = 1
_WIDTH = 110


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of the checkpoint."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """What a stage took; `reused`: its result was still there from an earlier build."""

    name: str
    seconds: float
    peak_bytes: int  # resident memory, mapped files included
    reused: bool = False


@dataclass(frozen=True, kw_only=True)
class WeightChange:
    """What quantization made of one weight."""

    name: str
    scheme: str
    bytes_before: int  # as float32
    bytes_after: int
    error: float | None  # root mean square of the difference over that of the checkpoint's own numbers
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """Everything worth knowing of a build."""

    model: str
    target: str
    precision: str
    inputs_hash: str
    sources: tuple[Source, ...]
    tools: dict[str, str]
    stages: tuple[StageRun, ...]
    changes: tuple[WeightChange, ...]
    verification: Verification | None  # None: the user asked for none
    budget: Budget
    unproved: str = ""  # why a build proves nothing of such an engine; empty: it does
    limits: tuple[tuple[str, str], ...] = ()  # what is limited, and to how many and why
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # path in the repository -> bytes, sha256
    format: int = FORMAT

    @property
    def problems(self) -> list[str]:
        """What is over the budget."""
        return problems(self.verification, self.budget) if self.verification else []

    @property
    def summary(self) -> str:
        """What was proved of the engine, in one line."""
        found = self.verification
        if found is None and self.unproved:
            return f"nothing: {self.unproved}"
        if found is None:
            return "nothing: verification was left out, as VERIFY=none asked"
        line = (
            f"perplexity {found.perplexity_engine:.2f}, float weights {found.perplexity_reference:.2f};"
            f" {found.agreement(self.budget.tie):.1%} of {found.greedy_tokens} greedy tokens as the float weights choose"
        )
        return f"{line}; in part: {found.left_out}" if found.left_out else line

    def write(self, folder: Path) -> None:
        """Write report.json and report.txt into `folder`."""
        raw = finite(dataclasses.asdict(self))
        (folder / JSON_NAME).write_text(json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        (folder / TEXT_NAME).write_text(self.text(), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> BuildReport:
        """Read report.json of `folder`.

        Raises:
            BuildError: no report there, or one of another version.
        """
        path = folder / JSON_NAME
        try:
            raw = json.loads(path.read_text("utf-8"))
            raw["sources"] = tuple(Source(**s) for s in raw["sources"])
            raw["stages"] = tuple(StageRun(**s) for s in raw["stages"])
            raw["changes"] = tuple(WeightChange(**c) for c in raw["changes"])
            raw["verification"] = verification_from(raw["verification"]) if raw["verification"] else None
            raw["limits"] = tuple((what, many) for what, many in raw.get("limits", ()))
            raw["budget"] = Budget(**raw["budget"])
            return cls(**raw)
        except FileNotFoundError:
            raise BuildError(f"no {JSON_NAME} in {folder}", "run `make engine`") from None
        except (ValueError, KeyError, TypeError) as error:
            raise BuildError(f"{path} cannot be read: {error}", "build again; the report is written anew") from error

    def text(self) -> str:
        """The report as plain text."""
        out = StringIO()
        Console(file=out, width=_WIDTH, no_color=True, legacy_windows=False).print(self.tables())
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"

    def tables(self) -> Group:
        """The report for a terminal."""
        head = Text(f"{self.model} · target {self.target} · precision {self.precision} · {self.inputs_hash[:16]}")
        over = self.problems
        verdict = Text("within its budget" if not over else "OVER ITS BUDGET: " + "; ".join(over))
        if self.verification is None and self.unproved:
            verdict = Text(f"not verified: {self.unproved}")
        elif self.verification is None:
            verdict = Text("NOT VERIFIED: built with --verify none; nothing says that the engine computes what it should")
        elif self.verification.left_out:
            verdict.append(f"\nVERIFIED IN PART: {self.verification.left_out}")
        return Group(head, verdict, *(t for t in self._tables() if t.row_count))

    def _tables(self) -> Iterable[Table]:
        if self.verification:
            yield _numbers(self.verification, self.budget)
            yield _disagreements(self.verification.disagreements)
        yield _table("limits", ("what", "how many"), self.limits)
        yield _changes(self.changes)
        yield _table("stages", ("stage", "seconds", "peak memory", ""), [
            (s.name, f"{s.seconds:.1f}", _size(s.peak_bytes), "reused" if s.reused else "") for s in self.stages
        ])  # fmt: skip
        yield _table("sources", ("file", "bytes", "sha256"), [(s.name, f"{s.bytes:,}", s.sha256) for s in self.sources])
        yield _table("tools", ("tool", "version"), sorted(self.tools.items()))


def verification_from(raw: dict[str, Any]) -> Verification:
    """The inverse of `dataclasses.asdict` and JSON; what JSON could not hold comes back as not-a-number."""
    may_lack = ("decode", "batch_error", "repeat_error", "chunk_error") if raw.get("left_out") else ()
    unmeasured = {key: None for key in may_lack if raw[key] is None}
    drafts = raw.get("drafts")
    unmeasured["drafts"] = None
    unmeasured |= {name: None for name in ("best_errors", "batch_median") if raw.get(name) is None}  # as of older builds
    raw = _numbered(raw) | unmeasured
    if drafts:
        raw["drafts"] = DraftFigures(**drafts)
    for kind in {"decode", "prefill"} - unmeasured.keys():
        raw[kind] = LogitsError(**_numbered(raw[kind]))
    raw["texts"] = tuple(TextLoss(**_numbered(t)) for t in raw["texts"])
    raw["disagreements"] = tuple(Disagreement(**_numbered(d)) for d in raw["disagreements"])
    return Verification(**raw)


def _numbered(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in raw.items()}


def _numbers(found: Verification, budget: Budget) -> Table:
    """The measured figures beside their limits."""

    def logits(name: str, error: LogitsError) -> list[tuple[str, str, str]]:
        return [
            (f"relative logits error, {name}", f"{error.maximum:.3g} max, {error.median:.3g} median of {error.positions}",
             _limit(budget.logits_error)),
            (f"KL divergence, {name}", f"{error.mean_kl:.3g} mean, {error.maximum_kl:.3g} max", _limit(budget.mean_kl)),
        ]  # fmt: skip

    rows = [
        ("perplexity, float weights", f"{found.perplexity_reference:.6g} over {found.text_tokens} tokens", ""),
        ("perplexity, engine", f"{found.perplexity_engine:.6g} (x {found.perplexity_ratio:.5f})",
         _limit(budget.perplexity_ratio, "x ")),
        *((f"perplexity of {text.name} texts, engine over float weights",
           f"x {text.ratio:.4f}, standard error {text.standard_error:.4f}, over {text.tokens} tokens",
           _limit(budget.kind_ratio, "x ")) for text in found.texts if len(found.texts) > 1),
        *(logits("decode", found.decode) if found.decode else ()),
        *logits("prefill", found.prefill),
        ("greedy tokens as the float weights choose",
         f"{found.agreement(budget.tie):.2%} of {found.greedy_tokens} in {found.prompts} answers"
         f" ({found.agreement():.2%} with ties within {budget.tie:g} counted as wrong)", f">= {budget.greedy_agreement:.2%}"),
    ]  # fmt: skip
    is_typical = bool(budget.batch_error) and found.batch_median is not None
    ways = [
        ("a sequence alone and in a batch", found.batch_error, None if is_typical else budget.batch_error),
        ("the same, median row", found.batch_median if is_typical else None, budget.batch_error),
        ("a prompt alone and among other work", found.repeat_error, budget.batch_error),
        ("a prompt cut into other chunks", found.chunk_error, budget.chunk_error),
    ]
    rows += [(what, _same(error), _limit(limit)) for what, error, limit in ways if error is not None]
    if found.best_errors is not None:
        rows.append(("best tokens that their logits contradict", str(found.best_errors), "0"))
    if (drafts := found.drafts) is not None:
        rows.append(("a token alone and checked as a draft", _same(drafts.error), _limit(budget.batch_error)))
        if drafts.mtp_error is not None and drafts.mtp_kl is not None:
            of = f"of {drafts.mtp_positions}"
            rows.append(("relative logits error, MTP layer", f"{drafts.mtp_error:.3g} max {of}", _limit(budget.logits_error)))
            rows.append(("KL divergence, MTP layer", f"{drafts.mtp_kl:.3g} mean", _limit(budget.mean_kl)))
    return _table("engine against the float weights", ("figure", "measured", "allowed"), rows)


def _disagreements(every: Sequence[Disagreement]) -> Table:
    return _table(
        "greedy tokens the float weights would not choose, worst first",
        ("prompt", "position", "engine", "reference", "lead of the reference's", "of its largest logit"),
        [(str(d.prompt), str(d.position), str(d.engine), str(d.reference), f"{d.margin:.4f}", f"{d.lead:.2%}")
         for d in shown(every)],
    )  # fmt: skip


def _changes(changes: Sequence[WeightChange]) -> Table:
    rows = []
    for scheme, note in sorted({(c.scheme, c.note) for c in changes}):
        group = [c for c in changes if (c.scheme, c.note) == (scheme, note)]
        errors = [c.error for c in group if c.error is not None]
        rows.append((
            scheme,
            str(len(group)),
            f"{_size(sum(c.bytes_before for c in group))} -> {_size(sum(c.bytes_after for c in group))}",
            f"{max(errors):.2e}" if errors else "",
            f"{sum(errors) / len(errors):.2e}" if errors else "",
            note,
        ))  # fmt: skip
    return _table("quantized weights", ("scheme", "weights", "size", "max error", "mean error", "note"), rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", min_width=60)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _same(error: float) -> str:
    return "the same bits" if error == 0 else f"{error:.3g}"


def _limit(value: float | None, sign: str = "") -> str:
    return "" if value is None else "the same bits" if value == 0 else f"<= {sign}{value:g}"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity; null stands for both."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
