"""The result as JUnit's XML: a test case for each check and each threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from ..core.checks import CHECKS

Json = Mapping[str, Any]


def render_junit(result: Json) -> str:
    """The XML of a result."""
    cases = list(_cases(result))
    seconds = sum(step["wall_s"] for step in result["steps"])
    failed, skipped = (sum(1 for case in cases if case.find(kind) is not None) for kind in ("failure", "skipped"))
    suite = ElementTree.Element(
        "testsuite", name=f"triune-load {result['target']['protocol']}", tests=str(len(cases)), failures=str(failed),
        errors="0", skipped=str(skipped), time=f"{seconds:.3f}", timestamp=str(result["began"]),
    )  # fmt: skip
    suite.extend(cases)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _cases(result: Json) -> Iterator[ElementTree.Element]:
    for name, one in result["checks"].items():
        case = ElementTree.Element("testcase", classname="checks", name=f"{name}: {CHECKS[name]}")
        if not one["enabled"]:
            ElementTree.SubElement(case, "skipped", message="not asked for")
        elif one["violations"]:
            told = [v["message"] for step in result["steps"] for v in step["violations_told"] if v["check"] == name]
            failure = ElementTree.SubElement(case, "failure", message=f"{one['violations']} wrong answers")
            failure.text = "\n".join(_printable(line) for line in told[:20])
        yield case
    for one in result["thresholds"]:
        case = ElementTree.Element("testcase", classname=f"thresholds.{one['load']}", name=one["threshold"])
        if not one["kept"]:
            ElementTree.SubElement(case, "failure", message=f"it is {one['value']}")
        yield case
    rest = [r for r in result["verdict"]["reasons"] if "wrong answers" not in r and "is not kept" not in r]
    case = ElementTree.Element("testcase", classname="run", name="requests are answered")
    if rest:
        ElementTree.SubElement(case, "failure", message=_printable("; ".join(rest)))
    yield case


def _printable(text: str) -> str:
    """Without the characters that XML forbids."""
    return "".join(c if c >= " " or c in "\n\t" else "?" for c in text).encode("utf-8", "replace").decode()
