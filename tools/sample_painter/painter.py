"""Draws smooth parts, given in head units, on a canvas of premultiplied colours."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sample_painter.geometry import Floats, Pose, curve
from sample_painter.traits import Colour, Conditions, Identity

Image = NDArray[np.uint8]
_SHIFT = 4  # bits of sub-pixel precision that OpenCV's drawing takes


class Painter:
    """Draws a person's parts, each given in head units, on one canvas."""

    def __init__(self, who: Identity, how: Conditions, pose: Pose, shape: tuple[int, int]) -> None:
        self.who, self.how, self.pose = who, how, pose
        self.canvas = np.zeros((*shape, 4), np.uint8)
        self.skin = scaled(who.skin, 1 + how.tan)

    def fill(self, outline: Floats, colour: Colour, *, smooth: bool = True) -> None:
        """Fill an outline, by default the smooth curve through its points."""
        pixels = self.pose.pixels(outline)
        shape = curve(pixels) if smooth else pixels
        cv2.fillPoly(self.canvas, [_fixed(shape)], (*colour, 255.0), cv2.LINE_AA, _SHIFT)

    def line(self, points: Floats, colour: Colour, width: float, *, closed: bool = False) -> None:
        """Draw a line of `width` head units; a line thinner than a pixel fades instead."""
        pixels = curve(self.pose.pixels(points), closed=closed)
        thickness = width * self.pose.scale
        if thickness < 1.2:
            x, y = np.clip(pixels.mean(axis=0), 0, np.array(self.canvas.shape[1::-1]) - 1)
            under = self.canvas[int(y), int(x), :3]
            colour = mixed(triple(under), colour, min(1.0, thickness))
        cv2.polylines(
            self.canvas,
            [_fixed(pixels)],
            closed,
            (*colour, 255.0),
            max(1, round(thickness)),
            cv2.LINE_AA,
            _SHIFT,
        )

    def oval(self, centre: Floats, radii: tuple[float, float], colour: Colour) -> None:
        """Fill an ellipse that faces the camera around the (3,) point `centre`."""
        middle = self.pose.turned(centre[None])
        self.fill(middle + _CIRCLE * radii, colour, smooth=False)

    def face(self, flat: Floats, lift: float | Floats = 0.0) -> Floats:
        """Points (n, 2) of the frontal view, on the face's surface."""
        return self.pose.surface(flat, lift)


_ANGLES = np.arange(20) * (2 * np.pi / 20)
_CIRCLE = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])


def _fixed(points: Floats) -> NDArray[np.int32]:
    fixed: NDArray[np.int32] = np.round(np.clip(points, -4000, 4000) * (1 << _SHIFT)).astype(
        np.int32
    )
    return fixed


def triple(values: NDArray[np.uint8]) -> Colour:
    """Colour of a pixel."""
    red, green, blue = values.tolist()
    return red, green, blue


def scaled(colour: Colour, factor: float) -> Colour:
    """Lighter or darker colour."""
    red, green, blue = (min(255.0, c * factor) for c in colour)
    return red, green, blue


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Colour that takes `share` of its way from the first to the second."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def sides(points: Floats) -> tuple[Floats, Floats]:
    """Points of the right half of the face, and their mirror images."""
    return points, points * np.array([-1.0, 1.0])
