"""Excluding layers from quantisation: by name, or the worst ones until a goal is met."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from evalkit.convert.agreement import Agreement
from evalkit.core.errors import InputError
from evalkit.core.progress import Progress


@dataclass(frozen=True, slots=True)
class Trial:
    """A model built with some layers excluded, and its figures.

    Attributes
    ----------
    excluded : tuple of str
    agreement : Agreement
        With fp32, on the images of the comparison.
    accuracy : float or None
        On the pairs of the comparison, if that is the goal.
    size : int
        Of the model, in bytes.
    images_per_second : float
    taken_back : bool
        Whether the last layer is quantised again, because the goal's figure fell.
    """

    excluded: tuple[str, ...]
    agreement: Agreement
    accuracy: float | None
    size: int
    images_per_second: float
    taken_back: bool = False


Measure = Callable[[tuple[str, ...]], Trial]


def matched(patterns: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that match names and globs, in the network's order.

    Raises
    ------
    evalkit.core.errors.InputError
        A pattern matches no layer; the message suggests similar names.

    Examples
    --------
    >>> matched(["conv*", "fc"], ["conv1", "conv2", "bn", "fc"])
    ('conv1', 'conv2', 'fc')
    """
    chosen: set[str] = set()
    for pattern in patterns:
        # A name may contain brackets, which a glob would interpret.
        names = [pattern] if pattern in layers else fnmatch.filter(layers, pattern)
        if not names:
            close = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.3) or layers[:3]
            raise InputError(
                f"--exclude {pattern}: no layer has this name. The model has {len(layers)} layers "
                f"that can be excluded, such as {', '.join(close)}; * and ? stand for any "
                "characters."
            )
        chosen.update(names)
    return tuple(name for name in layers if name in chosen)


def rank(layers: Sequence[str], measure: Measure, progress: Progress) -> list[tuple[str, float]]:
    """Rank layers by the loss when only that layer is quantised.

    Returns
    -------
    list of (str, float)
        The layer, and 1 minus the mean cosine to fp32; the worst first.
    """
    losses = []
    with progress.stage("ranking layers", len(layers), "layers") as advance:
        for layer in layers:
            others = tuple(name for name in layers if name != layer)
            losses.append((layer, 1 - measure(others).agreement.mean))
            advance(1)
    return sorted(losses, key=lambda loss: -loss[1])


def search(
    ranked: Sequence[str],
    start: Trial,
    measure: Measure,
    figure: Callable[[Trial], float],
    goal: float,
    progress: Progress,
) -> Iterator[Trial]:
    """Exclude one more layer each time, the worst first, until the goal is reached.

    A layer whose exclusion lowers the figure is quantised again. Some layers help only together: if
    the next layer lowers the figure too, it is tried together with those taken back before.

    Parameters
    ----------
    ranked : sequence of str
        Layers, the worst first.
    start : Trial
        With the layers that the user excludes.
    measure : callable
    figure : callable
        Returns the figure that must reach the goal.
    goal : float
    progress : Progress

    Yields
    ------
    Trial
        `start` and every further trial; see `outcome`. If no trial reaches the goal, the last one
        excludes every layer.
    """
    yield start
    best = last = start
    back: tuple[str, ...] = ()
    with progress.stage("excluding layers", len(ranked), "layers") as advance:
        for layer in ranked:
            if figure(best) >= goal:
                return
            for others in dict.fromkeys([(), back]):
                last = measure((*best.excluded, *others, layer))
                last = replace(last, taken_back=figure(last) < figure(best))
                yield last
                if not last.taken_back:
                    best, back = last, tuple(name for name in back if name not in others)
                    break
            else:
                back = (*back, layer)
            advance(1)
    if figure(best) < goal and len(last.excluded) < len(start.excluded) + len(ranked):
        last = measure((*best.excluded, *back))
        yield replace(last, taken_back=figure(last) < figure(best))


def outcome(trials: Sequence[Trial]) -> Trial:
    """Return the last trial that was not taken back."""
    return next(trial for trial in reversed(trials) if not trial.taken_back)
