"""A sign-off for its readers: terminal, Markdown, CSV, JUnit XML, annotations, the page."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

from evalkit.core.files import atomic_write
from evalkit.report.junit import document
from evalkit.report.markdown import escape, table
from evalkit.report.signoff_tables import (
    BESIDE,
    COLUMNS,
    TESTS,
    TITLES,
    facts_of,
    inert,
    marks,
    matrix_rows,
    texts,
    titles,
)
from evalkit.report.table import text_table
from evalkit.report.verdict import append_summary, printable, workflow_commands
from evalkit.verdict.gate import Check
from evalkit.verdict.gate import Outcome as CheckOutcome
from evalkit.verdict.signoff.preview import Preview
from evalkit.verdict.signoff.record import Outcome, Signoff

_STORED = (
    "*: scored from stored outputs; the speed is that of the run that computed them, "
    "its memory is unknown"
)


def publish(record: Signoff, folder: Path, say: Callable[[str], object]) -> list[Path]:
    """Write a record and all that is made from it beside each other.

    Parameters
    ----------
    record : Signoff
    folder : Path
        Of the record; its cells' results lie below.
    say : callable
        Prints a line into the log.

    Returns
    -------
    list of Path
        What was written.

    Notes
    -----
    The Markdown is also appended to the file that ``GITHUB_STEP_SUMMARY`` names, and where
    ``GITHUB_ACTIONS`` is ``true`` whatever did not pass becomes an annotation.
    """
    from evalkit.report.page import write_page  # noqa: PLC0415 - heavy

    say(describe(record))
    checks = checks_of(record)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands("evalkit signoff", checks):
            say(line)
    name = f"evalkit signoff: {record.name}"
    files = {
        "signoff.md": markdown(record).encode("utf-8", "replace"),
        "signoff.csv": csv_table(record).encode("utf-8", "replace"),
        "signoff.xml": document(name, "evalkit.signoff", {"plan": record.plan.sha256}, checks),
    }
    written = [record.save(folder)]
    for file_name, content in files.items():
        with atomic_write(folder / file_name) as file:
            file.write(content)
        written.append(folder / file_name)
    written.append(write_page(folder / "report.html", record, folder))
    append_summary(markdown(record))
    return written


def checks_of(record: Signoff) -> list[Check]:
    """Return the cells as checks: what could not be judged is an error, unless it is optional."""
    outcomes: dict[Outcome, CheckOutcome] = {"pass": "pass", "reference": "pass", "fail": "fail"}
    return [
        Check(
            name=f"{cell.protocol}/{cell.mode}",
            outcome="skipped"
            if cell.optional and cell.outcome in {"cannot_run", "not_run"}
            else outcomes.get(cell.outcome, "cannot_judge"),
            message=f"{TITLES[cell.outcome]}: {cell.reason}",
        )
        for cell in record.cells
    ]


def describe(record: Signoff) -> str:
    """Lay a record out for the terminal: the verdict, the matrix, the tests, the reasons."""
    level = f"{100 * record.plan.statistics.level:g} %"
    parts = [
        f"sign-off {printable(record.name)}: {TITLES[record.outcome]}\n{printable(record.reason)}",
        _matrix(record),
        f"tests; figures in %, one-sided {level} bounds and margins in points\n{_tests(record)}",
        _beside(record),
        _reasons(record),
        "\n".join(f"warning: {printable(warning)}" for warning in record.warnings),
    ]
    return "\n\n".join(part for part in parts if part)


def markdown(record: Signoff) -> str:
    """Return the same tables for Markdown."""
    header, rows = matrix_rows(record)
    lines = [
        f"## evalkit signoff: {TITLES[record.outcome]}",
        "",
        f"{escape(record.name)}: {escape(record.reason)}",
        "",
        table([escape(cell) for cell in header], rows),
        "",
        *(f"- {escape(line)}" for line in marks(record)),
        *[""] * bool(marks(record)),
        table(titles(COLUMNS), [texts(COLUMNS, facts_of(cell)) for cell in record.cells]),
    ]
    lines += ["", *(f"- warning: {escape(warning)}" for warning in record.warnings)]
    return "\n".join(lines).rstrip() + "\n"


def csv_table(record: Signoff) -> str:
    """Return a row for each cell; texts that a spreadsheet would compute are quoted."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(titles(COLUMNS))
    for cell in record.cells:
        writer.writerow([inert(text) for text in texts(COLUMNS, facts_of(cell))])
    return file.getvalue()


def describe_preview(preview: Preview) -> str:
    """Lay out what a sign-off would do."""
    rows = [
        [
            printable(cell.job.name),
            printable(cell.state),
            "" if cell.seconds is None else f"{cell.seconds:,.0f}",
            cell.basis,
        ]
        for cell in preview.cells
    ]
    known = [cell.seconds for cell in preview.cells if cell.seconds is not None]
    unknown = [cell for cell in preview.cells if cell.seconds is None]
    reasons: dict[str, list[str]] = {}
    for cell in unknown:
        said = f"{cell.state}: {printable(cell.reason)}"
        reasons.setdefault(said, []).append(printable(cell.job.name))
    lines = [f"about {sum(known):,.0f} s in all"]
    if unknown:
        lines.append(f"(without {len(unknown)} cells that cannot run)")
    changes = [f"the plan has changed: {printable(change)}" for change in preview.changes]
    return "\n\n".join(
        part
        for part in (
            text_table(["cell", "state", "seconds", "going by"], rows, left=2),
            *(f"{reason}\n  {', '.join(names)}" for reason, names in reasons.items()),
            " ".join(lines),
            "\n".join(changes),
        )
        if part
    )


def _matrix(record: Signoff) -> str:
    captions, rows = matrix_rows(record)
    header = ["", *(printable(protocol.name) for protocol in record.protocols)]
    lines = [printable(title) for title in captions[1:]]
    lines += [text_table(header, rows, left=len(header)), *map(printable, marks(record))]
    return "\n".join(lines)


def _tests(record: Signoff) -> str:
    rows = [texts(TESTS, facts_of(cell)) for cell in record.cells if cell.test is not None]
    return text_table(titles(TESTS), rows, left=2) if rows else "none"


def _beside(record: Signoff) -> str:
    """Return what is reported and not tested."""
    rows, stored = [], False
    for cell in record.cells:
        if cell.run is not None:
            facts = facts_of(cell)
            row = dict(zip(titles(BESIDE), texts(BESIDE, facts), strict=True))
            if cell.run.from_store:
                stored = True
                row["images/s"] += "*" if row["images/s"] else ""
            rows.append([facts["cell"], *row.values()])
    if not rows:
        return ""
    table = text_table(["beside, not tested", *titles(BESIDE)], rows)
    return f"{table}\n{_STORED}" if stored else table


def _reasons(record: Signoff) -> str:
    return "\n".join(
        f"{TITLES[cell.outcome]}: {cell.protocol}/{cell.mode}: {printable(cell.reason)}"
        for cell in record.cells
        if cell.outcome not in {"pass", "reference"}
        or any(x.outcome == "flag" for x in cell.limits)
    )
