"""Verdicts as JUnit XML, which GitLab, Jenkins and others show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from evalkit.verdict.gate import Check, Verdict

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdict: Verdict) -> bytes:
    """Return a gate's XML: a test case for every check.

    A regression is a ``failure``, what cannot be judged an ``error``.
    """
    return document(
        f"evalkit gate: {verdict.task.upper()} on {verdict.dataset}",
        f"evalkit.gate.{verdict.task.upper()}",
        {"baseline": verdict.baseline, "candidate": verdict.candidate},
        verdict.checks,
    )


def document(
    name: str, classname: str, properties: Mapping[str, str], checks: Sequence[Check]
) -> bytes:
    """Return the XML of one suite with a test case for every check."""
    outcomes = [check.outcome for check in checks]
    counts = {
        "tests": len(outcomes),
        "failures": outcomes.count("fail"),
        "errors": outcomes.count("cannot_judge"),
        "skipped": outcomes.count("skipped"),
    }
    totals = {key: str(count) for key, count in counts.items()}
    root = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(root, "testsuite", {"name": clean(name), **totals})
    listed = ElementTree.SubElement(suite, "properties")
    for key, value in properties.items():
        ElementTree.SubElement(listed, "property", {"name": key, "value": clean(value)})
    for check in checks:
        _case(suite, check, clean(classname))
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def clean(text: str) -> str:
    """Replace what no XML document can hold, such as control characters."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _case(suite: ElementTree.Element, check: Check, classname: str) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": classname, "name": clean(check.name)}
    )
    message = clean(check.message)
    kinds = {"fail": "failure", "cannot_judge": "error", "skipped": "skipped"}
    if check.outcome in kinds:
        outcome = ElementTree.SubElement(case, kinds[check.outcome], {"message": message})
        if check.outcome != "skipped":
            outcome.text = message
    else:
        ElementTree.SubElement(case, "system-out").text = message
