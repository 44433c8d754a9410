"""Cosines to fp32 against a slow reference; layers chosen by name and by harm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evalkit.convert.agreement import Agreement, compare
from evalkit.convert.exclusion import Trial, matched, rank, search
from evalkit.core.errors import InputError
from evalkit.core.progress import Progress

ROWS = hnp.arrays(np.float32, (4, 3), elements=st.floats(-9, 9, width=32))


def slow(reference: list[np.ndarray], candidate: list[np.ndarray]) -> list[float]:
    """One image at a time, in Python's floats."""
    weights = []
    for rows in reference:
        values = [float(v) ** 2 for v in rows.ravel()]
        weights.append(len(values) / sum(values) if any(values) else 1.0)
    cosines = []
    for image in range(len(reference[0])):
        cross = before = after = 0.0
        for weight, a, b in zip(weights, reference, candidate, strict=True):
            for x, y in zip(a[image].tolist(), b[image].tolist(), strict=True):
                cross += weight * x * y
                before += weight * x * x
                after += weight * y * y
        if before == 0 and after == 0:
            cosines.append(1.0)
        elif before == 0 or after == 0:
            cosines.append(0.0)
        else:
            cosines.append(cross / math.sqrt(before * after))
    return cosines


@settings(max_examples=30)
@given(ROWS, ROWS, ROWS, ROWS)
def test_it_equals_the_slow_reference(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray
) -> None:
    a, b, c, d = (np.where(np.abs(x) < 1e-3, 0, x).astype(np.float32) for x in (a, b, c, d))
    found = compare([a, 1000 * b], [c, 1000 * d])
    expected = slow([a, 1000 * b], [c, 1000 * d])
    assert found.mean == pytest.approx(np.mean(expected), abs=1e-9)
    assert found.minimum == pytest.approx(min(expected), abs=1e-9)
    assert found.p1 == pytest.approx(np.percentile(expected, 1), abs=1e-9)


def test_a_row_that_is_not_a_number_counts_as_nothing() -> None:
    good = np.ones((4, 2), np.float32)
    bad = good.copy()
    bad[0, 0] = np.nan
    assert compare([good], [bad]).minimum == 0
    assert compare([good], [bad]).mean == 0.75
    with pytest.raises(InputError, match="fp32 model itself gives NaN"):
        compare([bad], [good])


def test_other_shapes_are_another_network() -> None:
    with pytest.raises(InputError, match="not the same network"):
        compare([np.ones((2, 3))], [np.ones((2, 4))])


def test_names_and_globs_in_the_networks_order() -> None:
    layers = ("/a/Conv", "/b[0]/Conv", "/b[1]/Conv", "fc")
    assert matched(["fc", "/b*"], layers) == ("/b[0]/Conv", "/b[1]/Conv", "fc")
    assert matched(["/b[0]/Conv"], layers) == ("/b[0]/Conv",)
    assert matched([], layers) == ()
    with pytest.raises(InputError, match=r"--exclude /c/Conv: no layer.*/a/Conv"):
        matched(["/c/Conv"], layers)


HARM = {"a": 0.01, "b": 0.2, "c": 0.05}


def trial(excluded: tuple[str, ...]) -> Trial:
    left = sum(harm for layer, harm in HARM.items() if layer not in excluded)
    return Trial(excluded, Agreement(1 - left, 1 - left, 1 - left, 9), None, 1, 1.0)


def test_the_worst_layers_go_first_until_it_is_good_enough() -> None:
    quiet = Progress(quiet=True)
    ranked = rank(tuple(HARM), trial, quiet)
    assert [layer for layer, _ in ranked] == ["b", "c", "a"]
    assert [loss for _, loss in ranked] == pytest.approx([0.2, 0.05, 0.01])
    names = [layer for layer, _ in ranked]

    def tried(goal: float) -> list[tuple[str, ...]]:
        found = search(names, trial(()), trial, lambda t: t.agreement.mean, goal, quiet)
        return [one.excluded for one in found]

    assert tried(0.7) == [()]
    assert tried(0.9) == [(), ("b",)]
    assert tried(0.98) == [(), ("b",), ("b", "c")]
    assert tried(1.1) == [(), ("b",), ("b", "c"), ("b", "c", "a")]
