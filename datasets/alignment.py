"""Alignment of a face by five points, as recognition models are trained and evaluated on."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

ARCFACE_SIZE: Final = 112
"""Side, in pixels, of the image that `ARCFACE_POINTS` lie in."""

ARCFACE_POINTS: Final[NDArray[np.float64]] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Left eye, right eye, nose, left and right mouth corner (x, y) in a 112x112 image."""
ARCFACE_POINTS.flags.writeable = False

_FLAT = 1e-12
"""A spread this small, beside what it is compared with, is rounding noise."""


def similarity(points: ArrayLike, template: ArrayLike) -> NDArray[np.float64]:
    """Least-squares similarity transform of points onto a template (no reflection).

    Umeyama's transform [1]_ in two dimensions, where it has a closed form: with centred points
    as complex numbers z and w, the best rotation and scale is sum(conj(z) w) / sum(conj(z) z).

    Parameters
    ----------
    points : array_like of shape (..., k, 2)
        Points (x, y) in the image, in pixels; any number of faces at once.
    template : array_like of shape (k, 2)
        Where they shall lie.

    Returns
    -------
    ndarray of shape (..., 2, 3), float64
        Matrices that take (x, y, 1) to the template's place.

    Raises
    ------
    ValueError
        Points that are not finite, coincide, or have no best rotation.

    References
    ----------
    .. [1] S. Umeyama, "Least-squares estimation of transformation parameters between two point
       patterns", IEEE TPAMI 13(4), 1991.

    Examples
    --------
    >>> similarity([[0, 0], [1, 0]], [[5, 5], [5, 7]])
    array([[ 0., -2.,  5.],
           [ 2.,  0.,  5.]])
    """
    source = np.asarray(points, np.float64)
    target = np.asarray(template, np.float64)
    if source.ndim < 2 or source.shape[-2:] != target.shape or target.shape[1:] != (2,):
        raise ValueError(
            f"The points have shape {source.shape} and the template {target.shape}; "
            "both must end in (k, 2) with the same k."
        )
    if not np.isfinite(source).all():
        raise ValueError("The points are not finite.")
    source_mean = source.mean(axis=-2)
    target_mean = target.mean(axis=-2)
    z = source - source_mean[..., None, :]
    w = target - target_mean
    spread = (z * z).sum(axis=(-2, -1))
    magnitude = (source * source).sum(axis=(-2, -1))
    if (spread <= _FLAT * magnitude).any():
        raise ValueError("The points coincide.")
    a = (z * w).sum(axis=(-2, -1)) / spread
    b = (z[..., 0] * w[..., 1] - z[..., 1] * w[..., 0]).sum(axis=-1) / spread
    if ((a * a + b * b) * spread <= _FLAT * (w * w).sum()).any():
        raise ValueError("No rotation brings the points near the template.")
    rotation = np.stack([np.stack([a, -b], axis=-1), np.stack([b, a], axis=-1)], axis=-2)
    shift = target_mean - (rotation @ source_mean[..., None])[..., 0]
    return np.concatenate([rotation, shift[..., None]], axis=-1)


def align(
    image: NDArray[np.uint8], points: ArrayLike, size: int = ARCFACE_SIZE
) -> NDArray[np.uint8]:
    """Warp a face so that its five points lie on the template; bilinear, black outside.

    Parameters
    ----------
    image : ndarray of shape (height, width, channels), uint8
        The image; its channels keep their order.
    points : array_like of shape (5, 2)
        Left eye, right eye, nose, left and right mouth corner, in the image's pixels.
    size : int
        Side of the result; the template grows with it.

    Returns
    -------
    ndarray of shape (size, size, channels), uint8

    Raises
    ------
    ValueError
        The points define no transform, see `similarity`; or the image is larger than OpenCV
        warps (32,766 pixels a side).
    """
    matrix = similarity(points, ARCFACE_POINTS * (size / ARCFACE_SIZE))
    try:
        warped: NDArray[np.uint8] = cv2.warpAffine(
            image,
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
    except cv2.error as error:
        height, width = image.shape[:2]
        raise ValueError(
            f"OpenCV does not warp an image of {width}x{height} pixels ({error.err})"
        ) from error
    return warped
