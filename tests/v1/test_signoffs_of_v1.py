"""A sign-off of version 0.1: its record, its cells, and the plans that its folder has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from v1_files import run

from evalkit.core.results import load_result
from evalkit.verdict.plan import load_plan
from evalkit.verdict.signoff.history import read_plans
from evalkit.verdict.signoff.record import load_signoff

TEST = ("metric", "unit", "units", "difference", "low", "high", "margin", "detectable")


def test_the_record_is_read(files: Path, expected: dict[str, Any]) -> None:
    record = load_signoff(files / "signoff/signoff.json")
    told = expected["signoff"]
    assert (record.outcome, record.exit_code) == (told["outcome"], told["exit code"])
    cells = {
        f"{cell.protocol}/{cell.mode}": {
            "outcome": cell.outcome,
            "test": cell.test and [getattr(cell.test, name) for name in TEST],
        }
        for cell in record.cells
    }
    assert cells == told["cells"]
    changes = [c for cell in record.cells if cell.comparison for c in cell.comparison.metrics]
    carried = [c for c in changes if c.rule == "baseline_threshold"]
    assert [(c.figure, c.kind) for c in carried[:2]] == [("far", "small rate"), ("tar", "rate")]
    for change in changes:
        kept = f"@baseline-threshold-of-{change.threshold_of}"
        assert change.name.endswith(kept) is (change in carried)


def test_the_same_plan_is_no_change(files: Path, expected: dict[str, Any]) -> None:
    hashes = [use.sha256 for use, _ in read_plans(files / "signoff")]
    assert hashes == expected["signoff"]["plans"]
    assert [
        load_plan(files / f"plans/{name}.yaml").sha256 for name in ("first", "release")
    ] == hashes


def test_cells_hold_results(files: Path) -> None:
    record = load_signoff(files / "signoff/signoff.json")
    for cell in record.cells:
        if cell.protocol == "pairs":
            assert cell.run is not None
            result = load_result(files / "signoff" / cell.run.result)
            assert [(m.name, m.value, m.interval, m.at) for m in result.metrics] == [
                (m.name, m.value, m.interval, m.at) for m in cell.run.metrics
            ]


def test_tables_are_made_of_the_record(files: Path) -> None:
    assert run("report", "signoff/signoff.json", "--out", "tables.csv") == 0
    rows = (files / "tables.csv").read_text(encoding="utf-8").splitlines()
    assert any("pairs" in row and "accuracy/insightface" in row for row in rows)
