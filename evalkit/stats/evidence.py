"""What lies beside a result: enough for every later verdict, without model or images.

A paired verdict needs nothing else. It draws units from the reference's evidence, asks both sides
for a metric's value in every draw, and subtracts. Where a metric is a share of decisions, it asks
both sides for the decisions instead. So a verdict holds no statistic of a benchmark.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from evalkit.core.errors import InputError
from evalkit.core.results import Metric

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Unit = Literal["subject", "pair", "image"]


class Draws(Protocol):
    """Draws of units with replacement, the same for every model."""

    @property
    def method(self) -> str:
        """How the draws were made, for records: ``subject bootstrap, 2000 draws, seed 0, ...``."""


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """Error rates at a threshold that another run has set.

    Attributes
    ----------
    fmr, fnmr : float
        False match rate, false non-match rate.
    tar : float
        Share of genuine comparisons that are accepted.
    similarity : float or None
        The threshold; None where each fold has its own.
    fmr_draws, tar_draws : ndarray of float, shape (replicates,), or None
        The rates in every draw; NaN in a draw without such comparisons. None where nothing was
        drawn.
    """

    fmr: float
    fnmr: float
    tar: float
    similarity: float | None = None
    fmr_draws: Floats | None = None
    tar_draws: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """Which comparisons are accepted, and what they are.

    Attributes
    ----------
    accepted, genuine : ndarray of bool, shape (comparisons,)
    similarity : ndarray of float, shape (comparisons,)
        Not finite where a side failed to enrol.
    label : callable
        Names a comparison for a reader, by its row.
    """

    accepted: Bools
    genuine: Bools
    similarity: Array
    label: Callable[[int], str]

    @property
    def right(self) -> Bools:
        """Which decisions are right."""
        right: Bools = self.accepted == self.genuine
        return right

    def changed(self, after: Decisions) -> list[int]:
        """Return the rows that another run decides otherwise, the largest changes first."""
        rows = np.flatnonzero(self.accepted != after.accepted)
        with np.errstate(invalid="ignore"):
            change = np.abs(after.similarity[rows] - self.similarity[rows])
        change = np.where(np.isnan(change), np.inf, change)
        ordered: list[int] = rows[np.argsort(-change, kind="stable")].tolist()
        return ordered


class Evidence(ABC):
    """The trials of one run, by which its metrics can be computed again in any draw.

    Attributes
    ----------
    unit : {"subject", "pair", "image"}
        What is taken as independent, and so what is drawn.
    """

    unit: ClassVar[Unit]

    @abstractmethod
    def weights(self, metric: Metric) -> Array:
        """Return how many decisions of a metric each unit has part in, where it has any."""

    @abstractmethod
    def unpaired(self, other: Self) -> str:
        """Return why another run's trials are not these; empty where they are."""

    @abstractmethod
    def draw(self, replicates: int | None = None, seed: int = 0) -> Draws | None:
        """Draw units; None where there are too few to draw from.

        Parameters
        ----------
        replicates : int, optional
            The family's own number if not given.
        seed : int
        """

    @abstractmethod
    def once(self) -> Draws | None:
        """Return one draw that takes every unit once; None where there are too few to draw from.

        A metric's replicate under it is the metric's value.
        """

    @abstractmethod
    def replicates(self, metric: Metric, draws: Any) -> Floats | None:
        """Return a metric's value in every draw; None where it has none under draws.

        Parameters
        ----------
        metric : Metric
        draws : Draws
            Of `draw`, of this evidence or of another on the same trials.
        """

    def decisions(self, metric: Metric, at: Metric) -> Decisions | None:
        """Return the decisions of a metric at the thresholds of another (or of itself).

        None where the metric is no share of decisions.

        Raises
        ------
        evalkit.core.errors.InputError
            The metric's own thresholds do not give its own counts: the files do not belong
            together.
        """
        return None

    def rates(self, at: Metric, draws: Any = None) -> Rates | None:
        """Return the error rates at a metric's thresholds; None where it has no thresholds."""
        return None


def required(arrays: Mapping[str, Array], *names: str) -> list[Array]:
    """Return arrays by name.

    Raises
    ------
    evalkit.core.errors.InputError
        One is missing.
    """
    missing = next((name for name in names if name not in arrays), None)
    if missing is not None:
        raise InputError(
            f"The file of scores has no array {missing}. Make the result again: evalkit writes "
            "the scores beside it."
        )
    return [arrays[name] for name in names]


def damaged(error: ValueError) -> InputError:
    """Make the error for arrays that do not fit together."""
    return InputError(f"The scores beside a result are damaged: {error}. Make the result again.")


def foreign(metric: Metric) -> InputError:
    """Make the error for scores that do not give a metric as the result has it."""
    return InputError(
        f"The scores beside a result do not give its {metric.name}. The files do not belong "
        "together; make the result again."
    )
