"""Outputs under another image's name are found, and nothing else is taken for that."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.backends.outputs.checks import Halves, disagreement

DIM = 64


def faces(seed: int, count: int, noise: float, shared: float = 0.0) -> list[Halves]:
    """Draw faces whose two halves differ by noise; a part may be common to all of them."""
    rng = np.random.default_rng(seed)
    common = shared * rng.normal(0, 1, DIM)
    pairs = []
    for number in range(count):
        face = rng.normal(0, 1, DIM)
        plain, flipped = (
            (common + face + noise * rng.normal(0, 1, DIM)).astype(np.float32) for _ in range(2)
        )
        pairs.append(Halves(str(number), plain, flipped))
    return pairs


@given(st.integers(0, 10**6), st.integers(3, 40), st.data())
@settings(max_examples=50)
def test_an_exchange_of_two_is_found(seed: int, count: int, data: st.DataObject) -> None:
    pairs = faces(seed, count, 0.2)
    one, other = sorted(data.draw(st.permutations(range(count)))[:2])
    pairs[one], pairs[other] = (
        Halves(pairs[one].name, pairs[other].plain, pairs[one].flipped),
        Halves(pairs[other].name, pairs[one].plain, pairs[other].flipped),
    )
    assert disagreement(pairs).exchanged == ((str(one), str(other)),)


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([0.1, 0.5, 2.0]))
@settings(max_examples=50)
def test_right_outputs_are_left_alone(seed: int, count: int, noise: float) -> None:
    """Also those of a model that is wrecked, whose halves hardly agree."""
    assert disagreement(faces(seed, count, noise)).exchanged == ()


def test_a_part_that_all_share_hides_nothing() -> None:
    pairs = faces(1, 20, 0.2, shared=3.0)
    pairs[4], pairs[9] = (
        Halves("4", pairs[9].plain, pairs[4].flipped),
        Halves("9", pairs[4].plain, pairs[9].flipped),
    )
    assert disagreement(pairs).exchanged == (("4", "9"),)


def test_two_images_of_one_person_are_no_exchange() -> None:
    pairs = faces(2, 20, 0.1)
    pairs[3] = Halves("3", pairs[8].plain, pairs[8].flipped)
    assert disagreement(pairs).exchanged == ()


def test_a_wrecked_model_is_doubtful_as_a_whole() -> None:
    result = disagreement(faces(3, 100, 3.0))
    assert result.images == 100
    assert result.doubtful > 50


def test_what_is_not_finite_is_no_exchange() -> None:
    pairs = faces(4, 10, 0.1)
    pairs[2] = Halves("2", np.full(DIM, np.nan, np.float32), pairs[2].flipped)
    assert disagreement(pairs).exchanged == ()


def test_what_is_not_finite_hides_no_exchange() -> None:
    pairs = faces(4, 20, 0.1)
    pairs[2] = Halves("2", np.full(DIM, np.nan, np.float32), pairs[2].flipped)
    pairs[5], pairs[7] = (
        Halves("5", pairs[7].plain, pairs[5].flipped),
        Halves("7", pairs[5].plain, pairs[7].flipped),
    )
    assert disagreement(pairs).exchanged == (("5", "7"),)
    assert disagreement(pairs).doubtful == 2


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_compare(count: int) -> None:
    def one_by_one() -> Iterator[Halves]:
        yield from faces(5, count, 0.1)

    assert disagreement(one_by_one()).images == count
