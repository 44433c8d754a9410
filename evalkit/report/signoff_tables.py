"""The tables of a sign-off as texts: what terminal, Markdown, CSV and page share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.verdict.signoff.record import Cell, Limit, Outcome, Overall, Run, Signoff

TITLES: dict[Outcome | Overall, str] = {
    "pass": "PASS",
    "fail": "FAIL",
    "inconclusive": "INCONCLUSIVE",
    "cannot_run": "CANNOT RUN",
    "not_run": "not run",
    "reference": "reference",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, the fact that it shows, and how.

    Attributes
    ----------
    title, fact : str
    form : str
        Of `format`; rates as per cent where `percent`.
    """

    title: str
    fact: str
    form: str = ""
    percent: bool = False

    def text(self, facts: Mapping[str, Any], absent: str) -> str:
        """Return the fact as a text; `absent` where there is none."""
        value = facts.get(self.fact)
        if value is None:
            return absent
        return format(100 * value if self.percent else value, self.form)


def texts(columns: Iterable[Column], facts: Mapping[str, Any], absent: str = "") -> list[str]:
    """Return a row of a table."""
    return [column.text(facts, absent) for column in columns]


def titles(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return a table's header."""
    return tuple(column.title for column in columns)


BESIDE = (
    Column("drift cosine p1", "drift", ".6f"),
    Column("FMR ratio", "fmr_ratio", ".3f"),
    Column("FNMR change points", "fnmr_change", "+.3f", True),
    Column("images/s", "rate", ",.1f"),
    Column("model MB", "model_mb", ".2f"),
    Column("memory MB", "memory", ",.0f"),
)
"""What is reported of a cell and not tested."""

COLUMNS = (
    Column("verdict", "verdict"),
    Column("protocol", "protocol"),
    Column("backend", "backend"),
    Column("precision", "precision"),
    Column("ran", "ran"),
    Column("figure", "metric"),
    Column("reference %", "reference", ".4f", True),
    Column("value %", "candidate", ".4f", True),
    Column("difference points", "difference", "+.4f", True),
    Column("low points", "low", "+.4f", True),
    Column("high points", "high", "+.4f", True),
    Column("margin points", "margin", ".4f", True),
    Column("detectable points", "detectable", ".4f", True),
    Column("unit", "unit"),
    Column("units", "units"),
    *BESIDE,
    Column("from store", "stored"),
    Column("why", "reason"),
)

TESTS = (
    Column("verdict", "verdict"),
    Column("cell", "cell"),
    Column("reference", "reference", ".3f", True),
    Column("value", "candidate", ".3f", True),
    Column("change", "difference", "+.3f", True),
    Column("low", "low", "+.3f", True),
    Column("high", "high", "+.3f", True),
    Column("margin", "margin", ".3f", True),
    Column("detectable", "detectable", ".3f", True),
    Column("over", "over"),
)


def facts_of(cell: Cell) -> dict[str, Any]:
    """Return what is known of a cell, by the names of the columns' facts."""
    facts: dict[str, Any] = {
        "cell": f"{cell.protocol}/{cell.mode}",
        "verdict": TITLES[cell.outcome],
        "drift": next((x.value for x in cell.limits if x.name == "drift cosine p1"), None),
        **cell.model_dump(include={"protocol", "backend", "precision", "reason"}),
    }
    if cell.test is not None:
        facts |= cell.test.model_dump(exclude={"reason", "outcome"})
        facts["over"] = f"{cell.test.units:,} {cell.test.unit}"
    if cell.deployment is not None:
        facts |= cell.deployment.model_dump(include={"fmr_ratio", "fnmr_change"})
    if cell.run is not None:
        facts |= _run_facts(cell.run)
    return facts


def _run_facts(run: Run) -> dict[str, Any]:
    return {
        "ran": run.ran.precision_ran,
        "rate": run.throughput or None,
        "model_mb": run.model_bytes / 1e6 if run.model_bytes else None,
        "memory": None if run.from_store else run.peak_memory_mb,
        "stored": "yes" if run.from_store else None,
    }


def matrix_rows(record: Signoff) -> tuple[list[str], list[list[str]]]:
    """Return the matrix of modes by protocols: header and rows."""
    header = ["", *(f"{p.name}: {p.primary}, margin {p.margin}" for p in record.protocols)]
    short = {(cell.protocol, cell.mode): _short(cell) for cell in record.cells}
    rows = [
        [mode, *(short.get((p.name, mode), "") for p in record.protocols)] for mode in record.modes
    ]
    return header, rows


def _short(cell: Cell) -> str:
    """Return a cell's verdict, its change and what must show at a glance."""
    words = [TITLES[cell.outcome]]
    if cell.test is not None:
        words.append(f"{100 * cell.test.difference:+.2f}")
    words += [_alarm(limit) for limit in cell.limits if limit.outcome in {"fail", "flag"}]
    if ran_otherwise(cell):
        words.append("(~)")
    return " ".join(words)


def ran_otherwise(cell: Cell) -> str:
    """Return what a cell ran where that is not the precision that it is named for."""
    ran = cell.run.ran.precision_ran if cell.run is not None else cell.precision
    return "" if ran == cell.precision else ran


def marks(record: Signoff) -> list[str]:
    """Return what the matrix's mark means, a line for each mode and what it ran."""
    protocols: dict[tuple[str, str], list[str]] = {}
    for cell in record.cells:
        if ran_otherwise(cell):
            protocols.setdefault((cell.mode, ran_otherwise(cell)), []).append(cell.protocol)
    return [f"~ {mode} ran {ran}: {', '.join(names)}" for (mode, ran), names in protocols.items()]


def _alarm(limit: Limit) -> str:
    shown = "" if limit.value is None else f" {limit.value:.4g}"
    return f"! {limit.name}{shown}"


def inert(text: str) -> str:
    """Quote a text that a spreadsheet would compute."""
    number = text.lstrip("+-").replace(",", "").replace(".", "")
    return (
        text if number.isdigit() or text[:1] not in {"=", "+", "-", "@", "\t", "\r"} else f"'{text}"
    )
