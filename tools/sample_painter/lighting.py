"""Shading of a drawn head: a height field lit by one lamp, and the soft colours of skin."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sample_painter.geometry import SKULL_DEPTH, Floats, Pose
from sample_painter.traits import Conditions, Identity

_GRID = 96
_REACH = 1.9  # the grid spans [-_REACH, _REACH] head units around the head's middle
_AXIS = np.linspace(-_REACH, _REACH, _GRID)

Blob = tuple[float, float, float, float, float]
"""A Gaussian: x, y, standard deviations along x and y, amplitude."""


def _bumps(who: Identity, how: Conditions) -> tuple[Floats, Floats]:
    """Places (n, 3) on the head and (sigma x, sigma y, height) (n, 3) of the face's relief."""
    e, y = who.eye_distance, who.eye_height
    tip = y + who.nose_length
    mouth = y + who.mouth_drop
    depth, cheek = who.nose_depth, 0.05 + 0.06 * who.cheekbone + 0.04 * max(how.smile, 0.0)
    rows = [
        (
            0.0,
            y + 0.45 * who.nose_length,
            0.06,
            who.nose_bridge,
            0.42 * who.nose_length,
            0.7 * depth,
        ),
        (0.0, tip, 0.12, 0.62 * who.nose_width, 0.075, 0.75 * depth),
        (-0.7 * who.nose_width, tip + 0.02, 0.03, 0.045, 0.05, 0.045),
        (0.7 * who.nose_width, tip + 0.02, 0.03, 0.045, 0.05, 0.045),
        (-e, y, 0.0, 0.12, 0.07, -0.07 * who.eye_depth),
        (e, y, 0.0, 0.12, 0.07, -0.07 * who.eye_depth),
        (-e, y - who.brow_gap, 0.0, 0.16, 0.05, 0.035 * who.eye_depth),
        (e, y - who.brow_gap, 0.0, 0.16, 0.05, 0.035 * who.eye_depth),
        (-0.36, y + 0.30, 0.0, 0.15, 0.13, cheek),
        (0.36, y + 0.30, 0.0, 0.15, 0.13, cheek),
        (0.0, mouth, 0.0, 0.17, 0.08, 0.07),
        (0.0, mouth + 0.13, 0.0, 0.16, 0.03, -0.045),
        (0.0, who.chin - 0.10, 0.0, 0.16, 0.09, 0.09),
    ]
    table = np.array(rows)
    return table[:, :3], table[:, 3:]


def _relief(pose: Pose, places: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Slopes of the relief along x and y on the grid."""
    at = pose.turned(pose.surface(places[:, :2], places[:, 2]))
    right = (_AXIS - at[:, :1]) / sizes[:, :1]
    down = (_AXIS - at[:, 1:]) / sizes[:, 1:2]
    across, along = np.exp(-0.5 * right**2), np.exp(-0.5 * down**2) * sizes[:, 2:]
    return along.T @ (-right / sizes[:, :1] * across), (-down / sizes[:, 1:2] * along).T @ across


def _blobs(pose: Pose, blobs: list[Blob]) -> Floats:
    """Sum of Gaussians on the grid, placed on the head."""
    table = np.array(blobs)
    at = pose.turned(pose.surface(table[:, :2]))
    across = np.exp(-0.5 * np.square((_AXIS - at[:, :1]) / table[:, 2:3]))
    along = np.exp(-0.5 * np.square((_AXIS - at[:, 1:]) / table[:, 3:4])) * table[:, 4:]
    total: Floats = along.T @ across
    return total


def _lamp_light(who: Identity, how: Conditions, pose: Pose) -> tuple[Floats, Floats]:
    """Diffuse and specular light on the grid."""
    slope_x, slope_y = _relief(pose, *_bumps(who, how))
    u, v = _AXIS[None, :] / pose.width, _AXIS[:, None] / 1.12
    radius = np.sqrt(u**2 + v**2)
    inner = np.minimum(1.0, 0.93 / np.maximum(radius, 1e-6))
    depth = SKULL_DEPTH / np.sqrt(1 - np.square(radius * inner))
    normal_x = depth * u * inner / pose.width - slope_x
    normal_y = depth * v * inner / 1.12 - slope_y
    length = np.sqrt(normal_x**2 + normal_y**2 + 1)
    x, y, z = how.light
    facing = np.maximum((normal_x * x + normal_y * y + z) / length, 0.0)
    half = np.array([x, y, z + 1.0]) / np.linalg.norm([x, y, z + 1.0])
    glint = np.maximum((normal_x * half[0] + normal_y * half[1] + half[2]) / length, 0.0)
    return facing, glint**28


def _skin_tones(who: Identity, how: Conditions, pose: Pose) -> Floats:
    """Factor of each channel on the grid: (grid, grid, 3)."""
    e, y = who.eye_distance, who.eye_height
    mouth = y + who.mouth_drop
    blush = 0.05 + 0.10 * how.make_up
    red: list[Blob] = [
        (-0.36, y + 0.3, 0.15, 0.12, blush),
        (0.36, y + 0.3, 0.15, 0.12, blush),
        (0.0, y + who.nose_length, 0.10, 0.08, 0.06),
    ]
    bags = -0.06 - 0.14 * who.age
    dark: list[Blob] = [
        (-e, y + 0.085, 0.10, 0.035, bags),
        (e, y + 0.085, 0.10, 0.035, bags),
        (-e, y - 0.06, 0.12, 0.05, -0.12 * who.eye_depth - 0.08 * how.make_up),
        (e, y - 0.06, 0.12, 0.05, -0.12 * who.eye_depth - 0.08 * how.make_up),
        (0.0, y + who.nose_length + 0.12, 0.10, 0.04, -0.10),
    ]
    stubble = -0.30 * who.stubble
    growth: list[Blob] = [
        (0.0, mouth + 0.22, 0.34, 0.15, stubble),
        (-0.40, mouth, 0.13, 0.22, stubble),
        (0.40, mouth, 0.13, 0.22, stubble),
        (0.0, mouth - 0.13, 0.15, 0.05, stubble),
    ]
    shade = 1 + _blobs(pose, dark)
    flush, shadow = _blobs(pose, red), _blobs(pose, growth)
    return np.stack(
        [shade + 0.5 * flush + shadow, shade - flush + 0.9 * shadow, shade - flush + 0.8 * shadow],
        axis=2,
    )


def light_map(
    who: Identity, how: Conditions, pose: Pose, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Factor by which light and skin tones change each pixel's albedo.

    Returns
    -------
    ndarray of shape (height, width, 3)
    """
    facing, glint = _lamp_light(who, how, pose)
    level = how.gain * (how.ambient + 1.05 * (1 - how.ambient) * facing + 0.13 * glint)
    factor = _skin_tones(who, how, pose) * level[:, :, None] * np.array(how.tint)
    step = _AXIS[1] - _AXIS[0]
    from_grid = pose.place @ np.array([[step, 0, -_REACH], [0, step, -_REACH], [0, 0, 1.0]])
    height, width = shape
    lit: NDArray[np.float32] = cv2.warpAffine(
        factor.astype(np.float32),
        from_grid,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return lit
