"""Similarity transforms and alignment against their textbook forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evalkit.datasets.alignment import ARCFACE_POINTS, align, similarity


def umeyama_reference(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Equations 40 to 43 of Umeyama 1991, by singular value decomposition."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    left, singular, right = np.linalg.svd(covariance)
    sign = np.ones(2)
    if np.linalg.det(left) * np.linalg.det(right) < 0:
        sign[1] = -1
    rotation = left @ np.diag(sign) @ right
    scale = (singular * sign).sum() / ((source - source_mean) ** 2).sum(axis=1).mean()
    shift = target_mean - scale * rotation @ source_mean
    return np.column_stack([scale * rotation, shift])


def warp_reference(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Bilinear sampling at the inverse of each pixel, black outside, in float64."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    result = np.zeros((size, size, image.shape[2]))
    for y in range(size):
        for x in range(size):
            u, v = inverse @ (x, y, 1.0) + 1
            left, top = int(np.floor(u)), int(np.floor(v))
            if 0 <= left < padded.shape[1] - 1 and 0 <= top < padded.shape[0] - 1:
                fu, fv = u - left, v - top
                upper = (1 - fu) * padded[top, left] + fu * padded[top, left + 1]
                lower = (1 - fu) * padded[top + 1, left] + fu * padded[top + 1, left + 1]
                result[y, x] = (1 - fv) * upper + fv * lower
    return result


def moved(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + shift


@given(
    arrays(np.float64, (5, 2), elements=st.floats(-20, 20)),
    st.floats(-3.1, 3.1),
    st.floats(0.1, 10),
    st.booleans(),
)
def test_similarity_is_umeyamas(
    noise: np.ndarray, angle: float, scale: float, mirrored: bool
) -> None:
    shape = ARCFACE_POINTS * ([-1, 1] if mirrored else [1, 1])
    source = moved(shape, angle, scale, (30, -7)) + scale * noise
    expected = umeyama_reference(source, ARCFACE_POINTS)
    np.testing.assert_allclose(similarity(source, ARCFACE_POINTS), expected, atol=1e-7, rtol=1e-9)


@given(st.floats(-3.1, 3.1), st.floats(0.05, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_similarity_undoes_a_movement(angle: float, scale: float, x: float, y: float) -> None:
    matrix = similarity(moved(ARCFACE_POINTS, angle, scale, (x, y)), ARCFACE_POINTS)
    back = moved(ARCFACE_POINTS, angle, scale, (x, y)) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(back, ARCFACE_POINTS, atol=1e-7)


def test_similarity_never_mirrors() -> None:
    matrix = similarity(ARCFACE_POINTS * [-1, 1], ARCFACE_POINTS)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_similarity_of_points_on_a_line() -> None:
    line = np.array([[0.0, 0], [1, 1], [2, 2], [3, 3], [4, 4]])
    np.testing.assert_allclose(
        similarity(line, ARCFACE_POINTS), umeyama_reference(line, ARCFACE_POINTS), atol=1e-9
    )


def test_batch_equals_one_by_one() -> None:
    points = ARCFACE_POINTS + np.random.default_rng(1).normal(0, 9, (4, 3, 5, 2))
    together = similarity(points, ARCFACE_POINTS)
    assert together.shape == (4, 3, 2, 3)
    for index in np.ndindex(4, 3):
        np.testing.assert_allclose(
            together[index], similarity(points[index], ARCFACE_POINTS), rtol=1e-12
        )


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((5, 2), 40.0), "coincide"),
        (np.full((5, 2), 1e6) + 1e-3 * np.eye(5, 2), "coincide"),
        (np.where(np.eye(5, 2), np.nan, ARCFACE_POINTS), "not finite"),
        (np.where(np.eye(5, 2), np.inf, ARCFACE_POINTS), "not finite"),
        (np.ones((4, 2)), "same k"),
        (np.ones(10), "same k"),
    ],
)
def test_degenerate_points_are_refused(points: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity(points, ARCFACE_POINTS)


def test_points_without_a_best_rotation_are_refused() -> None:
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    with pytest.raises(ValueError, match="No rotation"):
        similarity(square * [1, -1], square)


def test_one_degenerate_face_spoils_its_batch() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.stack([ARCFACE_POINTS, np.zeros((5, 2))]), ARCFACE_POINTS)


def test_align_at_the_template_changes_nothing() -> None:
    image = np.random.default_rng(2).integers(0, 256, (112, 112, 3), np.uint8)
    np.testing.assert_array_equal(align(image, ARCFACE_POINTS), image)


def test_align_moves_whole_pixels_and_leaves_black_outside() -> None:
    image = np.random.default_rng(3).integers(1, 256, (112, 112, 3), np.uint8)
    aligned = align(image, ARCFACE_POINTS - [10, 0])
    np.testing.assert_array_equal(aligned[:, 10:], image[:, :-10])
    assert not aligned[:, :10].any()


@pytest.mark.parametrize("size", [112, 56])
def test_align_is_bilinear(size: int) -> None:
    rows, columns = np.mgrid[:90, :130]
    waves = [120 + 100 * np.sin(rows / a + columns / b) for a, b in ((9, 7), (5, 11), (13, 6))]
    image = np.stack(waves, axis=-1).astype(np.uint8)
    points = moved(ARCFACE_POINTS, 0.4, 0.7, (45, -10))
    matrix = umeyama_reference(points, ARCFACE_POINTS * size / 112)
    aligned = align(image, points, size)
    assert aligned.shape == (size, size, 3)
    assert aligned.dtype == np.uint8
    error = np.abs(aligned - warp_reference(image, matrix, size))
    # OpenCV places samples to 1/32 pixel; these waves rise by at most 31 a pixel, edges by 220.
    assert np.median(error) < 0.6
    assert np.quantile(error, 0.99) < 3
    assert error.max() < 220 / 16
