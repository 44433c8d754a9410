"""What lies beside a result: enough for every later verdict, without model or images.

A paired verdict needs nothing else. It draws units from the reference's evidence, asks both sides
for a metric's value in every draw, and subtracts. Where a metric is a share of decisions, it asks
both sides for the decisions instead. So a verdict holds no statistic of a benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from evalkit.core.results import Metric

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Unit = Literal["subject", "pair", "image"]


class Draws(Protocol):
    """Draws of units with replacement: weights that say how often each unit was drawn.

    Attributes
    ----------
    weights : ndarray of int, shape (replicates, units)
    """

    weights: Array

    @property
    def method(self) -> str:
        """How the draws were made, for records: ``subject bootstrap, 2000 draws, seed 0, ...``."""


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """False match and false non-match rate at a threshold that another run has set.

    Attributes
    ----------
    fmr, fnmr : float
    similarity : float or None
        The threshold; None where each fold has its own.
    fmr_draws, fnmr_draws : ndarray of float, shape (replicates,), or None
        The rates in every draw; NaN in a draw without such comparisons.
    """

    fmr: float
    fnmr: float
    similarity: float | None = None
    fmr_draws: Floats | None = None
    fnmr_draws: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """Which comparisons are accepted, and what they are.

    Attributes
    ----------
    accepted, genuine : ndarray of bool, shape (comparisons,)
    similarity : ndarray of float, shape (comparisons,)
        Not finite where a side failed to enrol.
    """

    accepted: Bools
    genuine: Bools
    similarity: Array

    @property
    def right(self) -> Bools:
        """Which decisions are right."""
        found: Bools = self.accepted == self.genuine
        return found


class Evidence(Protocol):
    """The trials of one run, by which its metrics can be computed again in any draw.

    Attributes
    ----------
    unit : {"subject", "pair", "image"}
        What is taken as independent, and so what is drawn.
    """

    unit: Unit

    def weights(self, metric: Metric) -> Array:
        """Return how many decisions of a metric each unit has part in, where it has any."""

    def unpaired(self, other: Self) -> str:
        """Return why another run's trials are not these; empty where they are."""

    def draw(self, replicates: int | None = None, seed: int = 0) -> Draws | None:
        """Draw units; None where there are too few to draw from.

        Parameters
        ----------
        replicates : int, optional
            The family's own number if not given.
        seed : int
        """

    def replicates(self, metric: Metric, draws: Draws) -> Floats | None:
        """Return a metric's value in every draw; None where it has none under draws."""

    def decisions(self, metric: Metric, at: Metric) -> Decisions | None:
        """Return the decisions of a metric at the thresholds of another (or of itself).

        None where the metric is no share of decisions.

        Raises
        ------
        evalkit.core.errors.InputError
            The thresholds do not give the metric's own counts: the files do not belong together.
        """

    def rates(self, at: Metric, draws: Draws | None = None) -> Rates | None:
        """Return FMR and FNMR at a metric's thresholds; None where it has no thresholds."""

    def label(self, row: int) -> str:
        """Name a comparison for a reader."""

    def arrays(self) -> Mapping[str, Array]:
        """Return what is saved beside the result."""
