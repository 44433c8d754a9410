"""A photograph of a drawn person: background, camera faults, JPEG."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sample_painter.faces import draw_person
from sample_painter.painter import Image
from sample_painter.traits import Conditions, conditions, identity

_PLACE = 3  # the stream of random numbers that places heads in loose crops


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph of one face.

    Attributes
    ----------
    jpeg : bytes
        The picture as a JPEG file.
    points : ndarray of shape (5, 2)
        Left eye, right eye, nose tip, left and right mouth corner (left as seen in the image),
        in pixels (x, y).
    score : float
        What a face detector would think of it, in (0, 1].
    """

    jpeg: bytes
    points: NDArray[np.float64]
    score: float


def dull(rng: np.random.Generator) -> tuple[float, ...]:
    """Draw a colour of little saturation."""
    values = rng.uniform(15, 230) + rng.normal(0, 25, size=3)
    return tuple(np.clip(values, 0, 255).tolist())


def background(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw an out-of-focus room or street of (height, width, 3)."""
    cells = max(2, int(rng.integers(2, 7)))
    base = rng.uniform(30, 220) + rng.normal(0, 18, size=3)
    shades = rng.normal(0, 30, size=(cells, cells, 1)) + rng.normal(0, 12, size=(cells, cells, 3))
    coarse = base + shades
    scene: Image = cv2.resize(
        np.clip(coarse, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(int(rng.integers(0, 6))):
        x, y = (rng.uniform(-0.2, 1, size=2) * (width, height)).astype(int).tolist()
        w, h = (rng.uniform(0.05, 0.5, size=2) * (width, height)).astype(int).tolist()
        cv2.rectangle(scene, (x, y), (x + w, y + h), dull(rng), -1)
    return scene


def composite(scene: Image, rgba: Image) -> Image:
    """Lay premultiplied `rgba` over a scene of the same size."""
    hidden = cv2.cvtColor(255 - rgba[:, :, 3], cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(scene, hidden, scale=1 / 255)
    laid: Image = cv2.add(behind, np.ascontiguousarray(rgba[:, :, :3]))
    return laid


def _blurred(image: Image, how: Conditions, scale: float) -> Image:
    sigma, length = how.blur * scale, round(how.motion * scale)
    if sigma > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if length >= 2:
        kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
        arm = length * np.array([np.cos(how.motion_angle), np.sin(how.motion_angle)]) / 2
        ends = np.round(np.array([length - arm, length + arm])).astype(int).tolist()
        cv2.line(kernel, ends[0], ends[1], 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    return image


def expose(image: Image, how: Conditions, scale: float, rng: np.random.Generator) -> Image:
    """Blur, contrast and sensor noise of a camera; `scale` is in pixels a head unit."""
    image = _blurred(image, how, scale)
    grain = rng.standard_normal(image.shape[:2], dtype=np.float32)[:, :, None] * how.noise
    seen = (image.astype(np.float32) - 118) * how.contrast + (118 + grain)
    exposed: Image = np.clip(seen, 0, 255).astype(np.uint8)
    return exposed


def encode(image: Image, quality: int) -> bytes:
    """JPEG bytes of an RGB image."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    how = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]  # smaller, same pixels
    done, data = cv2.imencode(".jpg", bgr, how)
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return bytes(data)


def detector_score(how: Conditions, pixels: float) -> float:
    """Make up a face detector's confidence from the quality of a face `pixels` wide."""
    faults = (
        0.25 * abs(how.yaw)
        + 0.2 * abs(how.pitch)
        + 0.22 * how.occluded
        + 1.2 * (how.blur + 0.5 * how.motion)
        + 0.004 * how.noise
        + 2.5 / pixels
    )
    return float(np.clip(1.0 - 0.55 * faults, 0.35, 0.999))


def _later(how: Conditions, rng: np.random.Generator) -> Conditions:
    """Move on in a video: the head turns a little, the face changes."""
    turn_x, turn_y, tilt, smile, gape = (0.12 * rng.standard_normal(5)).tolist()
    return replace(
        how,
        yaw=float(np.clip(how.yaw + turn_x, -0.85, 0.85)),
        pitch=float(np.clip(how.pitch + 0.6 * turn_y, -0.42, 0.42)),
        roll=how.roll + 0.5 * tilt,
        smile=float(np.clip(how.smile + smile, -0.35, 1.1)),
        mouth_open=max(0.0, how.mouth_open + 2 * gape),
    )


def photograph(
    seed: int,
    subject: int,
    image: int,
    *,
    hardness: float = 1.0,
    frame: int = 0,
    size: int | None = None,
    widths: tuple[int, int] = (56, 220),
) -> Photo:
    """Take photograph number `image` of a subject: a loose, unaligned crop around the face.

    Parameters
    ----------
    hardness : float
        How far from a passport photograph; see `traits.conditions`.
    frame : int
        0 for a still; later frames of a video keep its light and place, and move a little.
    size : int, optional
        Width of the crop in pixels; drawn from `widths` by default.
    widths : tuple of int
        Least and largest width.
    """
    rng = np.random.default_rng((seed, _PLACE, subject, image))
    who = identity(seed, subject)
    how = conditions(seed, subject, image, hardness)
    if frame:
        how = _later(how, np.random.default_rng((seed, _PLACE, subject, image, frame)))
    drawn = int(np.exp(rng.uniform(*np.log(widths))))
    width = size or drawn
    height = int(width * rng.uniform(1.0, 1.25))
    scale = width / rng.uniform(2.3, 2.9)
    x, y = 0.5 * width, 0.48 * height
    centre = (x + float(rng.normal(0, 0.07)) * scale, y + float(rng.normal(0, 0.07)) * scale)
    person = draw_person(who, how, (height, width), centre, scale)
    scene = composite(background(rng, height, width), person.rgba)
    picture = expose(scene, how, scale, rng)
    limits = np.array([width - 1, height - 1])
    return Photo(
        encode(picture, how.quality),
        np.clip(person.points, 0, limits),
        detector_score(how, person.box[2]),
    )
