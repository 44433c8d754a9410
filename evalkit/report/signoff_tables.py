"""The tables of a sign-off as texts: what terminal, Markdown, CSV and page share."""

from __future__ import annotations

from evalkit.verdict.signoff.record import Cell, Limit, Outcome, Overall, Signoff

TITLES: dict[Outcome | Overall, str] = {
    "pass": "PASS",
    "fail": "FAIL",
    "inconclusive": "INCONCLUSIVE",
    "cannot_run": "CANNOT RUN",
    "not_run": "not run",
    "reference": "reference",
}
COLUMNS = (
    "verdict", "protocol", "backend", "precision", "ran", "figure", "reference %", "value %",
    "difference points", "low points", "high points", "margin points", "detectable points",
    "unit", "units", "drift cosine p1", "FMR ratio", "FNMR change points", "images/s", "model MB",
    "memory MB", "from store", "why",
)  # fmt: skip
BESIDE = COLUMNS[COLUMNS.index("drift cosine p1") : COLUMNS.index("from store")]


def matrix_rows(record: Signoff) -> tuple[list[str], list[list[str]]]:
    """Return the matrix of modes by protocols: header and rows."""
    header = ["", *(f"{p.name}: {p.primary}, margin {p.margin}" for p in record.protocols)]
    held = {(cell.protocol, cell.mode): _short(cell) for cell in record.cells}
    rows = [
        [mode, *(held.get((p.name, mode), "") for p in record.protocols)] for mode in record.modes
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
    held: dict[tuple[str, str], list[str]] = {}
    for cell in record.cells:
        if ran_otherwise(cell):
            held.setdefault((cell.mode, ran_otherwise(cell)), []).append(cell.protocol)
    return [f"~ {mode} ran {ran}: {', '.join(names)}" for (mode, ran), names in held.items()]


def _alarm(limit: Limit) -> str:
    shown = "" if limit.value is None else f" {limit.value:.4g}"
    return f"! {limit.name}{shown}"


def row(cell: Cell) -> list[str]:
    """Return the texts of a cell under `COLUMNS`."""
    test, run, carried = cell.test, cell.run, cell.deployment
    drift = next((x.value for x in cell.limits if x.name == "drift cosine p1"), None)
    ratio = carried.fmr_ratio if carried else None
    return [
        TITLES[cell.outcome],
        cell.protocol,
        cell.backend,
        cell.precision,
        run.ran.precision_ran if run else "",
        test.metric if test else "",
        f"{100 * test.reference:.4f}" if test else "",
        f"{100 * test.candidate:.4f}" if test else "",
        f"{100 * test.difference:+.4f}" if test else "",
        points(test.low if test else None, digits=4),
        points(test.high if test else None, digits=4),
        f"{100 * test.margin:.4f}" if test else "",
        points(test.detectable if test else None, sign="", digits=4),
        test.unit if test else "",
        str(test.units) if test else "",
        "" if drift is None else f"{drift:.6f}",
        "" if ratio is None else f"{ratio:.3f}",
        f"{100 * carried.fnmr_change:+.3f}" if carried else "",
        f"{run.throughput:,.1f}" if run and run.throughput else "",
        f"{run.model_bytes / 1e6:.2f}" if run and run.model_bytes else "",
        f"{run.peak_memory_mb:,.0f}" if run and not run.from_store else "",
        "yes" if run and run.from_store else "",
        cell.reason,
    ]


def beside(cell: Cell) -> list[str]:
    """Return what is reported of a cell and not tested, under `BESIDE`."""
    texts = dict(zip(COLUMNS, row(cell), strict=True))
    if texts["from store"] and texts["images/s"]:
        texts["images/s"] += "*"
    return [texts[name] for name in BESIDE]


def points(value: float | None, *, sign: str = "+", digits: int = 3) -> str:
    """Return a rate in percentage points, nothing for None."""
    return "" if value is None else f"{100 * value:{sign}.{digits}f}"


def inert(text: str) -> str:
    """Quote a text that a spreadsheet would compute."""
    number = text.lstrip("+-").replace(",", "").replace(".", "")
    return (
        text if number.isdigit() or text[:1] not in {"=", "+", "-", "@", "\t", "\r"} else f"'{text}"
    )
