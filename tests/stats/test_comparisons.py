"""Evidence of comparisons against plain loops over drawn people and drawn pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from subject_reference import Comparisons, brute_force

from evalkit.core.errors import InputError
from evalkit.core.results import Metric
from evalkit.stats.comparisons import PairComparisons, SubjectComparisons


def subjects_of(data: Comparisons, **changes: Any) -> SubjectComparisons:
    arrays = {
        "similarity": data.scores,
        "genuine": data.genuine,
        "pairs": data.pairs,
        "template_id": data.template_id,
        "subject_id": data.subject_id,
    }
    return SubjectComparisons(**{**arrays, "targets": (0.1, 0.3), **changes})


def tar(target: float = 0.1, **values: Any) -> Metric:
    plain = {"name": f"tar@far={target}", "figure": "tar", "value": 0.5, "rule": "at_most"}
    share = {"share": ("true_accepts", "genuine"), "at": {"target": target, "similarity": 0.6}}
    metric = {**plain, **share, **values}
    return Metric.model_validate({"counts": dict.fromkeys(metric["share"] or (), 0), **metric})


def finite(data: Comparisons) -> NDArray[Any]:
    return np.where(np.isfinite(data.scores), data.scores, -np.inf)


def test_tar_under_drawn_people_is_that_of_plain_loops() -> None:
    data = Comparisons(3)
    evidence = subjects_of(data)
    draws = evidence.draw(12, 5)
    assert draws is not None
    expected = np.transpose([brute_force(data, w, (0.1, 0.3, 0.01)) for w in draws.weights])
    for target, row in zip((0.1, 0.3, 0.01), expected, strict=True):
        replicates = evidence.replicates(tar(target), draws)
        np.testing.assert_allclose(replicates, row, rtol=0, atol=1e-12)
        assert evidence.replicates(tar(target), draws) is replicates
    other = evidence.draw(12, 6)
    assert (evidence.replicates(tar(), other) != expected[0]).any()


def test_without_a_number_people_are_drawn_2000_times() -> None:
    draws = subjects_of(Comparisons(1)).draw()
    assert draws is not None
    assert draws.method == "subject bootstrap, 2000 draws, seed 0, percentile"


@pytest.mark.parametrize(
    "metric",
    [
        tar(rule="interpolated"),
        tar(at={"similarity": 0.6}),
        Metric(name="rank-1", figure="rank", value=0.5, rule="open_set"),
    ],
)
def test_what_no_draw_of_people_gives_has_no_replicates(metric: Metric) -> None:
    evidence = subjects_of(Comparisons(1))
    assert evidence.replicates(metric, evidence.draw(5)) is None


@pytest.mark.parametrize("changes", [{"subject_id": np.zeros(24, int)}, {"genuine": True}])
def test_too_few_people_or_kinds_give_no_draws(changes: dict[str, Any]) -> None:
    data = Comparisons(1)
    if "genuine" in changes:
        changes = {"genuine": np.ones(len(data.pairs), bool)}
    assert subjects_of(data, **changes).draw() is None


def test_a_pair_of_an_unknown_template_is_a_damaged_file() -> None:
    data = Comparisons(1)
    pairs = data.pairs.copy()
    pairs[4, 1] = 5000
    with pytest.raises(InputError, match="damaged: a pair names a template"):
        subjects_of(data, pairs=pairs).draw()


def test_each_person_weighs_by_its_genuine_comparisons() -> None:
    data = Comparisons(2)
    people = data.sides[data.genuine, 0]
    expected = [int((people == person).sum()) for person in sorted(set(people.tolist()))]
    assert subjects_of(data).weights(tar()).tolist() == expected


def test_rates_at_a_threshold_are_counted_and_drawn() -> None:
    data = Comparisons(4)
    evidence = subjects_of(data)
    draws = evidence.draw(15)
    assert draws is not None
    accepted = finite(data) >= 0.6
    rates = evidence.rates(tar(), draws)
    assert rates is not None
    assert (rates.fmr, rates.tar) == (accepted[~data.genuine].mean(), accepted[data.genuine].mean())
    assert rates.fnmr == (~accepted[data.genuine]).mean()
    fmr, share = draws.rates(data.scores, 0.6)
    np.testing.assert_array_equal(rates.fmr_draws, fmr)
    np.testing.assert_array_equal(rates.tar_draws, share)
    plain = evidence.rates(tar())
    assert plain is not None
    assert plain.fmr_draws is None
    assert evidence.rates(Metric(name="auc", figure="auc", value=0.5, rule="")) is None
    search = tar(share=("true_positives", "mated"))
    assert evidence.rates(search) is None
    assert evidence.decisions(search, search) is None


def test_decisions_are_of_the_threshold_and_must_give_the_results_counts() -> None:
    data = Comparisons(4)
    evidence = subjects_of(data)
    accepted = finite(data) >= 0.6
    count = int((accepted & data.genuine).sum())
    own = tar(counts={"true_accepts": count, "genuine": int(data.genuine.sum())})
    decisions = evidence.decisions(own, own)
    assert decisions is not None
    np.testing.assert_array_equal(decisions.accepted, accepted)
    np.testing.assert_array_equal(decisions.right, accepted == data.genuine)
    first, second = data.pairs[7]
    assert decisions.label(7) == f"templates {first} and {second}"
    wrong = tar(counts={"true_accepts": count - 1, "genuine": int(data.genuine.sum())})
    with pytest.raises(InputError, match="do not belong together"):
        evidence.decisions(wrong, wrong)
    assert evidence.decisions(wrong, own) is not None
    line = tar(counts={"true_accepts": count - 1, "genuine": 1}, rule="interpolated")
    assert evidence.decisions(line, line) is not None


@pytest.mark.parametrize("name", ["pairs", "genuine", "template_id", "subject_id"])
def test_other_trials_are_told_by_what_differs(name: str) -> None:
    data = Comparisons(5)
    other = subjects_of(data, **{name: getattr(data, name)[::-1]})
    assert subjects_of(data).unpaired(subjects_of(data)) == ""
    assert f"their {name} differ" in subjects_of(data).unpaired(other)


def test_arrays_of_other_lengths_are_refused() -> None:
    data = Comparisons(5)
    for changes in ({"similarity": data.scores[1:]}, {"pairs": data.pairs[1:]}):
        with pytest.raises(ValueError, match="of shape"):
            subjects_of(data, **changes)


class Pairs:
    """Similarities with ties, a few of them failures, and their kinds."""

    def __init__(self, seed: int, count: int = 60) -> None:
        rng = np.random.default_rng(seed)
        self.genuine = rng.random(count) < 0.5
        self.similarity = rng.integers(20, size=count) / 20 + self.genuine / 3
        self.similarity[rng.random(count) < 0.05] = np.nan
        self.strata = rng.integers(3, size=count)

    def evidence(self) -> PairComparisons:
        return PairComparisons(self.similarity, self.genuine, self.strata)


def drawn_figures(data: Pairs, rows: NDArray[np.intp], target: float) -> dict[str, float]:
    """The figures of some rows, by their definitions."""
    value = np.where(np.isfinite(data.similarity), data.similarity, -np.inf)[rows]
    genuine, impostors = value[data.genuine[rows]], value[~data.genuine[rows]]
    thresholds = [*sorted({float(v) for v in value if np.isfinite(v)}), 99.0]
    points = [((impostors >= t).mean(), (genuine >= t).mean()) for t in thresholds]
    wins = [(g > i) + 0.5 * (g == i) for g in genuine for i in impostors]
    nearest = min(points, key=lambda p: (round(abs(p[0] + p[1] - 1), 12), p[0] + 1 - p[1]))
    return {
        "tar": max(t for f, t in points if f <= target),
        "auc": float(np.mean(wins)),
        "eer": (nearest[0] + 1 - nearest[1]) / 2,
    }


def test_figures_under_drawn_pairs_are_those_of_plain_loops() -> None:
    data = Pairs(0)
    evidence = data.evidence()
    draws = evidence.draw(25, 3)
    expected = [drawn_figures(data, rows, 0.1) for rows in draws]
    metrics = {
        "tar": tar(0.1),
        "auc": Metric(name="auc", figure="auc", value=0.5, rule="mann_whitney"),
        "eer": Metric(name="eer", figure="eer", value=0.5, rule="nearest_rates"),
    }
    for name, metric in metrics.items():
        replicates = evidence.replicates(metric, draws)
        np.testing.assert_allclose(replicates, [row[name] for row in expected], rtol=0, atol=1e-12)
    assert evidence.replicates(tar(rule="interpolated"), draws) is None
    assert evidence.draw().method == ("pair bootstrap, 1000 draws, seed 0, percentile, pair-level")


def test_every_draw_keeps_the_size_of_each_stratum() -> None:
    data = Pairs(1)
    for rows in data.evidence().draw(10):
        np.testing.assert_array_equal(np.bincount(data.strata[rows]), np.bincount(data.strata))
    kinds = PairComparisons(data.similarity, data.genuine).draw(10)
    assert all(data.genuine[rows].sum() == data.genuine.sum() for rows in kinds)


def test_pairs_weigh_alike() -> None:
    data = Pairs(2)
    share = {"figure": "accuracy", "share": ("correct", "pairs")}
    assert data.evidence().weights(tar(**share)).tolist() == [1.0] * 60
    assert len(data.evidence().weights(tar())) == np.count_nonzero(data.genuine)
    other = PairComparisons(data.similarity, ~data.genuine)
    assert data.evidence().unpaired(data.evidence()) == ""
    assert "their labels differ" in data.evidence().unpaired(other)
