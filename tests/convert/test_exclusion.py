"""The search for layers to exclude: what hurts is taken back, and the goal is still reached."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evalkit.convert.agreement import Agreement
from evalkit.convert.exclusion import Trial, outcome, search
from evalkit.core.progress import Progress

ALL = 0.9999


def searched(
    layers: str, score: Callable[[frozenset[str]], float], goal: float = 0.992
) -> list[Trial]:
    def measure(excluded: tuple[str, ...]) -> Trial:
        value = score(frozenset(excluded))
        return Trial(excluded, Agreement(value, value, value, 1), None, 1, 1.0)

    def figure(trial: Trial) -> float:
        return trial.agreement.mean

    return list(search(tuple(layers), measure(()), measure, figure, goal, Progress(quiet=True)))


def steps(trials: list[Trial]) -> list[str]:
    return ["".join(t.excluded) + ("-" if t.taken_back else "") for t in trials]


def test_a_layer_that_hurts_is_taken_back() -> None:
    scores = {"": 0.98536, "a": 0.96196, "b": 0.98900, "bc": 0.99534}
    trials = searched("abc", lambda out: scores["".join(sorted(out))])
    assert steps(trials) == ["", "a-", "b", "bc"]
    assert outcome(trials) is trials[-1]


def test_a_layer_that_changes_nothing_stays_out() -> None:
    trials = searched("ab", lambda out: 0.9 if len(out) < 2 else ALL)
    assert steps(trials) == ["", "a", "ab"]


def test_a_layer_taken_back_gets_another_chance() -> None:
    worth = {"": 0.5, "a": 0.4, "b": 0.7, "ab": ALL}
    trials = searched("ab", lambda out: worth["".join(sorted(out))])
    assert steps(trials) == ["", "a-", "b", "ba"]


def test_layers_that_help_together_alone_are_excluded_together() -> None:
    scores = {"": 0.98536, "a": 0.96196, "b": 0.98500, "ab": 0.99534}
    trials = searched("abc", lambda out: scores["".join(sorted(out))])
    assert steps(trials) == ["", "a-", "b-", "ab"]
    trials = searched("abc", lambda out: ALL if len(out) == 3 else 0.5 - 0.1 * len(out))
    assert steps(trials) == ["", "a-", "b-", "ab-", "c-", "abc"]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({0: 0.5, 1: 0.6, 2: 0.7}, ["", "a", "ab"]),
        ({0: 0.5, 1: 0.4, 2: 0.3}, ["", "a-", "b-", "ab-"]),
        ({0: 0.5, 1: 0.6, 2: 0.3}, ["", "a", "ab-"]),
    ],
)
def test_where_nothing_helps_every_layer_was_out(
    scores: dict[int, float], expected: list[str]
) -> None:
    trials = searched("ab", lambda out: scores[len(out)])
    assert steps(trials) == expected
    assert set(trials[-1].excluded) == {"a", "b"}


def test_a_start_that_is_good_is_all() -> None:
    assert steps(searched("ab", lambda _: ALL)) == [""]


def test_the_table_says_what_came_along() -> None:
    from evalkit.report.convert import _trade

    scores = {"": 0.98536, "a": 0.96196, "b": 0.98500, "ab": 0.99534}
    shown = _trade(tuple(searched("abc", lambda out: scores["".join(sorted(out))]))).splitlines()
    lasts = ["-", "a (taken back)", "b (taken back)", "b with 1 taken back before"]
    assert all(line.endswith(last) for line, last in zip(shown[2:], lasts, strict=True))
