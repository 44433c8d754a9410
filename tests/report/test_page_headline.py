"""What stands under the verdict, and what is red."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.report.page.gather import of_signoff
from evalkit.report.page.glance import alarms_of, bar_of
from evalkit.report.page.headline import reason, sentence
from evalkit.verdict.signoff.record import Signoff


def failing(record: Signoff, **broken: bool) -> Signoff:
    """Return the record with what failed in its last cell: the test, drift, failures to enrol."""
    *others, cell = record.cells
    assert cell.test is not None
    (limit,) = cell.limits
    outcomes = {name: "fail" if is_broken else "pass" for name, is_broken in broken.items()}
    limits = [
        limit.model_copy(update={"outcome": outcomes["drift"]}),
        limit.model_copy(update={"name": "failures to enrol", "outcome": outcomes["enrol"]}),
    ]
    test = cell.test.model_copy(update={"outcome": outcomes["test"]})
    changed = cell.model_copy(update={"test": test, "limits": tuple(limits)})
    return record.model_copy(update={"cells": (*others, changed)})


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ((True, False, False), "At least one mode loses more than the plan accepts."),
        (
            (False, True, False),
            "At least one mode moves embeddings beyond the plan's limit; "
            "none fails the test of its accuracy.",
        ),
        (
            (False, False, True),
            "At least one mode fails to enrol more images than the plan allows; "
            "none fails the test of its accuracy.",
        ),
        (
            (True, True, False),
            "At least one mode loses more than the plan accepts; "
            "at least one mode moves embeddings beyond the plan's limit.",
        ),
    ],
)
def test_the_sentence_says_what_failed(
    record: Signoff, tmp_path: Path, broken: tuple[bool, bool, bool], said: str
) -> None:
    changed = failing(record, **dict(zip(("test", "drift", "enrol"), broken, strict=True)))
    assert sentence(of_signoff(changed, tmp_path)) == said


def test_the_reason_names_three_cells_and_counts_the_others(
    record: Signoff, tmp_path: Path
) -> None:
    reference, passed, failed = record.cells
    assert reason(of_signoff(record, tmp_path)) == ("FAIL: pairs/onnxruntime:int8", 0)
    outcomes = ("not_run", "inconclusive", "inconclusive", "inconclusive")
    others = [
        passed.model_copy(update={"backend": f"b{n}", "outcome": outcome})
        for n, outcome in enumerate(outcomes)
    ]
    skipped = passed.model_copy(
        update={"backend": "skipped", "outcome": "not_run", "optional": True}
    )
    many = record.model_copy(update={"cells": (reference, skipped, *others, failed)})
    assert reason(of_signoff(many, tmp_path)) == (
        "FAIL: pairs/onnxruntime:int8; INCONCLUSIVE: pairs/b1:fp16, pairs/b2:fp16",
        2,
    )
    good = record.model_copy(update={"cells": (reference, passed), "reason": "all passed"})
    assert reason(of_signoff(good, tmp_path)) == ("all passed", 0)


@pytest.mark.parametrize(
    ("outcome", "flagged", "otherwise", "bar"),
    [
        ("pass", False, False, ""),
        ("pass", False, True, "open"),
        ("pass", True, False, "open"),
        ("fail", False, True, "open"),
        ("fail", True, True, "fail"),
    ],
)
def test_red_is_for_what_failed(
    record: Signoff, tmp_path: Path, outcome: str, flagged: bool, otherwise: bool, bar: str
) -> None:
    reference, cell, _ = record.cells
    assert cell.run is not None
    ran = cell.run.ran.model_copy(update={"precision_ran": "fp32 (fp16 weights)"})
    limit = cell.limits[0].model_copy(update={"outcome": "flag" if flagged else "pass"})
    update: dict[str, Any] = {"outcome": outcome, "limits": (limit,)}
    if otherwise:
        update["run"] = cell.run.model_copy(update={"ran": ran})
    changed = record.model_copy(update={"cells": (reference, cell.model_copy(update=update))})
    entry = of_signoff(changed, tmp_path).groups[0].entries[1]
    alarms = {alarm.text: alarm.kind for alarm in alarms_of(entry)}
    expected = {"drift p1 0.999": "fail"} if flagged else {}
    if otherwise:
        expected["ran fp32 (fp16 weights)"] = "open"
    assert alarms == expected
    assert bar_of(entry) == bar
