"""A gate's verdict as JUnit XML, which GitLab, Jenkins and others show."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from evalkit.gate import Check, Verdict

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdict: Verdict) -> bytes:
    """Return the XML: a test case for every check.

    A regression is a ``failure``, what cannot be judged an ``error``.
    """
    outcomes = [check.outcome for check in verdict.checks]
    counts = {
        "tests": len(outcomes),
        "failures": outcomes.count("fail"),
        "errors": outcomes.count("cannot_judge"),
        "skipped": outcomes.count("skipped"),
    }
    totals = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites", totals)
    name = clean(f"evalkit gate: {verdict.protocol} on {verdict.dataset}")
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **totals})
    properties = ElementTree.SubElement(suite, "properties")
    for key in ("baseline", "candidate"):
        value = clean(getattr(verdict, key))
        ElementTree.SubElement(properties, "property", {"name": key, "value": value})
    for check in verdict.checks:
        _case(suite, check, verdict)
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def clean(text: str) -> str:
    """Replace what no XML document can hold, such as control characters."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _case(suite: ElementTree.Element, check: Check, verdict: Verdict) -> None:
    classname = clean(f"evalkit.gate.{verdict.protocol}")
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": classname, "name": clean(check.name)}
    )
    message = clean(check.message)
    kinds = {"fail": "failure", "cannot_judge": "error", "skipped": "skipped"}
    if check.outcome in kinds:
        found = ElementTree.SubElement(case, kinds[check.outcome], {"message": message})
        if check.outcome != "skipped":
            found.text = message
    else:
        ElementTree.SubElement(case, "system-out").text = message
