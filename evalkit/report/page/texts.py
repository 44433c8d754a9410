"""All tables of a report, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io

from evalkit.report.markdown import escape
from evalkit.report.markdown import table as markdown_table
from evalkit.report.page.facts import hashes, machines, settings
from evalkit.report.page.gather import Report
from evalkit.report.page.tables import bench_problems, bench_table, group_tables
from evalkit.report.signoff_tables import TITLES, inert
from evalkit.tasks.tables import Table


def report_tables(report: Report) -> list[Table]:
    """Return all tables of a report."""
    tables = [table for group in report.groups for table in group_tables(report, group)]
    for bench in report.benches:
        tables += [bench_table(bench), bench_problems(bench)]
    tables += [settings(report), hashes(report), machines(report)]
    return [table for table in tables if table.rows]


def markdown(report: Report) -> str:
    """Return the report's tables as Markdown."""
    verdict = TITLES[report.outcome] if report.outcome else "not judged"
    parts = [f"# {escape(report.title)}: {verdict}", escape(report.reason)]
    for table in report_tables(report):
        parts.append(f"## {escape(table.title)}")
        parts += [escape(note) for note in table.notes]
        parts.append(markdown_table([escape(text) for text in table.header], table.rows))
    return "\n\n".join(parts) + "\n"


def csv_text(report: Report) -> str:
    """Return the report's tables as CSV: the table's name first in each row.

    Texts that a spreadsheet would compute are quoted.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for table in report_tables(report):
        writer.writerow(["table", *table.header])
        writer.writerows([inert(text) for text in (table.title, *row)] for row in table.rows)
    return file.getvalue()
