"""Whether a run passed, and if not, why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .core.checks import CHECKS
from .core.thresholds import judge
from .settings import Settings

Json = dict[str, Any]


def judge_run(result: Mapping[str, Any], settings: Settings) -> Json:
    """The parts `checks`, `thresholds` and `verdict` of a result."""
    steps = result["steps"]
    counts: Counter[str] = Counter()
    for step in steps:
        counts.update(step["violations"])
    checks = {name: {"enabled": name in settings.checks, "violations": counts[name]} for name in CHECKS}
    asked = sum(step["asked"] for step in steps)
    checks["text"]["seen"] = result["repeats_compared"]
    thresholds = []
    for step in steps:
        for threshold in settings.thresholds:
            outcome = judge(threshold, step["figures"])
            value = None if outcome.value is None else round(outcome.value, 4)
            thresholds.append({"load": step["load"], "threshold": str(threshold), "value": value, "kept": outcome.kept})
    reasons = [f"{n} wrong answers: {name}: {CHECKS[name]}" for name, n in counts.items() if n]
    for step in steps:
        share = step["figures"]["error_share"]
        if share > settings.max_errors and settings.search is None:
            reasons.append(f"{step['load']}: {share:.1%} of the requests failed; at most {settings.max_errors:.1%} may")
        if step["interrupted"]:
            reasons.append(f"{step['load']}: interrupted")
        elif not step["figures"]["requests"]:
            reasons.append(f"{step['load']}: no request counts: none started after the warm-up; make --duration longer")
    reasons += [f"{t['load']}: {t['threshold']} is not kept: {t['value']}" for t in thresholds if not t["kept"]]
    if not asked:
        reasons.append("nothing was asked")
    return {"checks": checks, "thresholds": thresholds, "verdict": {"passed": not reasons, "reasons": reasons}}
