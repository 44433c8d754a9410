"""Panels that tasks hand over: counts and curves are those of the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_results import distances, pair_metrics, result

from evalkit.core.results import Result
from evalkit.core.store import Shard, Store
from evalkit.stats.comparisons import PairComparisons
from evalkit.tasks.comparison_panels import (
    POINTS,
    STEPS,
    Scores,
    comparison_panels,
    thresholds_of,
)
from evalkit.tasks.match_panels import match_panels, thinned
from evalkit.tasks.panels import Bars, Chart, Line, Mark, Note, Runs, Scored, Thresholds
from evalkit.widerface_eval import Curve


def run_of(
    scores: dict[str, Any] | None = None, run: int = 0, made: Result | None = None, **other: Any
) -> Scored:
    """A run of pairs; of no pairs where no scores are given."""
    metrics = pair_metrics(scores) if scores else []
    made = made or result("LFW", "torch", "fp32", metrics=metrics)
    evidence = {}
    if scores is not None:
        evidence = {"": PairComparisons(1 - scores["distances"] / 2, scores["issame"])}
    return Scored(run, f"run {run}", run == 0, made, evidence, **other)


several = st.lists(
    st.sampled_from([-np.inf, -0.5, 0.0, 0.1, 0.1 + 1e-7, 0.3, 0.9]), min_size=1, max_size=30
)


@given(several, several, st.sampled_from([np.float32, np.float64]))
def test_accepted_counts_are_those_of_the_definition(
    genuine: list[float], impostors: list[float], dtype: Any
) -> None:
    classes = [np.sort(np.array(values, dtype)) for values in (genuine, impostors)]
    scores = Scores(run_of(), *classes)
    thresholds = thresholds_of([scores], [0.25])
    accepted = scores.accepted(thresholds)
    for values, counts in zip(classes, (accepted.true, accepted.false), strict=True):
        assert counts.tolist() == [int(np.sum(values >= dtype(t))) for t in thresholds]


def test_the_sliders_thresholds_are_bounded_and_hold_the_marked_ones() -> None:
    rng = np.random.default_rng(0)
    classes = rng.normal(0.7, 0.1, 500), rng.normal(0, 0.1, 200_000)
    scores = Scores(run_of(), *map(np.sort, classes))
    thresholds = thresholds_of([scores], [0.123456789])
    assert len(thresholds) <= STEPS + 1
    assert 0.123456789 in thresholds
    assert scores.impostors[-1] in thresholds  # where the last impostor is refused
    assert np.all(np.diff(thresholds) > 0)


def test_no_finite_score_gives_no_threshold() -> None:
    nothing = np.array([-np.inf])
    assert thresholds_of([Scores(run_of(), nothing, nothing)], []).size == 0


def test_thinned_curves_are_bounded_lie_on_the_curve_and_keep_its_ends() -> None:
    rng = np.random.default_rng(1)
    proposals = np.cumsum(rng.integers(1, 40, 1000)).astype(float)
    recalled = np.minimum(np.cumsum(rng.integers(0, 9, 1000)), proposals).astype(float)
    curve = Curve(proposals, recalled, float(recalled[-1] + 50))
    recall, precision = thinned(curve)
    whole = set(zip(curve.recall.tolist(), curve.precision.tolist(), strict=True))
    drawn = list(zip(recall.tolist(), precision.tolist(), strict=True))
    assert len(drawn) <= 2 * POINTS + 2
    assert set(drawn) <= whole
    assert drawn[0] == (curve.recall[0], curve.precision[0])
    assert drawn[-1] == (curve.recall[-1], curve.precision[-1])


def test_panels_of_comparisons_are_counts_of_the_scores() -> None:
    given = [distances(0.0), distances(0.4)]
    runs = tuple(run_of(scores, number) for number, scores in enumerate(given))
    *charts, thresholds, note = comparison_panels(Runs(runs, "accuracy/exact"))
    assert isinstance(note, Note)
    assert "Drift of run 1 is not shown" in note.text
    assert isinstance(thresholds, Thresholds)
    assert thresholds.start == thresholds.marks["accuracy/exact"]
    assert thresholds.similarity[thresholds.start] == pytest.approx(0.4)
    assert [chart.key for chart in charts if isinstance(chart, Chart)] == [
        *("roc", "det", "scores-0", "scores-1")
    ]
    roc, _, *histograms = charts
    assert isinstance(roc, Chart)
    for number, scores in enumerate(given):
        similar = 1 - scores["distances"] / 2
        genuine, impostors = similar[scores["issame"]], similar[~scores["issame"]]
        accepted = thresholds.runs[number]
        for place in (0, thresholds.start, -1):
            at = thresholds.similarity[place]
            assert accepted.true[place] == np.count_nonzero(genuine >= at)
            assert accepted.false[place] == np.count_nonzero(impostors >= at)
        line = [item for item in roc.items if isinstance(item, Line)][number]
        ordered = np.sort(impostors)
        for far, tar in zip(line.x[1:], line.y[1:], strict=True):
            accepts = round(far * ordered.size)
            refused = ordered[-1 - accepts] if accepts < ordered.size else -np.inf
            assert tar == np.mean(genuine > refused)
        for item, scores_of in zip(histograms[number].items, (impostors, genuine), strict=True):
            assert isinstance(item, Bars)
            finite = np.isfinite(scores_of).mean()
            assert item.heights.sum() == pytest.approx(finite)


def stored(folder: Path, embeddings: np.ndarray) -> str:
    """Write an outputs store of embeddings and return its folder."""
    count = len(embeddings)
    store = Store(folder, {"data": "x"}, count, ["embeddings"])
    shard = Shard(
        outputs={"embeddings": embeddings},
        digests=np.zeros((count, 8), np.uint8),
        stamps=np.zeros((count, 2), np.int64),
        failures=(),
        decode_seconds=0.0,
        inference_seconds=0.0,
    )
    with store.writing():
        store.write(0, shard)
    return str(folder)


def test_drift_is_of_the_stores_and_marks_the_limit_of_the_plan(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    embeddings = rng.normal(size=(50, 8)).astype(np.float32)
    moved = embeddings + rng.normal(size=(50, 8)).astype(np.float32)
    moved[3] = np.nan
    runs = tuple(
        run_of(run=number, made=result("LFW", "torch", "fp32", store=stored(tmp_path / name, rows)))
        for number, (name, rows) in enumerate((("a", embeddings), ("b", moved)))
    )
    (chart,) = [
        panel for panel in comparison_panels(Runs(runs, "", 0.9)) if isinstance(panel, Chart)
    ]
    bars, mark = chart.items
    assert isinstance(bars, Bars)
    assert isinstance(mark, Mark)
    assert mark.x == pytest.approx(0.1)
    cosines = np.sum(embeddings * moved, axis=1)
    cosines /= np.linalg.norm(embeddings, axis=1) * np.linalg.norm(moved, axis=1)
    kept = 1 - np.delete(cosines, 3)
    assert bars.heights == pytest.approx(np.histogram(kept, bars.edges)[0] / 49)
    assert bars.heights.sum() == pytest.approx(1)
    assert f"median {np.median(kept):.1e}" in chart.figures
    unlimited = comparison_panels(Runs(runs, ""))[-1]
    assert isinstance(unlimited, Chart)
    assert [type(item).__name__ for item in unlimited.items] == ["Bars"]


def test_runs_without_scores_are_named() -> None:
    one_kind = {"distances": np.ones(5), "issame": np.ones(5, bool)}
    runs = (run_of(), run_of(one_kind, 1, result("LFW", "torch", "fp32")), run_of(problem="bad"))
    notes = [panel.text for panel in comparison_panels(Runs(runs, "")) if isinstance(panel, Note)]
    assert notes[:2] == [
        "No curves of run 0: bad",
        "No scores of both classes lie beside the results of run 0, run 1.",
    ]
    texts = [panel.text for panel in match_panels(Runs(runs, "")) if isinstance(panel, Note)]
    assert texts == [
        "No curves of run 0: bad",
        "There are no curves: no counts lie beside the results.",
    ]
