"""What stands under the verdict: why, in a sentence, and the first cells that it comes from."""

from __future__ import annotations

from evalkit.report.page.gather import Report
from evalkit.report.signoff_tables import TITLES
from evalkit.verdict.signoff.record import Cell

_SENTENCES = {
    "pass": "Every required mode keeps its accuracy within the margins that the plan fixed.",
    "inconclusive": "These data and runs cannot decide whether every mode keeps its accuracy.",
    None: "Figures without a verdict.",
}
_LOST = "loses more than the plan accepts"
_BROKEN = {
    "drift cosine p1": "moves embeddings beyond the plan's limit",
    "failures to enrol": "fails to enrol more images than the plan allows",
}
_OTHER = "breaks a limit of the plan"
_SHOWN = 3
_OPEN = ("fail", "inconclusive", "cannot_run", "not_run")


def sentence(report: Report) -> str:
    """Return the verdict in a sentence: of a failure, what failed."""
    if report.outcome != "fail":
        return _SENTENCES[report.outcome]
    causes = [cause for cell in _cells(report) if cell.outcome == "fail" for cause in _causes(cell)]
    distinct = sorted(dict.fromkeys(causes), key=lambda cause: cause != _LOST) or [_LOST]
    text = "; ".join(f"at least one mode {cause}" for cause in distinct)
    if _LOST not in distinct:
        text += "; none fails the test of its accuracy"
    return f"{text[0].upper()}{text[1:]}."


def _causes(cell: Cell) -> list[str]:
    lost = [_LOST] if cell.test is not None and cell.test.outcome == "fail" else []
    return lost + [
        _BROKEN.get(limit.name, _OTHER) for limit in cell.limits if limit.outcome == "fail"
    ]


def reason(report: Report) -> tuple[str, int]:
    """Return which cells the verdict comes from, the worst first, and how many more there are."""
    cells = [
        cell
        for outcome in _OPEN
        for cell in _cells(report)
        if cell.outcome == outcome and not (cell.optional and outcome in {"cannot_run", "not_run"})
    ]
    if not cells:
        return report.reason, 0
    shown: dict[str, list[str]] = {}
    for cell in cells[:_SHOWN]:
        shown.setdefault(TITLES[cell.outcome], []).append(f"{cell.protocol}/{cell.mode}")
    listed = "; ".join(f"{title}: {', '.join(names)}" for title, names in shown.items())
    return listed, len(cells) - len(cells[:_SHOWN])


def _cells(report: Report) -> tuple[Cell, ...]:
    return report.record.cells if report.record else ()
