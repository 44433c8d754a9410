"""Where a turned head's points fall in the picture, and smooth curves through a few of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sample_painter.traits import Conditions, Identity

Floats = NDArray[np.float64]
SKULL_DEPTH = 0.74
_PERSPECTIVE = 0.10


@dataclass(frozen=True, slots=True)
class Pose:
    """A head's place in a picture.

    Attributes
    ----------
    turn : ndarray of shape (3, 3)
        Rotation by yaw and pitch, applied to (x, y, z) head coordinates (z towards the camera).
    place : ndarray of shape (2, 3)
        Affine map from turned head units to pixels: roll, scale and translation.
    width : float
        Half the width of the head's outline as turned, in head units.
    skull : ndarray of shape (2,)
        Half width and half height of the skull on whose surface the features lie.
    """

    turn: Floats
    place: Floats
    width: float
    skull: Floats

    @property
    def scale(self) -> float:
        """Pixels a head unit."""
        return float(np.hypot(self.place[0, 0], self.place[1, 0]))

    def turned(self, points: Floats) -> Floats:
        """Turn (n, 3) head points and drop their depth: (n, 2) in head units, before roll."""
        rotated = points @ self.turn.T
        return rotated[:, :2] * (1 + _PERSPECTIVE * rotated[:, 2:])

    def pixels(self, points: Floats) -> Floats:
        """Pixels of points given in head units, (n, 2) already turned or (n, 3) on the head."""
        flat = self.turned(points) if points.shape[1] == 3 else points
        return flat @ self.place[:, :2].T + self.place[:, 2]

    def surface(self, flat: Floats, lift: float | Floats = 0.0) -> Floats:
        """Lift (n, 2) points of the frontal view onto the face: (n, 3)."""
        inside = 1 - np.square(flat / self.skull).sum(axis=1)
        depth = SKULL_DEPTH * np.sqrt(np.maximum(inside, 0.02)) + lift
        return np.column_stack([flat, depth])


def pose_of(who: Identity, how: Conditions, centre: tuple[float, float], scale: float) -> Pose:
    """Place a head of `scale` pixels a head unit with its middle at `centre` (x, y) in pixels."""
    (sy, cy), (sp, cp) = ((np.sin(a), np.cos(a)) for a in (how.yaw, how.pitch))
    sr, cr = np.sin(how.roll), np.cos(how.roll)
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    place = np.array([[cr * scale, -sr * scale, centre[0]], [sr * scale, cr * scale, centre[1]]])
    width = who.head_width * float(np.hypot(cy, SKULL_DEPTH / who.head_width * sy))
    return Pose(pitch @ yaw, place, width, np.array([who.head_width * 1.04, 1.12]))


@lru_cache(maxsize=64)
def _catmull_rom(knots: int, steps: int, closed: bool) -> Floats:
    """Matrix from knots to the points of the Catmull-Rom spline through them."""
    pieces = knots if closed else knots - 1
    t = np.arange(steps) / steps
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    )
    matrix = np.zeros((pieces * steps + (not closed), knots))
    for piece in range(pieces):
        rows = slice(piece * steps, (piece + 1) * steps)
        for offset, column in enumerate(weights):
            knot = piece + offset - 1
            knot = knot % knots if closed else min(max(knot, 0), knots - 1)
            matrix[rows, knot] += column
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix


def curve(points: Floats, *, closed: bool = True, steps: int = 6) -> Floats:
    """Smooth curve through (n, 2) points."""
    return _catmull_rom(len(points), steps, closed) @ points


def mirrored(half: Floats) -> Floats:
    """Close an outline from its right half, given from top to bottom.

    End points on the middle line are not repeated.
    """
    left = half[::-1] * np.array([-1.0] + [1.0] * (half.shape[1] - 1))
    return np.concatenate([half, left[half[::-1, 0] != 0]])
