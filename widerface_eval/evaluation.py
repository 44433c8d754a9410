"""Average precision on the subsets, by every rule in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evalkit.widerface_eval.doubts import hardly_a_hit, silence
from evalkit.widerface_eval.errors import WiderFaceError, listed
from evalkit.widerface_eval.matching import HIT, IGNORED, Kernel, Matches, check_images, match_boxes
from evalkit.widerface_eval.records import Detections, GroundTruth

Rule = Literal["python", "python_file_order", "matlab", "matlab_int"]
RULES: tuple[str, ...] = get_args(Rule)

_NORMALISATION = {
    "python": "min_max",
    "python_file_order": "min_max_from_1_0",
    "matlab": "min_max_single",
    "matlab_int": "min_max_single",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What moves the figure.

    Attributes
    ----------
    rule : {'python', 'python_file_order', 'matlab', 'matlab_int'}
        ``python``: detections sorted by falling score, double precision. ``python_file_order``:
        never sorted, minimum and maximum searched from 1 and 0, as the public Python code.
        ``matlab``: the official tools, scores in single precision. ``matlab_int``: their older
        overlap in int32 arithmetic, where the first face with at least one half is hit.
    iou : float
        A hit needs at least this overlap.
    steps : int
        Thresholds of the curve: ``1 - (t + 1) / steps``.
    """

    rule: Rule = "python"
    iou: float = 0.5
    steps: int = 1000

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise WiderFaceError(f"There is no rule {self.rule!r}. Known: {', '.join(RULES)}.")
        if self.steps < 1:
            raise WiderFaceError(f"A curve of {self.steps} steps has no points; use at least 1.")

    @property
    def normalisation(self) -> str:
        """Name of the score normalisation that the rule implies."""
        return _NORMALISATION[self.rule]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Precision and recall at falling thresholds, as counts.

    Attributes
    ----------
    proposals : ndarray of float64, shape (steps,)
        Detections at or above the threshold that are not ignored.
    recalled : ndarray of float64, shape (steps,)
        Faces recalled by them.
    faces : float
        Faces kept.
    """

    proposals: NDArray[np.float64]
    recalled: NDArray[np.float64]
    faces: float

    @property
    def precision(self) -> NDArray[np.float64]:
        """Recalled faces by proposals; 0 where nothing is proposed."""
        return np.divide(
            self.recalled,
            self.proposals,
            out=np.zeros_like(self.recalled),
            where=self.proposals > 0,
        )

    @property
    def recall(self) -> NDArray[np.float64]:
        """Recalled faces by kept faces; NaN where none is kept."""
        if self.faces == 0:
            return np.full_like(self.recalled, np.nan)
        return self.recalled / self.faces

    @property
    def ap(self) -> float:
        """Area under the precision envelope; NaN where no face is kept."""
        return average_precision(self.precision, self.recall)

    def summary(self) -> dict[str, Any]:
        """Give the figures as plain values, None where no face is kept."""
        defined = self.faces > 0
        return {
            "ap": self.ap if defined else None,
            "recall": float(self.recall[-1]) if defined else None,
            "faces": int(self.faces),
            "recalled": int(self.recalled[-1]),
            "proposals": int(self.proposals[-1]),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The figures of one set of detections, and what they came from.

    Attributes
    ----------
    settings : Settings
    ground_truth : GroundTruth
    detections : Detections
        In the order that the rule judged them.
    matches : Matches
        The outcome of each; the settings are the subsets in order.
    levels : ndarray of int64, shape (detections,)
        First step of the curve at which each counts.
    curves : dict of str to Curve
        By subset.
    score_range : tuple of float
        Lowest and highest score of the set, before normalisation.
    warnings : tuple of str
    """

    settings: Settings
    ground_truth: GroundTruth
    detections: Detections
    matches: Matches
    levels: NDArray[np.int64]
    curves: Mapping[str, Curve]
    score_range: tuple[float, float]
    warnings: tuple[str, ...]

    @property
    def ap(self) -> dict[str, float]:
        """Average precision by subset."""
        return {name: curve.ap for name, curve in self.curves.items()}

    def as_dict(self) -> dict[str, Any]:
        """Give the figures and settings as plain values, for JSON."""
        return {
            "rule": self.settings.rule,
            "iou_threshold": self.settings.iou,
            "score_steps": self.settings.steps,
            "score_normalisation": self.settings.normalisation,
            "score_range": list(self.score_range),
            "images": len(self.ground_truth.images),
            "detections": len(self.detections.scores),
            "subsets": {name: curve.summary() for name, curve in self.curves.items()},
            "warnings": list(self.warnings),
        }


def evaluate(
    ground_truth: GroundTruth,
    detections: Detections,
    settings: Settings | None = None,
    *,
    threads: int | None = None,
    kernel: Kernel = "compiled",
) -> Evaluation:
    """AP of a set of detections on every subset of the ground truth.

    Parameters
    ----------
    ground_truth : GroundTruth
    detections : Detections
        Of the same images, in the same order.
    settings : Settings, optional
    threads : int, optional
        At most this many; by default one a processor.
    kernel : {'compiled', 'reference'}

    Raises
    ------
    WiderFaceError
        The images differ, there is no detection at all, or all scores are equal.
    """
    settings = settings or Settings()
    check_images(detections, ground_truth)
    judged, levels, warnings = _judged(detections, settings)
    matches = match_boxes(
        judged,
        ground_truth,
        iou=settings.iou,
        arithmetic="int32" if settings.rule == "matlab_int" else "double",
        threads=threads,
        kernel=kernel,
    )
    subsets = zip(ground_truth.subsets.items(), matches.outcome, strict=True)
    curves = {
        name: curve_of(levels, outcome, float(kept.sum()), settings.steps)
        for (name, kept), outcome in subsets
    }
    aps = [curve.ap for curve in curves.values() if curve.faces]
    return Evaluation(
        settings=settings,
        ground_truth=ground_truth,
        detections=judged,
        matches=matches,
        levels=levels,
        curves=curves,
        score_range=(float(detections.scores.min()), float(detections.scores.max())),
        warnings=(
            *warnings,
            *silence(detections, ground_truth),
            *hardly_a_hit(aps, matches, settings.iou),
        ),
    )


def _judged(
    detections: Detections, settings: Settings
) -> tuple[Detections, NDArray[np.int64], tuple[str, ...]]:
    """Return the detections in the rule's order, the first step of each, and warnings."""
    levels = _levels(normalise(detections.scores, settings.rule), settings.steps)
    order, warnings = _order(detections, settings.rule)
    if order is not None:
        boxes, scores = detections.boxes[order], detections.scores[order]
        detections = Detections(detections.images, detections.offsets, boxes, scores)
        levels = levels[order]
    if settings.rule == "python_file_order":
        levels = _lowest_from_here(levels, detections.offsets)
    return detections, levels, warnings


def normalise(scores: NDArray[np.float64], rule: Rule) -> NDArray[np.float64]:
    """Map the scores of a whole set to 0..1 by its lowest and highest.

    Raises
    ------
    WiderFaceError
        There is none, or all are equal.

    Examples
    --------
    >>> normalise(np.array([2.0, 3.0, 6.0]), "python")
    array([0.  , 0.25, 1.  ])
    """
    if len(scores) == 0:
        raise WiderFaceError(
            "There is not a single detection in the whole set, so that no AP can be stated. "
            "Look at the score threshold and at the input's normalisation."
        )
    # The tools hold the extremes, the difference and the quotient in single precision.
    kind = np.float32 if rule in ("matlab", "matlab_int") else np.float64
    values = scores.astype(kind)
    low, high = values.min(), values.max()
    if kind is np.float32:
        high = max(high, np.finfo(np.float32).tiny)
    if rule == "python_file_order":
        low, high = min(low, kind(1)), max(high, kind(0))
    with np.errstate(over="ignore"):
        span = high - low
    if not 0 < span < np.inf:
        raise WiderFaceError(
            f"All scores lie between {low} and {high}, which cannot be stretched to 0..1. "
            "Write the detector's own scores with all their digits."
        )
    normalised: NDArray[np.float64] = ((values - low) / span).astype(np.float64)
    return normalised


def average_precision(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """Area under the precision envelope at all points, as of VOC 2010.

    Parameters
    ----------
    precision, recall : ndarray of shape (n,)
        In order of falling threshold; recall rises.

    Returns
    -------
    float
        NaN if recall is.

    References
    ----------
    .. [1] M. Everingham et al., "The PASCAL Visual Object Classes Challenge 2010 Development
       Kit", section 3.4.

    Examples
    --------
    >>> average_precision(np.array([1.0, 0.5]), np.array([0.5, 1.0]))
    0.75
    """
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    gained = np.diff(recall, prepend=0.0)
    rises = gained != 0
    return float(np.sum(gained[rises] * envelope[rises]))


def curve_of(
    levels: NDArray[np.int64],
    outcome: NDArray[np.int8],
    faces: float,
    steps: int,
    weights: NDArray[np.float64] | None = None,
) -> Curve:
    """Count proposals and recalled faces at every step.

    Parameters
    ----------
    levels : ndarray of shape (n,)
        First step at which each detection counts.
    outcome : ndarray of shape (n,)
        As in `Matches`.
    faces : float
        Faces kept, weighted likewise.
    steps : int
    weights : ndarray of shape (n,), optional
        How often each detection counts, for resampling.
    """
    counts = []
    for chosen in (outcome != IGNORED, outcome == HIT):
        share = None if weights is None else weights[chosen]
        at_level = np.bincount(levels[chosen], share, minlength=steps + 1)[:steps]
        counts.append(np.cumsum(at_level, dtype=np.float64))
    return Curve(counts[0], counts[1], faces)


def _levels(scores: NDArray[np.float64], steps: int) -> NDArray[np.int64]:
    thresholds = 1 - (np.arange(steps) + 1) / steps
    return steps - np.searchsorted(thresholds[::-1], scores, side="right")


def _order(detections: Detections, rule: Rule) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Order by falling score within each image (None: it is that already), and a warning."""
    rises = np.diff(detections.scores) > 0
    inner = detections.offsets[1:-1]
    inner = inner[(inner > 0) & (inner < len(detections.scores))]
    rises[inner - 1] = False
    if not rises.any():
        return None, ()
    images = np.unique(detections.image_of[1:][rises])
    names = listed([detections.images[image] for image in images])
    unsorted = f"The detections of {len(images)} images were not in order of falling score"
    if rule == "python_file_order":
        return None, (f"{unsorted}, and this rule does not sort them: {names}.",)
    order = np.lexsort((-detections.scores, detections.image_of))
    return order, (f"{unsorted}, and have been sorted: {names}.",)


def _lowest_from_here(levels: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lowest level of each detection and those after it in its image.

    The public code counts everything up to the *last* detection at or above the threshold.
    """
    lowest = levels.copy()
    for start, stop in pairwise(offsets):
        block = lowest[start:stop]
        block[:] = np.minimum.accumulate(block[::-1])[::-1]
    return lowest
