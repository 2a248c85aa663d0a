"""Tables and pages from made-up results. Run: pytest tests/bench/test_report.py"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from bench.report import Results, markdown, medians, ratios, replace_between_marks, rows, write_docs
from bench.timing import Round

PAGE = "# Title\n\n<!-- results: begin -->\nold\n<!-- results: end -->\n\nThe end.\n"


def figures(tokens_per_s: float) -> Round:
    return Round(tokens_per_s, 0.25, 0.5, 0.010, 0.020)


def results() -> Results:
    return {
        "server": {1: {0: figures(60), 1: figures(80)}, 8: {0: figures(200)}},
        "bare": {1: {0: figures(75), 1: figures(100)}, 8: {0: figures(250)}},
        "openvino": {},
    }


def record() -> dict[str, Any]:
    machine = {
        "cores": 2,
        "cpu": "CPU",
        "instructions": "avx2",
        "memory_gb": 8,
        "system": "S",
        "python": "3",
        "busy_before": 0.03,
    }
    return {
        "date": "2026-01-02",
        "command": "python -m bench",
        "machine": machine,
        "rounds": 2,
        "tokens": 64,
        "subjects": {"server": {"idle_memory_bytes": 480_000_000}, "openvino": {"problem": "not installed"}},
        "medians": {name: {n: asdict(r) for n, r in counts.items()} for name, counts in medians(results()).items()},
    }


def test_ratios_are_the_servers_over_every_other() -> None:
    assert ratios(results()) == {"bare": {1: pytest.approx(0.8), 8: pytest.approx(0.8)}}


def test_a_row_shows_throughput_ratio_and_latencies() -> None:
    assert rows(results())[2] == ("bare runtime loop", "1", "88", "0.80", "250 (500)", "10.0 (20.0)")


def test_a_subject_that_could_not_be_measured_is_named_with_its_reason() -> None:
    text = markdown(record(), results())
    assert "- OpenVINO GenAI: problem not installed" in text
    assert "| OpenVINO" not in text
    assert "idle memory 480 MB" in text


def test_only_what_is_between_the_marks_is_rewritten() -> None:
    changed = replace_between_marks(PAGE, "new")
    assert changed == PAGE.replace("old", "new")
    assert replace_between_marks(changed, "new") == changed


def test_a_page_without_marks_is_refused_and_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Title\n")
    with pytest.raises(ValueError, match="results: begin"):
        write_docs(record(), results(), tmp_path)
    assert page.read_text() == "# Title\n"
    assert not (tmp_path / "benchmarks").exists()


def test_the_record_is_kept_whole_and_linked_from_the_page(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(PAGE)
    write_docs(record(), results(), tmp_path)
    kept = tmp_path / "benchmarks" / "2026-01-02-cpu.json"
    assert json.loads(kept.read_text()) == json.loads(json.dumps(record()))
    assert "(benchmarks/2026-01-02-cpu.json)" in page.read_text()
    assert page.read_text().endswith("The end.\n")
