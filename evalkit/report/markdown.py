"""Markdown that shows any text as that text."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from evalkit.tasks import title_of
from evalkit.verdict.gate import Check, Verdict

TITLES = {"pass": "PASS", "fail": "FAIL", "cannot_judge": "CANNOT JUDGE", "skipped": "skipped"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$@:])")


def escape(text: str) -> str:
    r"""Return text that Markdown shows literally, in one line, also within a table's cell.

    Examples
    --------
    >>> print(escape("a|b <i>*c*"))
    a\|b &lt;i&gt;\*c\*
    """
    one_line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", html.escape(one_line, quote=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every cell is escaped."""
    lines = [list(header), ["---"] * len(header)]
    body = [[escape(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [*lines, *body])


def markdown(verdict: Verdict) -> str:
    """Return a gate's verdict: the outcome, what failed, then every check."""
    lines = [
        f"## evalkit gate: {TITLES[verdict.outcome]}",
        "",
        f"{escape(title_of(verdict.task))} on {escape(verdict.dataset)}  ",
        f"baseline: {escape(verdict.baseline)}  ",
        f"candidate: {escape(verdict.candidate)}",
        "",
        table(
            ["check", "outcome", "baseline", "candidate", "limit", "why"],
            [_row(check) for check in verdict.checks],
        ),
    ]
    return "\n".join(lines) + "\n"


def _row(check: Check) -> list[str]:
    numbers = [figure(value) for value in (check.baseline, check.candidate, check.limit)]
    return [check.name, TITLES[check.outcome], *numbers, check.message]


def figure(value: float | None) -> str:
    """Return an error rate or a count, nothing for None."""
    return "" if value is None else f"{value:.6g}"
