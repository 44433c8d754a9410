"""Verdicts on a figure where lower is better, over subjects and over nameless pairs."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from evalkit.cli import main
from evalkit.core.results import load_result
from evalkit.report.compare import describe
from evalkit.stats.subjects import percentile_interval
from evalkit.tasks import TASKS
from evalkit.verdict.compare import compare
from evalkit.verdict.paired import Side, load_scores
from evalkit.verdict.plan import ProtocolPlan, Statistics
from evalkit.verdict.signoff.judging import Judge

SUBJECTS = 300
PRIMARY = "fnmr@fmr=1e-01"
RATES = ("fmr", "fnmr")


def runs(folder: Path, names: bool) -> dict[str, Path]:
    """Results of a network, of the same with noise, and of one that ruins some people."""
    header = ["path1", "path2", "same", *(["subject1", "subject2"] if names else [])]
    rows: list[list[object]] = []
    for first in range(SUBJECTS):
        for second in (first, (first + 1) % SUBJECTS):
            sides = f"{first}-a.png", f"{second}-b.png"
            people = [f"p{first}", f"p{second}"] if names else []
            rows.append([*sides, int(first == second), *people])
    table = folder / "pairs.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    images = list(dict.fromkeys(str(image) for row in rows for image in row[:2]))
    for image in images:
        cv2.imwrite(str(folder / image), np.zeros((8, 8, 3), np.uint8))
    rng = np.random.default_rng(0)
    people = rng.normal(size=(SUBJECTS, 32))
    owner = [int(image.split("-")[0]) for image in images]
    embeddings = people[owner] + rng.normal(0, 0.5, (len(images), 32))
    noisy = embeddings + rng.normal(0, 1e-3, embeddings.shape)
    lost = np.array([person < SUBJECTS // 5 and image.endswith("a.png") for person, image in
                     zip(owner, images, strict=True)])  # fmt: skip
    results = {}
    for name, values in (
        ("before", embeddings),
        ("same", noisy),
        ("worse", np.where(lost[:, None], rng.normal(size=embeddings.shape), noisy)),
    ):
        np.save(folder / f"{name}.npy", values.astype(np.float32))
        results[name] = folder / f"{name}.json"
        words = ["pairs", "--data", table, "--embeddings", folder / f"{name}.npy", "--fmr", "0.1"]
        assert main([*map(str, words), "--quiet", "--output", str(results[name])]) == 0
    return results


@pytest.mark.parametrize("names", [True, False])
def test_a_rise_of_fnmr_fails_and_noise_passes(names: bool, tmp_path: Path) -> None:
    results = runs(tmp_path, names)
    plan = {"kind": "pairs", "settings": {"fmr": [0.1]}, "primary": PRIMARY}
    protocol = ProtocolPlan.model_validate({**plan, "margin": {"points": 5}})
    judge = Judge(protocol, Statistics(replicates=400), Side(results["before"]))
    same, worse = (judge.judge(Side(results[name])) for name in ("same", "worse"))
    assert (same.test.outcome, worse.test.outcome) == ("pass", "fail"), worse.test.reason
    old, new = (load_result(results[name]).metric(PRIMARY) for name in ("before", "worse"))
    assert worse.test.difference == old.value - new.value < -0.1
    assert worse.test.low < worse.test.difference < worse.test.high < -0.05
    assert worse.test.unit == ("subjects" if names else "pairs")
    assert worse.deployment is not None
    assert worse.deployment.threshold == old.at["similarity"]
    assert worse.deployment.fnmr_change > 0.1


@pytest.mark.parametrize("names", [True, False])
def test_a_comparison_subtracts_replicates(names: bool, tmp_path: Path) -> None:
    results = runs(tmp_path, names)
    comparison = compare(results["before"], results["worse"])
    sides = [load_result(results[name]) for name in ("before", "worse")]
    evidence = [
        TASKS.get("pairs")().read(load_scores(results[name], side), side)[""]
        for name, side in zip(("before", "worse"), sides, strict=True)
    ]
    draws = evidence[0].draw()
    old, new = (
        side_evidence.replicates(side.metric(PRIMARY), draws)
        for side_evidence, side in zip(evidence, sides, strict=True)
    )
    interval = percentile_interval(new - old)
    change = next(c for c in comparison.metrics if c.name == PRIMARY)
    assert interval is not None
    assert change.interval is not None
    assert (change.interval.low, change.interval.high) == (interval.low, interval.high)
    assert change.interval.low > 0.1
    accuracy = next(c for c in comparison.metrics if c.figure == "accuracy")
    assert (accuracy.p_value is None) is names  # people are no independent pairs
    assert comparison.model_dump()["protocol"] == "PAIRS"
    carried = {c.name: c for c in comparison.metrics if c.rule == "baseline_threshold"}
    assert list(carried)[:2] == [f"{figure}@baseline-threshold-of-fmr=1e-01" for figure in RATES]
    rate = carried["fnmr@baseline-threshold-of-fmr=1e-01"]
    assert (rate.threshold_of, rate.kind) == ("fmr=1e-01", "rate")
    assert "fnmr, threshold of fmr=1e-01" in describe(comparison)
    threshold = sides[0].metric(PRIMARY).at["similarity"]
    genuine = evidence[1].genuine
    assert rate.candidate == pytest.approx(
        np.mean(evidence[1].similarity[genuine] < threshold), abs=1e-15
    )
    assert rate.interval is not None
    assert ("pair-level" in rate.interval.method) is not names
