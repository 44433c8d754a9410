"""Ten-fold cross-validation over pairs: accuracy, and validation rate at a false accept rate.

A pair is called the same person when its distance, the squared L2 distance of normalised
embeddings, ``2 - 2 cos``, is below a threshold. The rules of accuracy differ in how nine folds
choose the threshold for the tenth:

``insightface``
    The grid ``arange(0, 4, 0.01)``; the lowest threshold among the most accurate. Together with
    `val_at_far` it repeats the figures of InsightFace's ``verification.py`` to the last digit.
``exact``
    Every midpoint between distinct training distances, so that no better cut exists.
``facexzoo``
    1,000 steps over the range of training similarities; the lowest that maximises TPR - FPR;
    spread as a standard error; no flipped images. The rule of FaceX-Zoo's ``lfw_evaluator.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.protocols.intervals import wilson_interval

Rule: TypeAlias = Literal["insightface", "exact", "facexzoo"]
Layout: TypeAlias = Literal["contiguous", "interleaved"]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]

RULES: Final[tuple[Rule, ...]] = get_args(Rule)
FOLDS: Final = 10
ACCURACY_GRID: Final = np.arange(0, 4, 0.01)
VAL_GRID: Final = np.arange(0, 4, 0.001)
ACCURACY_GRID.flags.writeable = False
VAL_GRID.flags.writeable = False

_FACEXZOO_STEPS: Final = 1000
_LARGEST_DISTANCE: Final = 4.0


@dataclass(frozen=True, slots=True)
class TenFold:
    """Accuracy by cross-validation.

    Attributes
    ----------
    rule : {'insightface', 'exact', 'facexzoo'}
    accuracy : float
        Mean of the folds' held-out accuracies.
    spread : float
        Their population standard deviation, or under ``facexzoo`` their standard error.
    spread_is : {'population_std', 'standard_error'}
    threshold, cosine_threshold : float
        Mean of the folds' thresholds, as a squared distance and as a cosine.
    fold_accuracy, fold_threshold : tuple of float
        Of each fold; thresholds as squared distances.
    correct, pairs : int
        Held-out decisions that are right, of all folds together, and all decisions.
    interval : tuple of float
        Wilson's 95 % interval of ``correct / pairs``. It takes pairs as independent, though a
        person may be in several pairs: a set without identities allows no better interval.
    """

    rule: Rule
    accuracy: float
    spread: float
    spread_is: Literal["population_std", "standard_error"]
    threshold: float
    cosine_threshold: float
    fold_accuracy: tuple[float, ...]
    fold_threshold: tuple[float, ...]
    correct: int
    pairs: int
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ValAtFar:
    """Validation rate at a false accept rate, by cross-validation.

    Attributes
    ----------
    target : float
        The target FAR on the training folds.
    val, std : float
        Mean and population standard deviation of the held-out validation rates.
    far : float
        Mean of the held-out false accept rates.
    fold_val, fold_far, fold_threshold : tuple of float
        Of each fold; a rate is NaN, and left out of the means, where the fold has no such pair.
    true_accepts, same, false_accepts, different : int
        Held-out counts of all folds together.
    """

    target: float
    val: float
    std: float
    far: float
    fold_val: tuple[float, ...]
    fold_far: tuple[float, ...]
    fold_threshold: tuple[float, ...]
    true_accepts: int
    same: int
    false_accepts: int
    different: int


def assign_folds(
    issame: ArrayLike, layout: Layout | Literal["auto"] = "auto"
) -> tuple[Ints, Layout, tuple[str, ...]]:
    """Lay pairs into ten folds.

    Parameters
    ----------
    issame : array_like of shape (n_pairs,)
    layout : {'auto', 'contiguous', 'interleaved'}
        ``contiguous``: in order, as ``KFold(10, shuffle=False)``. ``interleaved``: dealt to
        the folds in turn, the same pairs first, then the different ones. ``auto``: contiguous,
        unless that leaves a fold with one kind of pair only, as lists of all same and then all
        different pairs do.

    Returns
    -------
    fold : ndarray of int64, shape (n_pairs,)
    layout : {'contiguous', 'interleaved'}
        The one used.
    warnings : tuple of str

    Raises
    ------
    ValueError
        There are fewer than ten pairs, only one kind of pair, or the layout is unknown.
    """
    same = checked_labels(issame)
    if layout not in ("auto", *get_args(Layout)):
        raise ValueError(f"Unknown layout {layout!r}; use auto, contiguous or interleaved.")
    sizes = [same.size // FOLDS + (k < same.size % FOLDS) for k in range(FOLDS)]
    contiguous = np.repeat(np.arange(FOLDS), sizes)
    lacking = _one_class(contiguous, same)
    if layout == "contiguous" or (layout == "auto" and not lacking):
        warning = f"{lacking} of the {FOLDS} folds hold one kind of pair only."
        return contiguous, "contiguous", (warning,) if lacking else ()
    fold = np.empty(same.size, np.int64)
    fold[np.concatenate([np.flatnonzero(same), np.flatnonzero(~same)])] = (
        np.arange(same.size) % FOLDS
    )
    warnings = []
    if lacking:
        warnings.append(
            f"{lacking} of the {FOLDS} contiguous folds would hold one kind of pair only; "
            "the folds are interleaved instead."
        )
    if still := _one_class(fold, same):
        warnings.append(f"{still} of the {FOLDS} interleaved folds hold one kind of pair only.")
    return fold, "interleaved", tuple(warnings)


def ten_fold_accuracy(distances: Floats, issame: Bools, fold: Ints, rule: Rule) -> TenFold:
    """Return the accuracy of each fold at the threshold that the other nine choose.

    Parameters
    ----------
    distances : ndarray of float64, shape (n_pairs,)
        Squared distances, infinite for a failure to enrol.
    issame : ndarray of bool, shape (n_pairs,)
    fold : ndarray of int64, shape (n_pairs,)
        From `assign_folds`.
    rule : {'insightface', 'exact', 'facexzoo'}

    Raises
    ------
    ValueError
        The rule is unknown.
    """
    if rule == "insightface":
        thresholds = _grid_thresholds(distances, issame, fold)
    elif rule == "exact":
        thresholds = _exact_thresholds(distances, issame, fold)
    elif rule == "facexzoo":
        thresholds = 2 - 2 * (cosines := _facexzoo_thresholds(1 - distances / 2, issame, fold))
    else:
        raise ValueError(f"Unknown rule {rule!r}; known are {', '.join(RULES)}.")
    if rule == "facexzoo":
        margin = (1 - distances / 2) - cosines[fold]
        right = np.where(issame, margin > 0, margin < 0)  # on the threshold is always wrong
    else:
        right = (distances < thresholds[fold]) == issame
    correct = _per_fold(fold, right)
    rates = correct / _per_fold(fold)
    error = rule == "facexzoo"
    total = int(correct.sum())
    threshold = float(np.mean(thresholds))
    return TenFold(
        rule=rule,
        accuracy=float(np.mean(rates)),
        spread=float(np.std(rates, ddof=1) / np.sqrt(FOLDS) if error else np.std(rates)),
        spread_is="standard_error" if error else "population_std",
        threshold=threshold,
        cosine_threshold=1 - threshold / 2,
        fold_accuracy=tuple(rates.tolist()),
        fold_threshold=tuple(thresholds.tolist()),
        correct=total,
        pairs=issame.size,
        interval=wilson_interval(total, issame.size),
    )


def val_at_far(distances: Floats, issame: Bools, fold: Ints, target: float = 1e-3) -> ValAtFar:
    """Return the validation rate of each fold where the other nine reach a false accept rate.

    The threshold comes from linear interpolation of the training FAR over ``arange(0, 4, 0.001)``,
    from the last grid point at or below the target to the next. It is 0 where the largest FAR
    stays below the target.

    Parameters
    ----------
    distances, issame, fold
        As for `ten_fold_accuracy`.
    target : float
        The FAR, above 0 and at most 1.

    Raises
    ------
    ValueError
        The target is out of range.
    """
    if not 0 < target <= 1:
        raise ValueError(f"A target FAR must lie above 0 and at most at 1, not {target}.")
    accepts = _accepts(distances[~issame], fold[~issame], VAL_GRID)
    different, same = _per_fold(fold, ~issame), _per_fold(fold, issame)
    train = np.maximum(different.sum() - different, 1)
    fars = (accepts.sum(axis=0) - accepts) / train[:, None]
    thresholds = np.array([_interpolated(far, target) for far in fars])
    called = distances < thresholds[fold]
    true_accepts, false_accepts = (_per_fold(fold, called & kind) for kind in (issame, ~issame))
    val, far = _rates(true_accepts, same), _rates(false_accepts, different)
    return ValAtFar(
        target=target,
        val=float(np.mean(val[same > 0])),
        std=float(np.std(val[same > 0])),
        far=float(np.mean(far[different > 0])),
        fold_val=tuple(val.tolist()),
        fold_far=tuple(far.tolist()),
        fold_threshold=tuple(thresholds.tolist()),
        true_accepts=int(true_accepts.sum()),
        same=int(same.sum()),
        false_accepts=int(false_accepts.sum()),
        different=int(different.sum()),
    )


def checked_labels(issame: ArrayLike) -> Bools:
    """Return the labels as booleans.

    Raises
    ------
    ValueError
        They are not 0 and 1 in one dimension, fewer than ten, or all of one kind.
    """
    labels: NDArray[Any] = np.asarray(issame)
    if labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise ValueError("issame must be one-dimensional and hold only true and false.")
    same = labels.astype(bool)
    if same.size < FOLDS:
        raise ValueError(f"There are {same.size} pairs; ten folds need at least {FOLDS}.")
    if same.all() or not same.any():
        kind = "same" if same.all() else "different"
        raise ValueError(f"All {same.size} pairs are of the kind {kind!r}; both are needed.")
    return same


def _one_class(fold: Ints, same: Bools) -> int:
    count = _per_fold(fold, same)
    return int(np.count_nonzero((count == 0) | (count == _per_fold(fold))))


def _per_fold(fold: Ints, chosen: Bools | None = None) -> Ints:
    return np.bincount(fold if chosen is None else fold[chosen], minlength=FOLDS)


def _accepts(distances: Floats, fold: Ints, grid: Floats) -> Ints:
    """Return the count of distances below each threshold, shape (folds, thresholds)."""
    # The number of thresholds at or below a distance is the first that accepts it.
    cell = fold * (grid.size + 1) + np.searchsorted(grid, distances, "right")
    counts = np.bincount(cell, minlength=FOLDS * (grid.size + 1))
    return counts.reshape(FOLDS, -1)[:, :-1].cumsum(axis=1)


def _grid_thresholds(distances: Floats, issame: Bools, fold: Ints) -> Floats:
    true_accepts = _accepts(distances[issame], fold[issame], ACCURACY_GRID)
    false_accepts = _accepts(distances[~issame], fold[~issame], ACCURACY_GRID)
    gain = true_accepts - false_accepts
    best: Floats = ACCURACY_GRID[np.argmax(gain.sum(axis=0) - gain, axis=1)]
    return best


def _exact_thresholds(distances: Floats, issame: Bools, fold: Ints) -> Floats:
    order = np.argsort(distances)
    distances, issame, fold = distances[order], issame[order], fold[order]
    train = [fold != k for k in range(FOLDS)]
    return np.array([_best_cut(distances[chosen], issame[chosen]) for chosen in train])


def _best_cut(distances: Floats, issame: Bools) -> float:
    """Return the lowest of the best thresholds for ascending distances."""
    ends = np.flatnonzero(np.append(distances[1:] > distances[:-1], True))
    ends = ends[np.isfinite(distances[ends])]
    gain = np.cumsum(np.where(issame, 1, -1))[ends]
    best = int(np.argmax(np.concatenate([[0], gain])))
    if best == 0:
        return 0.0
    last = ends[best - 1]
    low = float(distances[last])
    if best == ends.size:
        return max(_LARGEST_DISTANCE, float(np.nextafter(low, np.inf)))
    high = float(distances[last + 1])
    middle = low + (high - low) / 2
    return middle if middle > low else high  # neighbouring floats have no midpoint


def _facexzoo_thresholds(cosines: Floats, issame: Bools, fold: Ints) -> Floats:
    thresholds = np.full(FOLDS, np.inf)
    for k in range(FOLDS):
        train = (fold != k) & np.isfinite(cosines)
        if not train.any():
            continue
        low, high = cosines[train].min(), cosines[train].max()
        grid = low + (high - low) / _FACEXZOO_STEPS * np.arange(1, _FACEXZOO_STEPS + 1)
        tpr, fpr = (
            (chosen.size - np.searchsorted(np.sort(chosen), grid, "right")) / max(chosen.size, 1)
            for chosen in (cosines[(fold != k) & issame], cosines[(fold != k) & ~issame])
        )
        thresholds[k] = grid[np.argmax(tpr - fpr)]
    return thresholds


def _interpolated(far: Floats, target: float) -> float:
    if far[-1] < target:
        return 0.0
    j = int(np.searchsorted(far, target, "right")) - 1
    if j == far.size - 1:
        return float(VAL_GRID[j])
    share = (target - far[j]) / (far[j + 1] - far[j])
    return float(VAL_GRID[j] + share * (VAL_GRID[j + 1] - VAL_GRID[j]))


def _rates(accepts: Ints, total: Ints) -> Floats:
    rates = np.full(FOLDS, np.nan)
    np.divide(accepts, total, out=rates, where=total > 0)
    return rates
