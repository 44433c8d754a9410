"""The bootstrap of AP over images, against evaluating the images written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.core.results import Metric
from evalkit.stats.matches import (
    ImageBootstrap,
    ImageCounts,
    Matches,
    image_counts,
    weighted_ap,
)
from evalkit.stats.subjects import percentile_interval
from evalkit.widerface_eval import Detections, GroundTruth, Settings, evaluate

STEPS = Settings(steps=10)
Case = tuple[GroundTruth, Detections]


def make_case(seed: int, images: int = 8) -> Case:
    """Images of two events; faces of a grid, most found, some not, and false alarms."""
    rng = np.random.default_rng(seed)
    names, faces, rows = [], [], []
    for image in range(images):
        names.append(f"{image % 2}--Event/image_{image}")
        count = rng.integers(1, 5)
        face = np.column_stack([np.arange(count) * 30, np.zeros(count), np.full((count, 2), 20)])
        faces.append(face.astype(float))
        rows.append(found_of(face, rng))
    rows[0] = with_ends(rows[0])
    offsets = np.cumsum([0, *map(len, faces)])
    kept = rng.random(offsets[-1]) < 0.6
    kept[0] = True
    subsets = {"medium": kept, "hard": np.ones(offsets[-1], bool)}
    truth = GroundTruth(tuple(names), offsets, np.concatenate(faces), subsets)
    return truth, Detections.from_rows(names, rows)


def found_of(face: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    hit = face[rng.random(len(face)) < 0.7]
    stray = np.tile([500, 500, 9, 9], (rng.integers(0, 3), 1))
    boxes = np.vstack([hit, stray])
    return np.column_stack([boxes, rng.permutation(10)[: len(boxes)] / 10])


def with_ends(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Put the lowest and the highest score of the set into an image."""
    return np.vstack([rows, [[800, 0, 9, 9, 0.0], [0, 0, 20, 20, 1.0]]])


def another(truth: GroundTruth, seed: int) -> Detections:
    """Other detections of the same images."""
    rng = np.random.default_rng(seed)
    rows = [
        found_of(truth.boxes[first:last], rng)
        for first, last in zip(truth.offsets[:-1], truth.offsets[1:], strict=True)
    ]
    return Detections.from_rows(truth.images, [with_ends(rows[0]), *rows[1:]])


def repeated(truth: GroundTruth, detections: Detections, times: Any) -> Case:
    """Write every image out as often as it is drawn."""
    names, faces, rows = [], [], []
    kept: dict[str, list[Any]] = {name: [] for name in truth.subsets}
    table = np.column_stack([detections.boxes, detections.scores])
    for image, count in enumerate(times):
        there = slice(*truth.offsets[image : image + 2])
        boxes = slice(*detections.offsets[image : image + 2])
        for copy in range(int(count)):
            names.append(f"{truth.images[image]}_{copy}")
            faces.append(truth.boxes[there])
            rows.append(table[boxes])
            for name, flags in truth.subsets.items():
                kept[name].append(flags[there])
    return (
        GroundTruth(
            tuple(names),
            np.cumsum([0, *map(len, faces)]),
            np.concatenate(faces),
            {name: np.concatenate(flags) for name, flags in kept.items()},
        ),
        Detections.from_rows(names, rows),
    )


def changes(before: ImageCounts, after: ImageCounts, draws: ImageBootstrap) -> Any:
    """The change of AP in every draw, by subset."""
    return dict(zip(before.subsets, draws.ap(after) - draws.ap(before), strict=True))


def counts_of(case: Case, steps: Settings = STEPS) -> ImageCounts:
    return image_counts(evaluate(*case, steps))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_a_draw_is_the_ap_of_its_images_written_out(seed: int, times: list[int]) -> None:
    case = make_case(seed)
    # The first image holds the lowest and highest score of the set: the scale stays.
    weights = np.array([[1, *times]])
    aps = weighted_ap(counts_of(case), weights)[:, 0]
    expected = evaluate(*repeated(*case, weights[0]), STEPS).ap
    np.testing.assert_allclose(aps, list(expected.values()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", ["python", "python_file_order", "matlab"])
def test_each_image_once_is_the_evaluators_ap(rule: Any) -> None:
    case = make_case(2, images=40)
    evaluation = evaluate(*case, Settings(rule=rule))
    aps = weighted_ap(image_counts(evaluation), np.ones((1, 40)))[:, 0]
    np.testing.assert_allclose(aps, list(evaluation.ap.values()), rtol=0, atol=1e-12)


def test_the_paired_change_is_that_of_brute_force() -> None:
    truth, detections = make_case(3)
    other = another(truth, 4)
    bootstrap = ImageBootstrap(8, replicates=60, seed=5)
    expected: dict[str, list[float]] = {"medium": [], "hard": []}
    for times in bootstrap.weights:
        pair = [brute_force(truth, boxes, times) for boxes in (detections, other)]
        for subset, column in expected.items():
            column.append(pair[1][subset] - pair[0][subset])
    counts = [counts_of((truth, boxes)) for boxes in (detections, other)]
    for subset, row in changes(counts[0], counts[1], bootstrap).items():
        np.testing.assert_allclose(row, expected[subset], rtol=0, atol=1e-12)


def brute_force(truth: GroundTruth, detections: Detections, times: Any) -> dict[str, float]:
    """AP by the definition: one threshold and one image after the other."""
    evaluation = evaluate(truth, detections, STEPS)
    areas = {}
    for row, (subset, kept) in enumerate(truth.subsets.items()):
        faces = sum(
            times[image] * int(kept[truth.offsets[image] : truth.offsets[image + 1]].sum())
            for image in range(len(truth.images))
        )
        points = []
        for step in range(STEPS.steps):
            proposals = recalled = 0
            for index, outcome in enumerate(evaluation.matches.outcome[row]):
                if evaluation.levels[index] <= step:
                    weight = times[evaluation.detections.image_of[index]]
                    proposals += weight * (outcome >= 0)
                    recalled += weight * (outcome == 1)
            points.append((recalled / faces, recalled / proposals if proposals else 0.0))
        area, last = 0.0, 0.0
        for step, (recall, _) in enumerate(points):
            area += (recall - last) * max(precision for _, precision in points[step:])
            last = recall
        areas[subset] = area
    return areas


def test_a_model_that_loses_faces_everywhere_is_worse() -> None:
    truth, detections = make_case(7, images=60)
    moved = np.where(np.arange(len(detections.boxes)) % 3 == 0, 15, 0)[:, None]
    worse = Detections(
        detections.images, detections.offsets, detections.boxes + moved, detections.scores
    )
    counts = counts_of((truth, detections)), counts_of((truth, worse))
    for row in changes(*counts, ImageBootstrap(60)).values():
        interval = percentile_interval(row)
        assert interval is not None
        assert interval.low < interval.high < 0


def test_the_seed_decides() -> None:
    counts = counts_of(make_case(4))
    first, again, other = (ImageBootstrap(8, replicates=50, seed=s).ap(counts) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_draw_has_as_many_images() -> None:
    bootstrap = ImageBootstrap(7, replicates=50)
    assert bootstrap.weights.shape == (50, 7)
    assert (bootstrap.weights.sum(axis=1) == 7).all()
    assert bootstrap.method == "image bootstrap, 50 draws, seed 0, percentile"


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, bootstrap = counts_of(make_case(5)), ImageBootstrap(8, replicates=50)
    whole = bootstrap.ap(counts)
    monkeypatch.setattr("evalkit.stats.matches._BLOCK_CELLS", 3 * 40)
    np.testing.assert_array_equal(bootstrap.ap(counts), whole)


def test_a_subset_without_faces_has_no_ap() -> None:
    truth, detections = make_case(8)
    truth.subsets["medium"][:] = False
    counts = counts_of((truth, detections))
    assert np.isnan(ImageBootstrap(8, replicates=9).ap(counts)[0]).all()


def test_the_arrays_hold_everything() -> None:
    counts = counts_of(make_case(9), Settings())
    arrays = counts.arrays()
    assert arrays["cell_proposals"].dtype == np.uint8
    again = ImageCounts.from_arrays(arrays)
    weights = ImageBootstrap(8, replicates=20).weights
    np.testing.assert_array_equal(weighted_ap(again, weights), weighted_ap(counts, weights))
    assert again.subsets == counts.subsets


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cell_step", None, "no array cell_step"),
        ("cell_step", np.zeros(3), "cell_step is of float64"),
        ("cell_step", np.full(2, 10), "not among the 10"),
        ("cell_step", np.zeros(1, int), "do not fit"),
        ("cell_offsets", np.array([0, 2, 1]), "do not rise"),
        ("cell_offsets", np.array([0, 1, 1]), "do not rise"),
        ("cell_offsets", np.empty(0, int), "do not fit"),
        ("faces", np.ones((2, 2), int), "do not fit"),
    ],
)
def test_damaged_arrays_are_refused(name: str, value: Any, message: str) -> None:
    ones = np.ones((1, 2), int)
    counts = ImageCounts(("hard",), 10, ones, np.array([0, 1, 2]), np.zeros(2, int), ones, ones)
    arrays = counts.arrays()
    del arrays[name]
    if value is not None:
        arrays[name] = value
    with pytest.raises(ValueError, match=message):
        ImageCounts.from_arrays(arrays)


def test_draws_of_other_images_are_refused() -> None:
    case = make_case(9)
    counts = counts_of(case)
    with pytest.raises(ValueError, match="do not fit 8 images"):
        ImageBootstrap(9, replicates=2).ap(counts)
    with pytest.raises(ValueError, match="give no interval"):
        ImageBootstrap(8, replicates=0)


def ap(subset: str, **values: Any) -> Metric:
    plain = {"name": f"ap/{subset}", "figure": "ap", "value": 0.5, "rule": "python"}
    return Metric.model_validate({**plain, "subset": subset, **values})


def test_evidence_gives_the_ap_of_a_subset_in_every_draw() -> None:
    case = make_case(9)
    counts = counts_of(case)
    evidence = Matches(counts)
    draws = evidence.draw(40, 3)
    expected = weighted_ap(counts, ImageBootstrap(8, replicates=40, seed=3).weights)
    for row, subset in enumerate(counts.subsets):
        replicates = evidence.replicates(ap(subset), draws)
        np.testing.assert_array_equal(replicates, expected[row])
        assert np.shares_memory(replicates, evidence.replicates(ap(subset), draws))
        kept = case[0].subsets[subset]
        faces = np.bincount(case[0].image_of[kept], minlength=8)
        assert evidence.weights(ap(subset)).tolist() == faces[faces > 0].tolist()
    assert evidence.replicates(ap("hard", part={"event": "2"}), draws) is None
    assert evidence.replicates(ap("other"), draws) is None
    assert evidence.draw().method == "image bootstrap, 2000 draws, seed 0, percentile"


def test_evidence_of_other_faces_or_steps_is_not_paired() -> None:
    case = make_case(9)
    evidence = Matches(counts_of(case))
    assert evidence.unpaired(evidence) == ""
    assert "steps" in evidence.unpaired(Matches(counts_of(case, Settings(steps=20))))
    assert "different faces" in evidence.unpaired(Matches(counts_of(make_case(9, images=9))))
