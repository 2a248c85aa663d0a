"""Locked packages are looked up among advisories rightly. Run: pytest tests/setup/test_audit.py"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SPEC = importlib.util.spec_from_file_location("audit", Path(__file__).parents[2] / "requirements" / "audit.py")
assert SPEC is not None and SPEC.loader is not None
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)
hits, main, pinned = audit.hits, audit.main, audit.pinned


def advisory(
    *events: dict[str, str], versions: tuple[str, ...] = (), name: str = "Some_Package", **more: Any
) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
    return {"id": "X", "affected": [{"package": {"name": name}, "ranges": ranges, "versions": list(versions)}], **more}


FROM_1_TO_2 = ({"introduced": "1.0"}, {"fixed": "2.0"})
ALL_BEFORE_3 = ({"introduced": "0"}, {"fixed": "3.0"})


@pytest.mark.parametrize(
    ("version", "said", "holds"),
    [
        ("0.9", advisory(*FROM_1_TO_2), False),
        ("1.0", advisory(*FROM_1_TO_2), True),
        ("1.10.0", advisory(*FROM_1_TO_2), True),  # no string of letters
        ("2.0", advisory(*FROM_1_TO_2), False),
        ("2.9", advisory(*ALL_BEFORE_3), True),
        ("3.0", advisory(*ALL_BEFORE_3), False),
        ("1.5", advisory({"introduced": "1.0"}, {"last_affected": "1.5"}), True),
        ("1.6", advisory({"introduced": "1.0"}, {"last_affected": "1.5"}), False),
        ("1.5", advisory(*FROM_1_TO_2, *({"introduced": "2.5"}, {"fixed": "2.6"})), True),
        ("2.5", advisory(*FROM_1_TO_2, *({"introduced": "2.5"}, {"fixed": "2.6"})), True),
        ("7", advisory(versions=("7", "8")), True),
        ("7", advisory(versions=("8",)), False),
        ("1.5", advisory(*FROM_1_TO_2, withdrawn="2026-01-01"), False),
        ("1.5", advisory(*FROM_1_TO_2, name="another"), False),
    ],
)
def test_a_version_is_hit_by_the_advisories_about_it_alone(version: str, said: dict[str, Any], holds: bool) -> None:
    assert hits(version, said, "some-package") is holds


def test_every_locked_package_is_read_from_the_lists() -> None:
    packages = {name for name, _ in pinned()}
    assert {"starlette", "uvicorn", "numpy", "onnxruntime"} <= packages and len(packages) > 100


def test_an_advisory_in_the_copy_is_found_and_fails_the_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path) == 2 and "git clone" in capsys.readouterr().err
    (tmp_path / "vulns" / "starlette").mkdir(parents=True)
    assert main(tmp_path) == 0 and ": 0 hold" in capsys.readouterr().out
    ranges = '[{type: ECOSYSTEM, events: [{introduced: "0"}]}]'
    text = f"id: X-1\nsummary: bad\naffected:\n- package: {{name: starlette}}\n  ranges: {ranges}\n"
    (tmp_path / "vulns" / "starlette" / "X-1.yaml").write_text(text, "utf-8")
    assert main(tmp_path) == 1 and "starlette" in capsys.readouterr().out
