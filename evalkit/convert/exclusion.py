"""Leaving layers out of quantisation: by name, or the worst ones until a goal is met."""

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
    """One exclusion, tried.

    Attributes
    ----------
    excluded : tuple of str
    agreement : Agreement
        With fp32, over the held-out images.
    accuracy : float or None
        Of verifying the held-out pairs, where that is the goal.
    size : int
        Of the model, in bytes.
    images_per_second : float
    taken_back : bool
        Whether the layer excluded last was quantised again, because the goal's figure fell.
    """

    excluded: tuple[str, ...]
    agreement: Agreement
    accuracy: float | None
    size: int
    images_per_second: float
    taken_back: bool = False


Measure = Callable[[tuple[str, ...]], Trial]


def matched(patterns: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """Resolve names and globs to layers, in the network's order.

    Raises
    ------
    evalkit.core.errors.InputError
        A pattern fits no layer; the message says what was perhaps meant.

    Examples
    --------
    >>> matched(["conv*", "fc"], ["conv1", "conv2", "bn", "fc"])
    ('conv1', 'conv2', 'fc')
    """
    for pattern in patterns:
        if not _fitting(pattern, layers):
            close = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.3) or layers[:3]
            raise InputError(
                f"--exclude {pattern}: no layer is named so. The model has {len(layers)} layers "
                f"that can be excluded, such as {', '.join(close)}; * and ? stand for any "
                "characters."
            )
    chosen = {name for pattern in patterns for name in _fitting(pattern, layers)}
    return tuple(name for name in layers if name in chosen)


def _fitting(pattern: str, layers: Sequence[str]) -> list[str]:
    if pattern in layers:  # names may hold brackets, which a glob would read
        return [pattern]
    return [name for name in layers if fnmatch.fnmatchcase(name, pattern)]


def rank(layers: Sequence[str], measure: Measure, progress: Progress) -> list[tuple[str, float]]:
    """Rank layers by how much each hurts when it is the only one that is quantised.

    Returns
    -------
    list of (str, float)
        The layer, and 1 minus its mean cosine to fp32; the worst first.
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
    """Exclude one layer more each time, the worst first, until the goal is reached.

    A layer whose exclusion lowers the figure is quantised again. Some help together alone: where
    the next one lowers it too, it is tried along with those that were taken back before it.

    Parameters
    ----------
    ranked : sequence of str
        Layers, the worst first.
    start : Trial
        With what is excluded anyway.
    measure : callable
    figure : callable
        Gives what is to reach the goal.
    goal : float
    progress : Progress

    Yields
    ------
    Trial
        `start` and every further one; see `outcome`. Where no trial reaches the goal, the last one
        has every layer excluded.
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
