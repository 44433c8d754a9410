"""Scenes of many drawn people on cluttered backgrounds, with WIDER FACE's annotations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sample_painter.faces import draw_person
from sample_painter.painter import Image
from sample_painter.photo import background, composite, dull, expose
from sample_painter.traits import Conditions, conditions, identity

_SCENE = 5  # the stream of random numbers that lays out scenes
_FINEST = 20.0  # pixels a head unit below which a person is drawn larger and reduced
_LEFT, _ABOVE, _BELOW = 1.9, 1.7, 3.2  # reach of a drawn person in head units

ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
"""Columns of `Scene.attributes`, in the order of WIDER FACE's text file."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many faces a kind of scene has, and how high they are in pixels."""

    faces: tuple[int, int]
    height: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and its annotated faces.

    Attributes
    ----------
    image : ndarray of shape (height, width, 3), uint8
        RGB.
    boxes : ndarray of shape (n, 4), int32
        x, y, width, height in pixels.
    attributes : ndarray of shape (n, 6), uint8
        The columns `ATTRIBUTES`, with WIDER FACE's codes.
    """

    image: Image
    boxes: NDArray[np.int32]
    attributes: NDArray[np.uint8]


@dataclass(slots=True)
class _Placed:
    box: NDArray[np.float64]
    how: Conditions
    defocus: float
    own: int = 0


def _clutter(rng: np.random.Generator, height: int, width: int) -> Image:
    """Background full of edges, and of round skin-coloured things that are no faces."""
    scene = background(rng, height, width)
    for _ in range(int(rng.integers(20, 60))):
        x, y = (rng.uniform(0, 1, size=2) * (width, height)).astype(int).tolist()
        w, h = np.exp(rng.uniform(np.log(6), np.log(0.25 * width), size=2)).astype(int).tolist()
        colour, angle = dull(rng), float(rng.uniform(0, 180))
        shape = int(rng.integers(4))
        if shape == 0:
            corners = cv2.boxPoints(((x, y), (w, h), angle)).astype(np.int32)
            cv2.fillPoly(scene, [corners], colour, cv2.LINE_AA)
        elif shape == 1:
            skin = tuple(np.array([220.0, 165, 130]) * rng.uniform(0.4, 1.1))
            cv2.ellipse(scene, (x, y), (h // 3 + 2, h // 2 + 2), angle, 0, 360,
                        skin if rng.random() < 0.4 else colour, -1, cv2.LINE_AA)  # fmt: skip
        elif shape == 2:
            cv2.line(scene, (x, y), (x + w, y + h), colour, 1 + w % 5, cv2.LINE_AA)
        else:
            for i in range(0, min(w, 120), 9):
                cv2.rectangle(scene, (x + i, y), (x + i + 4, y + h), colour, -1)
    grain = cv2.resize(rng.integers(0, 24, (height // 3, width // 3, 3), np.uint8), (width, height))
    grainy: Image = cv2.add(scene, grain)
    return grainy


def _draw(
    seed: int, subject: int, how: Conditions, pixels: float, defocus: float
) -> tuple[Image, NDArray[np.float64], NDArray[np.float64]]:
    """Draw a person whose face is `pixels` high: RGBA, face box in it, middle of the head."""
    scale = pixels / 1.72
    finer = int(np.ceil(_FINEST / scale)) if scale < _FINEST else 1
    width, height = (int(np.ceil(reach * scale)) for reach in (2 * _LEFT, _ABOVE + _BELOW))
    centre = np.array([_LEFT, _ABOVE]) * scale
    person = draw_person(
        identity(seed, subject),
        how,
        (height * finer, width * finer),
        (centre[0] * finer, centre[1] * finer),
        scale * finer,
    )
    rgba = person.rgba
    if finer > 1:
        rgba = cv2.resize(rgba, (width, height), interpolation=cv2.INTER_AREA)
    if defocus * scale > 0.4:
        rgba = cv2.GaussianBlur(rgba, (0, 0), defocus * scale)
    return rgba, person.box / finer, centre


def _places(
    rng: np.random.Generator, crowd: Crowd, shape: tuple[int, int]
) -> list[NDArray[np.float64]]:
    """Head middles and face heights (x, y, pixels), the farthest first.

    Faces may touch but seldom hide one another; the nearer stand lower.
    """
    height, width = shape
    count = int(rng.integers(crowd.faces[0], crowd.faces[1] + 1))
    taken: list[NDArray[np.float64]] = []
    for _ in range(count * 6):
        if len(taken) == count:
            break
        size = float(np.exp(rng.uniform(*np.log(np.minimum(crowd.height, 0.45 * height)))))
        x = rng.uniform(0.4 * size, width - 0.4 * size)
        y = rng.uniform(0.6 * size, height - 0.7 * size)
        apart = 0.62 if rng.random() < 0.2 else 0.85
        if all(np.hypot(x - a, y - b) > apart * max(size, c) for a, b, c in taken):
            taken.append(np.array([x, y, size]))
    return sorted(taken, key=lambda place: float(place[2]))


def draw_scene(seed: int, number: int, crowd: Crowd, shape: tuple[int, int], first: int) -> Scene:
    """Draw scene `number`; its people are the subjects from `first` on.

    Parameters
    ----------
    shape : (int, int)
        Height and width in pixels.

    Notes
    -----
    A face of which less than 15 % is seen is not annotated; less than 30 %, or less than 8 pixels
    high, makes it invalid.
    """
    rng = np.random.default_rng((seed, _SCENE, number))
    image = _clutter(rng, *shape)
    owner = np.zeros(shape, np.uint16)
    camera = conditions(seed, first, number, 0.45)
    placed: list[_Placed] = []
    for index, (x, y, pixels) in enumerate(_places(rng, crowd, shape)):
        how = conditions(seed, first + index, number, float(rng.uniform(0.5, 1.25)))
        how = replace(how, tint=camera.tint, gain=how.gain * camera.gain, bar=False)
        defocus = float(rng.choice([0.0, 0.03, 0.08], p=[0.65, 0.25, 0.10]))
        rgba, box, centre = _draw(seed, first + index, how, pixels, defocus)
        corner = np.round(np.array([x, y]) - centre).astype(int)
        top, left = max(0, -corner[1]), max(0, -corner[0])
        y0, x0 = max(0, corner[1]), max(0, corner[0])
        part = np.ascontiguousarray(rgba[top : top + shape[0] - y0, left : left + shape[1] - x0])
        there = slice(y0, y0 + part.shape[0]), slice(x0, x0 + part.shape[1])
        image[there] = composite(np.ascontiguousarray(image[there]), part)
        owner[there][part[:, :, 3] > 127] = index + 1
        face = _Placed(_clipped(box, corner, shape), how, defocus)
        face.own = _seen(owner, face.box, index + 1)
        placed.append(face)
    calm = replace(camera, noise=min(camera.noise, 5.0), blur=0.0, motion=0.0)
    seen = [_seen(owner, f.box, i) / max(f.own, 1) for i, f in enumerate(placed, start=1)]
    kept = [(f, share) for f, share in zip(placed, seen, strict=True) if share >= 0.15]
    boxes = np.array([f.box for f, _ in kept], np.float64).reshape(-1, 4)
    attributes = np.array([_attributes(f, share) for f, share in kept], np.uint8).reshape(-1, 6)
    return Scene(expose(image, calm, 1.0, rng), boxes.astype(np.int32), attributes)


def _clipped(
    box: NDArray[np.float64], corner: NDArray[np.int_], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Whole-pixel box in the scene, cut at its edges."""
    limits = np.array([shape[1], shape[0]], np.float64)
    start = np.clip(np.round(box[:2] + corner), 0, limits - 1)
    stop = np.clip(np.round(box[:2] + box[2:] + corner), start + 1, limits)
    return np.concatenate([start, stop - start])


def _seen(owner: NDArray[np.uint16], box: NDArray[np.float64], index: int) -> int:
    x, y, w, h = box.astype(int)
    return int(np.count_nonzero(owner[y : y + h, x : x + w] == index))


def _attributes(face: _Placed, share: float) -> tuple[int, ...]:
    """WIDER FACE's codes for one face of which `share` is not hidden by other people."""
    how, height = face.how, float(face.box[3])
    defocus = face.defocus + 0.6 / height
    blur = 0 if defocus < 0.025 else 1 if defocus < 0.06 else 2
    dim = how.gain * (how.ambient + 0.5 * (1 - how.ambient))
    occlusion = 2 if share < 0.55 else 1 if share < 0.9 or how.occluded else 0
    return (
        blur,
        int(how.smile > 0.95 or how.mouth_open > 0.8),
        int(dim < 0.5 or dim > 1.15),
        int(share < 0.30 or height < 8),
        occlusion,
        int(abs(how.yaw) > 0.65 or abs(how.roll) > 0.4),
    )
