"""How often sign-offs decide rightly: equal modes, a loss of the margin, a loss of twice it.

Each draw is a new set of subjects, pairs or images from one population, judged as a plan's cell is.
A mode that only adds noise must pass; a mode that ruins a share of the units loses a known amount:
judged against half of that it must fail, and against the very same it may pass in 5 % of the draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from evalkit.core.results import Metric
from evalkit.protocols.folds import assign_folds, ten_fold_accuracy
from evalkit.protocols.roc import tar_at_far
from evalkit.stats.comparisons import SubjectComparisons
from evalkit.stats.evidence import Evidence
from evalkit.stats.matches import Matches, image_counts
from evalkit.stats.noninferiority import Bounds
from evalkit.tasks.lfw.evidence import FoldedPairs
from evalkit.verdict.paired import Paired
from evalkit.verdict.plan import Statistics
from evalkit.widerface_eval import Detections as Boxes
from evalkit.widerface_eval import GroundTruth, evaluate

DRAWS = 100
STATISTICS = Statistics(replicates=400)
Rng = np.random.Generator
Both = dict[str, Bounds]
Run = tuple[Evidence, Metric]


class Templates600:
    """600 subjects with effects of their own, hard and easily confused; FAR 1e-3."""

    ruined = 0.08
    far, mean, hard, lamb, noise = 1e-3, 8.5, 1.0, 0.5, 0.5

    def loss(self) -> float:
        """TAR of the population, of which the ruined share is lost."""
        threshold = norm.isf(self.far) * np.sqrt(1 + 2 * self.lamb**2)
        tar = norm.sf((threshold - self.mean) / np.hypot(self.hard, self.noise))
        return float(self.ruined * tar)

    def draw(self, rng: Rng) -> Both:
        subjects, probes = 600, 1200
        enrolled, owner = np.arange(subjects), rng.integers(subjects, size=probes)
        first, second = (x.ravel() for x in np.meshgrid(enrolled, np.arange(probes), indexing="ij"))
        genuine = owner[second] == first
        hard, lamb = rng.normal(0, self.hard, subjects), rng.normal(0, self.lamb, subjects)
        impostor = lamb[first] + lamb[owner[second]] + rng.normal(0, 1, len(first))
        own = self.mean + hard[first] + self.noise * rng.normal(0, 1, len(first))
        scores = np.where(genuine, own, impostor)
        noisy = scores + rng.normal(0, 1e-3, len(scores))
        lost = (rng.random(subjects) < self.ruined)[first] & genuine
        pairs = np.column_stack([first, subjects + second])
        people = np.arange(subjects + probes), np.concatenate([enrolled, owner])

        def side(scores: NDArray[Any]) -> Run:
            evidence = SubjectComparisons(scores, genuine, pairs, *people)
            return evidence, self.metric(scores, genuine)

        return judged(side(scores), side(noisy), side(np.where(lost, noisy - 99, noisy)))

    def metric(self, scores: NDArray[Any], genuine: NDArray[np.bool_]) -> Metric:
        (point,) = tar_at_far(scores[genuine], scores[~genuine], [self.far])
        at = {"target": self.far, "similarity": point.threshold}
        return Metric(name="tar@far=1e-03", figure="tar", value=point.tar, rule="at_most", at=at)


class Pairs6000:
    """6,000 pairs in ten folds, as LFW has."""

    ruined = 0.02
    rule = "exact"

    def loss(self) -> float:
        """Where a pair is ruined, a right decision becomes wrong and a wrong one right."""
        wrong = norm.sf(0.5 / 0.22)
        return float(self.ruined * (1 - 2 * wrong))

    def draw(self, rng: Rng) -> Both:
        issame = np.tile(np.repeat([True, False], 300), 10)
        distances = np.where(issame, 1.0, 2.0) + rng.normal(0, 0.22, len(issame))
        noisy = distances + rng.normal(0, 1e-4, len(issame))
        lost = rng.random(len(issame)) < self.ruined
        worse = np.where(lost, 3.0 - noisy, noisy)

        def side(values: NDArray[Any]) -> Run:
            return FoldedPairs(values, issame, "contiguous"), self.metric(values, issame)

        return judged(side(distances), side(noisy), side(worse))

    def metric(self, distances: NDArray[Any], issame: NDArray[np.bool_]) -> Metric:
        fold, _, _ = assign_folds(issame, "contiguous")
        ten = ten_fold_accuracy(distances, issame, fold, "exact")
        return Metric(
            name="accuracy/exact",
            figure="accuracy",
            value=ten.accuracy,
            rule="exact",
            counts={"correct": ten.correct, "pairs": ten.pairs},
            share=("correct", "pairs"),
            series={"fold_distance": ten.fold_threshold},
        )


class Images800:
    """800 images of up to twelve faces, hard images among them; false alarms on all."""

    ruined = 0.06

    def __init__(self) -> None:
        truth, before, worse = self.boxes(np.random.default_rng(10**6), 40_000)
        aps = [evaluate(truth, boxes).curves["hard"].summary()["ap"] for boxes in (before, worse)]
        self.lost = aps[0] - aps[1]

    def loss(self) -> float:
        return float(self.lost)

    def boxes(self, rng: Rng, images: int) -> tuple[GroundTruth, Boxes, Boxes]:
        names = [f"0--Event/{image}" for image in range(images)]
        faces, rows, worse = [], [], []
        for count, hard, ruined in zip(
            rng.integers(1, 13, images),
            rng.normal(1.5, 1.0, images),
            rng.random(images) < self.ruined,
            strict=True,
        ):
            face = np.column_stack(
                [np.arange(count) * 30, np.zeros(count), np.full((count, 2), 20)]
            ).astype(float)
            sure = 1 / (1 + np.exp(-(hard + rng.normal(0, 1, count))))
            alarms = rng.integers(0, 4)
            stray = np.column_stack(
                [
                    np.tile([500.0, 500, 9, 9], (alarms, 1)),
                    0.8 * rng.random(alarms),
                ]
            )
            table = np.vstack([np.column_stack([face, sure])[sure > 0.2], stray])
            faces.append(face)
            rows.append(table)
            worse.append(stray if ruined else table)
        for tables in (rows, worse):  # the ends of the scale of scores stay where they are
            tables[0] = np.vstack([rows[0], [[900, 0, 9, 9, 0.0], [950, 0, 9, 9, 1.0]]])
        offsets = np.cumsum([0, *map(len, faces)])
        truth = GroundTruth(
            tuple(names), offsets, np.concatenate(faces), {"hard": np.ones(offsets[-1], bool)}
        )
        return truth, Boxes.from_rows(names, rows), Boxes.from_rows(names, worse)

    def draw(self, rng: Rng) -> Both:
        truth, before, worse = self.boxes(rng, 800)
        noise = rng.normal(0, 1e-4, len(before.scores))
        shaken = np.clip(before.scores + noise, 0, 1)
        equal = Boxes(before.images, before.offsets, before.boxes, shaken)
        evaluated = [evaluate(truth, boxes) for boxes in (before, equal, worse)]
        sides = [
            (
                Matches(image_counts(evaluation)),
                Metric(
                    name="ap/hard",
                    figure="ap",
                    subset="hard",
                    value=evaluation.curves["hard"].summary()["ap"],
                    rule="python",
                ),
            )
            for evaluation in evaluated
        ]
        return judged(*sides)


def judged(reference: Run, equal: Run, worse: Run) -> Both:
    """Return the bounds of both candidates under the reference's draws."""
    evidence, before = reference
    draws = evidence.draw(STATISTICS.replicates, STATISTICS.seed)
    both = {}
    for name, (other, after) in (("equal", equal), ("worse", worse)):
        change = Paired(evidence, other, draws).change(before, after)
        assert change is not None
        gain = after.value - before.value
        bounds = change.bounds(gain, STATISTICS.level, evidence.weights(before))
        assert bounds is not None
        both[name] = bounds
    return both


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Templates600, Pairs6000, Images800])
def test_verdicts_are_right_at_their_rates(kind: Any) -> None:
    population = kind()
    loss = population.loss()
    drawn = [population.draw(np.random.default_rng(seed)) for seed in range(DRAWS)]

    def rate(mode: str, margin: float, outcome: str) -> float:
        return sum(bounds[mode].judged(margin) == outcome for bounds in drawn) / DRAWS

    rates = {
        "equal modes pass": rate("equal", loss / 2, "pass"),
        "a loss of twice the margin fails": rate("worse", loss / 2, "fail"),
        "a loss of twice the margin passes": rate("worse", loss / 2, "pass"),
        "a loss of the margin passes": rate("worse", loss, "pass"),
        "a loss of the margin fails": rate("worse", loss, "fail"),
        "equal modes fail": rate("equal", loss / 2, "fail"),
    }
    print(kind.__name__, f"loss {100 * loss:.2f} points", rates)
    assert rates["equal modes pass"] >= 0.98
    assert rates["a loss of twice the margin fails"] >= 0.9
    assert rates["a loss of twice the margin passes"] == rates["equal modes fail"] == 0
    assert rates["a loss of the margin passes"] <= 0.1
    assert rates["a loss of the margin fails"] <= 0.1
