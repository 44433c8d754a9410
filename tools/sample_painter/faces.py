"""A parametric renderer of faces: albedo drawn part by part with OpenCV, then lit.

A head is a small set of three-dimensional points (`geometry`), so that features move as they
should when it turns. Parts are smooth outlines through those points, drawn from back to front on
a premultiplied RGBA canvas (`painter`); `lighting` shades the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sample_painter.features import (
    draw_beard,
    draw_covers,
    draw_eyes,
    draw_glasses,
    draw_marks,
    draw_mouth,
    draw_nose,
    mouth_corners,
)
from sample_painter.geometry import Floats, Pose, mirrored, pose_of
from sample_painter.lighting import light_map
from sample_painter.painter import Image, Painter, scaled, triple
from sample_painter.traits import Conditions, Identity


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawn person.

    Attributes
    ----------
    rgba : ndarray of shape (height, width, 4), uint8
        Premultiplied colours and coverage.
    points : ndarray of shape (5, 2)
        Left eye, right eye, nose tip, left and right mouth corner (left as seen in the image),
        in pixels (x, y).
    box : ndarray of shape (4,)
        x, y, width, height of the face from hairline to chin, in pixels.
    """

    rgba: Image
    points: NDArray[np.float64]
    box: NDArray[np.float64]


def _outline(who: Identity, pose: Pose, how: Conditions, grow: float = 1.0) -> Floats:
    """Contour of the head, (n, 3), corrected for the width of a turned skull."""
    w, chin = who.head_width, who.chin + 0.05 * max(0.0, how.mouth_open)
    half = np.array(
        [
            (0.0, -1.0, 0.0),
            (0.60 * w, -0.86, 0.0),
            (0.95 * w, -0.45, 0.0),
            (w, -0.02, 0.0),
            (who.cheek * w, 0.28, 0.06),
            (who.jaw * w, 0.60 * chin, 0.14),
            (0.5 * (who.jaw * w + who.chin_width), 0.82 * chin, 0.24),
            (who.chin_width, 0.96 * chin, 0.32),
            (0.0, chin, 0.36),
        ]
    )
    half[:, 0] *= pose.width / (w * np.cos(how.yaw)) * grow
    half[:, 1] *= grow
    return mirrored(half)


def _body(p: Painter) -> None:
    """Shoulders in a shirt, and the neck; the head's turn hardly moves them."""
    rng = np.random.default_rng(p.how.tousle)
    tone = rng.uniform(20, 230) + rng.normal(0, 32, size=3)
    shirt = triple(np.clip(tone, 0, 255).astype(np.uint8))
    w, chin = p.who.head_width, p.who.chin
    turned = np.array([0.12 * np.sin(p.how.yaw), 0.0])
    p.fill(mirrored(np.array([(0.5 * w, chin - 0.25), (0.55 * w, chin + 0.45), (0.0, chin + 0.7)]))
           + turned, scaled(p.skin, 0.72))  # fmt: skip
    shoulders = np.array(
        [(0.55 * w, chin + 0.26), (1.35, chin + 0.50), (1.75, chin + 1.2), (1.8, chin + 3.0)]
    )
    collar = np.array([(0.0, chin + 0.26 + float(rng.uniform(0.1, 0.4)))])
    p.fill(mirrored(np.concatenate([collar, shoulders])) + turned, shirt, smooth=False)


def _back_hair(p: Painter) -> None:
    who = p.who
    if who.hair_length == 0 or who.bald:
        return
    w, side = who.head_width, who.head_width + who.hair_side
    low = -0.2 + who.hair_length
    half = [(0.0, -1.0 - who.hair_volume), (0.8 * w, -0.92 - 0.6 * who.hair_volume),
            (side, -0.3), (side + 0.04, 0.5 * low), (0.9 * side, low), (0.0, low)]  # fmt: skip
    p.fill(
        mirrored(np.array(half)) + np.array([-0.1 * np.sin(p.how.yaw), 0.0]), scaled(who.hair, 0.62)
    )


def _ears(p: Painter) -> None:
    who, size = p.who, p.who.ear
    for sign in (-1.0, 1.0):
        centre = np.array([sign * (who.head_width + 0.015), who.ear_height + 0.06, -0.06])
        p.oval(centre, (0.42 * size, size), scaled(p.skin, 0.93))
        p.oval(
            centre + np.array([sign * 0.01, 0.0, 0.0]),
            (0.22 * size, 0.65 * size),
            scaled(p.skin, 0.74),
        )


def _front_hair(p: Painter) -> None:
    """Hair over forehead and temples, from an outer and an inner line."""
    who = p.who
    if who.bald:
        return
    rng = np.random.default_rng(p.how.tousle + 2)
    w, vol, side = who.head_width, who.hair_volume, who.hair_side
    long = who.hair_length > 0
    low = min(-0.2 + who.hair_length, 0.75) if long else 0.02
    outer = np.array([(w + (0.8 * side if long else 0.02), low), (w + 0.7 * side, -0.40),
                      (0.72 * w + 0.5 * side, -0.88 - 0.5 * vol), (0.0, -1.0 - vol),
                      (-0.72 * w - 0.5 * side, -0.88 - 0.5 * vol), (-w - 0.7 * side, -0.40),
                      (-w - (0.8 * side if long else 0.02), low)])  # fmt: skip
    line, part = who.hairline, who.hair_part * w
    x = np.linspace(-0.82, 0.82, 7) * w
    y = line + 0.26 * np.abs(x / w) ** 3 + who.hair_peak * np.exp(-((x / 0.16) ** 2))
    y += who.fringe * (1 - 0.55 * np.exp(-(((x - part) / 0.2) ** 2)))
    y += rng.normal(0, 0.008 + 0.3 * who.curl, size=7)
    temple = 0.97 * w
    inner = [(-temple, low), (-0.96 * w, -0.18), *zip(x, y, strict=True), (0.96 * w, -0.18),
             (temple, low)]  # fmt: skip
    at = p.pose.turned(p.face(np.array(inner), 0.02))
    stretch = p.pose.width / w
    shift = np.array([0.16 * np.sin(p.how.yaw), -0.10 * np.sin(p.how.pitch)])
    edge = outer * [stretch, 1.0] - shift * [1.0, 0.0]
    ragged = rng.normal(0, 0.012 + who.curl, size=edge.shape) * [1.0, 0.6]
    p.fill(np.concatenate([edge + ragged, at]), who.hair)
    _strands(p, edge, at, rng)


def _strands(p: Painter, edge: Floats, inner: Floats, rng: np.random.Generator) -> None:
    """Lighter and darker strands from the crown to the hairline."""
    root = np.array([p.who.hair_part * 0.5, -0.98 - 0.5 * p.who.hair_volume])
    count = 14
    picks = rng.integers(1, len(inner) - 1, size=count)
    for i, shade in zip(picks.tolist(), rng.uniform(0.72, 1.5, size=count).tolist(), strict=True):
        end = inner[i] * [1.0, 1.0] + [rng.normal(0, 0.03), -0.05]
        bend = 0.5 * (root + end) + [0.25 * (end[0] - root[0]), -0.10]
        p.line(np.array([root, bend, end]), scaled(p.who.hair, shade), 0.014)


def _five_points(p: Painter) -> NDArray[np.float64]:
    who = p.who
    e, y = who.eye_distance, who.eye_height
    eyes = p.face(np.array([(-e, y), (e, y)]))
    nose = p.face(np.array([(0.0, y + who.nose_length)]), 0.9 * who.nose_depth)
    return p.pose.pixels(np.concatenate([eyes, nose, p.face(mouth_corners(p), 0.05)]))


def draw_person(
    who: Identity,
    how: Conditions,
    shape: tuple[int, int],
    centre: tuple[float, float],
    scale: float,
) -> Drawing:
    """Draw a person on a transparent picture.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the picture in pixels.
    centre : (float, float)
        Pixel (x, y) of the middle of the head.
    scale : float
        Pixels a head unit; the head is two units high.

    Returns
    -------
    Drawing
    """
    pose = pose_of(who, how, centre, scale)
    p = Painter(who, how, pose, shape)
    outline = _outline(who, pose, how)
    _back_hair(p)
    _body(p)
    _ears(p)
    p.fill(outline, p.skin)
    for draw in (draw_marks, draw_eyes, draw_nose, draw_beard, draw_mouth, _front_hair):
        draw(p)
    draw_glasses(p)
    draw_covers(p)
    lit = p.canvas[:, :, :3] * light_map(who, how, pose, shape)
    coverage = p.canvas[:, :, 3:]
    rgba = np.concatenate([np.minimum(lit, coverage).astype(np.uint8), coverage], axis=2)
    contour = pose.pixels(outline[np.abs(outline[:, 1]) < 2])
    top = pose.pixels(np.array([(0.0, -0.72)]))[0]
    return Drawing(rgba, _five_points(p), _face_box(contour, top))


def _face_box(contour: Floats, top: Floats) -> NDArray[np.float64]:
    """Box from the hairline to the chin, as wide as the head."""
    x0, x1, y1 = contour[:, 0].min(), contour[:, 0].max(), contour[:, 1].max()
    y0 = max(contour[:, 1].min(), top[1])
    return np.array([x0, y0, x1 - x0, y1 - y0])
