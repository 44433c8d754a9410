"""Paired comparison of two runs on the same trials.

A figure's change comes from draws of units where the evidence gives replicates. Where pairs are
taken as independent and the figure is the share of right decisions, it comes from the decisions:
the test is exact, and its interval has a width where no decision changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.results import Interval, Metric, Result, load_result
from evalkit.stats.evidence import Bools, Decisions, Draws, Evidence, Floats, Rates
from evalkit.stats.noninferiority import Bounds, from_decisions, from_replicates
from evalkit.stats.paired import LEVEL, McNemar, mcnemar
from evalkit.stats.subjects import percentile_interval
from evalkit.tasks import TASKS


class Side:
    """A run of a comparison: its result file, the result, and the evidence beside it."""

    def __init__(self, path: Path, result: Result | None = None) -> None:
        self.path = path
        self.result = result or load_result(path)

    @cached_property
    def evidence(self) -> Mapping[str, Evidence]:
        """By view, the main one first; empty where no scores lie beside the result.

        Raises
        ------
        evalkit.core.errors.InputError
            The scores are missing, damaged, or of another result.
        """
        if self.result.scores_file is None:
            return {}
        task = TASKS.get(self.result.task)()
        return task.read(load_scores(self.path, self.result), self.result)


def load_scores(path: Path, result: Result) -> dict[str, Any]:
    """Read the scores beside a result, never unpickling anything.

    Raises
    ------
    evalkit.core.errors.InputError
        The file is missing or damaged.
    """
    file = path.parent / Path(result.scores_file or "").name
    if not file.is_file():
        raise InputError(
            f"Cannot read the scores of {path}: {file} is missing. A result is two files: copy "
            "this one too. Make the result again if it is lost."
        )
    try:
        with np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        raise InputError(
            f"Cannot read the scores {file} of {path}: {error}. Make the result again."
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """How a figure changed: in every draw of units, or decision by decision.

    Attributes
    ----------
    method : str
        How intervals are made of it.
    replicates : ndarray of float64, shape (draws,), or None
        Candidate minus reference.
    outcomes : tuple of two ndarrays of bool, or None
        Which decisions are right (or accepted): the reference's, the candidate's.
    """

    method: str
    replicates: Floats | None = None
    outcomes: tuple[Bools, Bools] | None = None

    @property
    def one_sided(self) -> str:
        """How one-sided bounds are made of it."""
        if self.outcomes is not None:
            return "Tango's score bound, pair-level, one-sided"
        return f"{self.method}, one-sided, at least the bounds for rare losses"

    def test(self, level: float = LEVEL) -> McNemar | None:
        """Return McNemar's exact test of the decisions; None for draws."""
        return None if self.outcomes is None else mcnemar(*self.outcomes, level)

    def interval(self, level: float = LEVEL) -> Interval | None:
        """Return the two-sided interval; None where most draws give no figure."""
        test = self.test(level)
        if test is not None:
            return Interval(low=test.low, high=test.high, level=level, method=self.method)
        bounds = None if self.replicates is None else percentile_interval(self.replicates, level)
        if bounds is None:
            return None
        return Interval(low=bounds.low, high=bounds.high, level=level, method=self.method)

    def bounds(self, gain: float, level: float, weights: Any, sign: int = 1) -> Bounds | None:
        """Return one-sided bounds of the gain; None where most draws give no figure.

        Parameters
        ----------
        gain : float
            The change as observed; below 0 where the candidate is worse.
        level : float
        weights : ndarray
            See `evalkit.stats.noninferiority.from_replicates`.
        sign : int
            -1 where a lower figure is better.
        """
        test = self.test(level)
        if test is not None:
            return from_decisions(test.gained, test.lost, test.trials, level)
        if self.replicates is None:
            return None
        return from_replicates(gain, sign * self.replicates, level, weights)


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """Both runs at the reference's thresholds, and how the rates changed.

    Attributes
    ----------
    reference, candidate : Rates
    fmr, tar, fnmr, fmr_ratio : Change or None
        None where there is nothing to make an interval of.
    """

    reference: Rates
    candidate: Rates
    fmr: Change | None = None
    tar: Change | None = None
    fnmr: Change | None = None
    fmr_ratio: Change | None = None


class Paired:
    """The evidence of a reference and of a candidate, under the same draws.

    Parameters
    ----------
    reference, candidate : Evidence
    draws : Draws, optional
        Of the reference's evidence, where they are at hand; made once they are needed otherwise.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        The trials differ.
    """

    def __init__(
        self, reference: Evidence, candidate: Evidence, draws: Draws | None = None
    ) -> None:
        difference = reference.unpaired(candidate)
        if difference:
            raise CannotJudgeError(
                f"The two runs cannot be paired: {difference}. Run both on the same data."
            )
        self.reference, self.candidate = reference, candidate
        self._shared = draws

    @cached_property
    def draws(self) -> Draws | None:
        """The draws that both are under; None where there are too few units."""
        return self._shared or self.reference.draw()

    def change(self, before: Metric, after: Metric) -> Change | None:
        """Return how a metric changed; None where the evidence does not tell."""
        if self.draws is not None:
            old = self.reference.replicates(before, self.draws)
            new = self.candidate.replicates(after, self.draws)
            if old is not None and new is not None:
                return Change(f"{self.draws.method}, paired", new - old)
        # The exact test takes each decision as independent of the others.
        if self.reference.unit != "pair" or before.share is None or before.share[0] != "correct":
            return None
        decided = self.decisions(before, after)
        return None if decided is None else _exact(decided[0].right, decided[1].right)

    def decisions(
        self, before: Metric, after: Metric, *, carried: bool = False
    ) -> tuple[Decisions, Decisions] | None:
        """Return both runs' decisions, each at its own thresholds or both at the reference's."""
        old = self.reference.decisions(before, before)
        new = self.candidate.decisions(after, before if carried else after)
        return None if old is None or new is None else (old, new)

    def carried(self, before: Metric, after: Metric) -> Carried | None:
        """Return the rates of both at the reference's thresholds; None where it has none."""
        old = self.reference.rates(before, self.draws)
        new = self.candidate.rates(before, self.draws)
        if old is None or new is None:
            return None
        if self.reference.unit == "pair":
            decided = self.decisions(before, after, carried=True)
            return Carried(old, new) if decided is None else _carried_exactly(old, new, *decided)
        return _carried_under(old, new, self.draws)


def _exact(old: Bools, new: Bools) -> Change:
    return Change("Tango, pair-level", outcomes=(old, new))


def _carried_exactly(old: Rates, new: Rates, before: Decisions, after: Decisions) -> Carried:
    one, two, genuine = before.accepted, after.accepted, before.genuine
    return Carried(
        old,
        new,
        fmr=_exact(one[~genuine], two[~genuine]),
        tar=_exact(one[genuine], two[genuine]),
        fnmr=_exact(~one[genuine], ~two[genuine]),
    )


def _carried_under(old: Rates, new: Rates, draws: Draws | None) -> Carried:
    rates = old.fmr_draws, old.tar_draws, new.fmr_draws, new.tar_draws
    if draws is None or any(rate is None for rate in rates):
        return Carried(old, new)
    fmr, tar, new_fmr, new_tar = map(np.asarray, rates)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(fmr > 0, new_fmr / fmr, np.nan)
    method = f"{draws.method}, paired"
    return Carried(
        old,
        new,
        fmr=Change(method, new_fmr - fmr),
        tar=Change(method, new_tar - tar),
        fnmr=Change(method, tar - new_tar),
        fmr_ratio=Change(method, ratios),
    )
