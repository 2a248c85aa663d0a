"""Configs are valid, alerts fire as their own tests say, every metric is real and every alert has its page.

Run: pytest tests/monitoring/test_rules.py
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from support.dashboards import panels
from support.watching import AMTOOL, FOLDER, NEEDS, PROMTOOL
from triune_gateway.access_log import Access
from triune_gateway.metrics import Metrics
from triune_runtime.metrics import FAMILIES

ROOT = FOLDER.parents[1]
TESTS = sorted(FOLDER.glob("*.test.yml"))
GROUPS = yaml.safe_load((FOLDER / "triune.rules.yml").read_text("utf-8"))["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
CASES = [
    case for path in TESTS for test in yaml.safe_load(path.read_text("utf-8"))["tests"] for case in test["alert_rule_test"]
]
# Of Triton, DCGM's exporter, the blackbox exporter and Prometheus itself.
OTHERS = re.compile(r"(nv_(inference|cpu|gpu)_|DCGM_FI_DEV_|probe_ssl_|up$)")
_WORDS = set(
    """sum by rate or and on unless le absent changes count deriv vector time min max min_over_time max_over_time
    label_replace histogram_quantile""".split()
)
promtool = pytest.mark.skipif(PROMTOOL is None, reason=NEEDS)
amtool = pytest.mark.skipif(AMTOOL is None, reason=NEEDS)


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ours() -> set[str]:
    """Names of all series that Triune's processes have."""
    gateway = Metrics()
    access = Access(request_id="", client=None, method="POST", path="/", tenant="t", first_chunk_s=0.1)
    gateway.of_tenant(access, "m")
    gateway.request("/v1/completions", 200, 0.1)
    gateway.of_certificate(lambda: 0.0)
    text, _ = gateway.render()
    found = {sample.name for family in text_string_to_metric_families(text.decode()) for sample in family.samples}
    for family in FAMILIES.values():
        found |= (
            {f"{family.name}{end}" for end in ("_bucket", "_count", "_sum")} if family.kind == "histogram" else {family.name}
        )
    return found


def named(expr: str) -> set[str]:
    """Names of metrics in a query."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|(by|on) ?\([^)]*\)', "", expr)
    return set(re.findall(r"[A-Za-z_][\w:]*", bare)) - _WORDS


@promtool
@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.compose.yml"])
def test_prometheus_takes_its_config_and_rules(name: str) -> None:
    assert "SUCCESS" in run(PROMTOOL, "check", "config", name)


@promtool
def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    run(PROMTOOL, "test", "rules", *TESTS)


@promtool
@pytest.mark.parametrize(
    ("what", "instead", "tests"),
    [("> 0.85", "> 0.95", "resources"), (" == 79", " == 7", "resources"), (" < 0.1", " < 0.01", "resources"),
     ("for: 30s", "for: 3m", "service"), (">= 3", ">= 9", "service"), ("> 14.4 ", "> 99 ", "promise")],
)  # fmt: skip
def test_a_rule_that_says_something_else_fails_its_test(tmp_path: Path, what: str, instead: str, tests: str) -> None:
    text = (FOLDER / "triune.rules.yml").read_text("utf-8")
    (tmp_path / "triune.rules.yml").write_text(text.replace(what, instead))
    name = f"triune.{tests}.test.yml"
    (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    done = subprocess.run([str(PROMTOOL), "test", "rules", name], cwd=tmp_path, capture_output=True)
    assert what in text and done.returncode


@amtool
def test_alertmanager_takes_its_config() -> None:
    assert "SUCCESS" in run(AMTOOL, "check-config", "alertmanager.yml")


@amtool
@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_every_alert_reaches_the_operators(severity: str) -> None:
    assert (
        run(AMTOOL, "config", "routes", "test", "--config.file=alertmanager.yml", f"severity={severity}").strip() == "operators"
    )


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_fires_and_is_silent(name: str) -> None:
    cases = [bool(case["exp_alerts"]) for case in CASES if case["alertname"] == name]
    assert True in cases and False in cases


def test_every_alert_leads_to_its_section_and_no_section_is_left_over() -> None:
    text = (ROOT / "docs/runbooks.md").read_text("utf-8")
    sections = re.findall(r"^## (Triune\w+)$", text, re.MULTILINE)
    assert sections == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"]
    for section in text.split("\n## ")[1:]:
        assert "**Means**" in section and "**Look**" in section and "**Do**" in section, section.splitlines()[0]


def test_rules_and_panels_ask_for_metrics_that_exist() -> None:
    asked = [rule["expr"] for rule in RULES] + [expr for panel in panels() for expr in panel.queries]
    unknown = {name for expr in asked for name in named(expr)} - ours() - RECORDED
    assert not {name for name in unknown if not OTHERS.match(name)}


def test_the_page_names_every_metric() -> None:
    page = (ROOT / "docs/monitoring.md").read_text("utf-8")
    gateway = {name for name in ours() if name.startswith("triune_openai_")}
    families = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in gateway}
    assert not {name for name in {*FAMILIES, *RECORDED, *families} if f"`{name}`" not in page}


def test_both_ways_to_find_servers_watch_the_same_jobs() -> None:
    def jobs(name: str) -> list[tuple[object, ...]]:
        found = yaml.safe_load((FOLDER / name).read_text("utf-8"))["scrape_configs"]
        return [(job["job_name"], job.get("metrics_path"), job.get("params")) for job in found]

    assert jobs("prometheus.yml") == jobs("prometheus.compose.yml")
    assert [name for name, *_ in jobs("prometheus.yml")][:2] == ["triune", "triune-openai"]
