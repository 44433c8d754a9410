"""What a drawn face depends on: who it is (`Identity`), and its photograph (`Conditions`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Colour = tuple[float, float, float]
"""Red, green, blue, 0..255."""

FIRST_TRAINING_SUBJECT = 1_000_000
"""Subjects from here on are drawn for training only; the written samples stay below."""

_IDENTITY, _CONDITIONS = 1, 2  # the streams of random numbers of one seed


@dataclass(frozen=True, slots=True)
class Identity:
    """A person: what stays the same over photographs.

    Lengths are in head units (half the height of the head); colours are albedos.
    """

    head_width: float
    cheek: float
    jaw: float
    chin_width: float
    chin: float
    eye_distance: float
    eye_height: float
    eye_length: float
    eye_opening: float
    eye_tilt: float
    eye_depth: float
    iris: float
    lid: float
    brow_gap: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    brow_length: float
    brow_density: float
    nose_length: float
    nose_width: float
    nose_bridge: float
    nose_depth: float
    nostril: float
    mouth_drop: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    lip_bow: float
    lip_redness: float
    ear: float
    ear_height: float
    cheekbone: float
    age: float
    stubble: float
    beard: float
    moustache: float
    bald: bool
    hairline: float
    hair_peak: float
    hair_part: float
    fringe: float
    hair_length: float
    hair_volume: float
    hair_side: float
    curl: float
    skin: Colour
    hair: Colour
    iris_colour: Colour
    marks: tuple[tuple[float, float, float], ...]
    """Moles as (x, y, radius) on the face."""
    freckles: float
    texture: int
    """Seed of the freckles' places and of the hair's strands."""


_SHAPE = {
    "head_width": (0.60, 0.76),
    "cheek": (0.90, 1.02),
    "jaw": (0.66, 0.92),
    "chin_width": (0.16, 0.38),
    "chin": (0.90, 1.08),
    "eye_distance": (0.235, 0.315),
    "eye_height": (-0.03, 0.08),
    "eye_length": (0.105, 0.155),
    "eye_opening": (0.034, 0.072),
    "eye_tilt": (-0.035, 0.030),
    "eye_depth": (0.15, 1.0),
    "iris": (0.050, 0.066),
    "lid": (0.01, 0.05),
    "brow_gap": (0.10, 0.18),
    "brow_thickness": (0.018, 0.062),
    "brow_arch": (0.0, 0.075),
    "brow_tilt": (-0.055, 0.018),
    "brow_length": (0.13, 0.20),
    "brow_density": (0.35, 1.0),
    "nose_length": (0.25, 0.40),
    "nose_width": (0.085, 0.165),
    "nose_bridge": (0.035, 0.075),
    "nose_depth": (0.12, 0.26),
    "nostril": (0.018, 0.034),
    "mouth_drop": (0.57, 0.70),
    "mouth_width": (0.17, 0.28),
    "upper_lip": (0.022, 0.062),
    "lower_lip": (0.032, 0.080),
    "lip_bow": (0.0, 0.022),
    "lip_redness": (0.1, 1.0),
    "ear": (0.13, 0.22),
    "ear_height": (-0.02, 0.12),
    "cheekbone": (0.0, 1.0),
    "hairline": (-0.74, -0.48),
    "hair_peak": (-0.08, 0.12),
    "hair_part": (-0.6, 0.6),
    "hair_volume": (0.04, 0.26),
    "hair_side": (0.03, 0.24),
}
_SKIN = np.array([(246, 214, 190), (226, 178, 146), (196, 142, 104), (150, 98, 66), (96, 60, 42)])
_HAIR = np.array(
    [(24, 20, 20), (52, 36, 28), (96, 62, 38), (150, 104, 58), (204, 164, 98), (146, 66, 34),
     (150, 148, 146), (222, 220, 216)]
)  # fmt: skip
_IRIS = np.array([(66, 40, 22), (110, 74, 36), (96, 112, 62), (84, 124, 164), (120, 132, 140)])


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0, 255).tolist()
    return red, green, blue


def _between(rng: np.random.Generator, palette: np.ndarray, spread: float) -> Colour:
    """Draw a colour between two neighbours of a palette, with some noise."""
    place = rng.uniform(0, len(palette) - 1)
    low, part = int(place), place % 1
    return _colour(
        palette[low] * (1 - part) + palette[low + 1] * part + rng.normal(0, spread, size=3)
    )


@lru_cache(maxsize=4096)
def identity(seed: int, subject: int) -> Identity:
    """Person number `subject` of the population of `seed`; the same one at every call."""
    rng = np.random.default_rng((seed, _IDENTITY, subject))
    shape = {name: float(rng.uniform(low, high)) for name, (low, high) in _SHAPE.items()}
    bearded = rng.random() < 0.30
    old = float(rng.uniform(0, 1) ** 2)
    marks = [
        (float(rng.uniform(-0.48, 0.48)), float(rng.uniform(-0.35, 0.85)), float(size))
        for size in rng.uniform(0.010, 0.026, size=rng.integers(0, 4))
    ]
    return Identity(
        **shape,
        age=old,
        stubble=float(rng.uniform(0, 0.8) if rng.random() < 0.4 else 0.0),
        beard=float(rng.uniform(0.3, 1.0)) if bearded else 0.0,
        moustache=float(rng.uniform(0.3, 1.0)) if bearded or rng.random() < 0.1 else 0.0,
        bald=bool(rng.random() < 0.12),
        fringe=float(rng.uniform(0.05, 0.34)) if rng.random() < 0.35 else 0.0,
        hair_length=float(rng.uniform(0.3, 1.5)) if rng.random() < 0.45 else 0.0,
        curl=float(rng.uniform(0.03, 0.08)) if rng.random() < 0.3 else 0.0,
        skin=_between(rng, _SKIN, 5.0),
        hair=_between(rng, _HAIR, 6.0),
        iris_colour=_between(rng, _IRIS, 8.0),
        marks=tuple(marks),
        freckles=float(rng.uniform(0.2, 1.0)) if rng.random() < 0.15 else 0.0,
        texture=int(rng.integers(2**31)),
    )


@dataclass(frozen=True, slots=True)
class Conditions:
    """A photograph of a person: what changes from one to the next.

    Angles are in radians (yaw > 0 turns the face to the image's right, pitch > 0 down, roll > 0
    clockwise); `light` points from the face to the lamp in (right, down, towards the camera).
    """

    yaw: float
    pitch: float
    roll: float
    light: tuple[float, float, float]
    ambient: float
    gain: float
    tint: Colour
    """Gain of each channel, about 1."""
    contrast: float
    smile: float
    mouth_open: float
    eye_open: float
    brow_raise: float
    gaze: tuple[float, float]
    glasses: float
    """0 none, otherwise the shape of the frame in (0, 1]."""
    dark_glasses: bool
    mask: bool
    bar: bool
    tan: float
    make_up: float
    tousle: int
    """Seed of how the hair lies and of the background."""
    blur: float
    """Standard deviation in head units."""
    motion: float
    """Length of the motion blur in head units, along `motion_angle`."""
    motion_angle: float
    noise: float
    """Standard deviation, grey levels."""
    quality: int
    """JPEG quality."""

    @property
    def occluded(self) -> bool:
        """Whether a mask, a bar or dark glasses hide part of the face."""
        return self.mask or self.bar or (self.glasses > 0 and self.dark_glasses)


def _lamp(rng: np.random.Generator, hardness: float) -> tuple[float, float, float]:
    direction = np.array(
        [rng.normal(0, 0.75 * hardness), rng.normal(-0.35, 0.45 * hardness), rng.uniform(0.6, 1.2)]
    )
    right, down, towards = (direction / np.linalg.norm(direction)).tolist()
    return right, down, towards


def conditions(seed: int, subject: int, image: int, hardness: float = 1.0) -> Conditions:
    """Draw the conditions of photograph number `image` of a subject.

    Parameters
    ----------
    hardness : float
        Scales pose, lighting, expression and image faults; 1 is a photograph "in the wild",
        0.5 one for a passport.
    """
    rng = np.random.default_rng((seed, _CONDITIONS, subject, image))
    seldom = rng.random(6) < np.array([0.18, 0.25, 0.03, 0.04, 0.12, 0.3]) * hardness
    glasses, dark, mask, bar, shaken, soft = seldom.tolist()
    grin = float(np.clip(rng.normal(0.3, 0.4), -0.35, 1.1)) * hardness
    return Conditions(
        yaw=float(np.clip(rng.normal(0, 0.34 * hardness), -0.85, 0.85)),
        pitch=float(np.clip(rng.normal(0, 0.16 * hardness), -0.42, 0.42)),
        roll=float(rng.normal(0, 0.13 * hardness)),
        light=_lamp(rng, hardness),
        ambient=float(rng.uniform(0.72 - 0.42 * hardness, 0.75)),
        gain=float(np.exp(np.clip(rng.normal(-0.05, 0.2 * hardness), -0.6, 0.25))),
        tint=tuple(np.exp(rng.normal(0, 0.07 * hardness, size=3)).tolist()),
        contrast=float(np.exp(rng.normal(0, 0.16 * hardness))),
        smile=grin,
        mouth_open=float(max(0.0, rng.normal(0.0, 0.5))) * hardness,
        eye_open=float(np.clip(rng.normal(1.0, 0.22 * hardness), 0.12, 1.35)),
        brow_raise=float(rng.normal(0, 0.5 * hardness)),
        gaze=(float(rng.normal(0, 0.4)), float(rng.normal(0, 0.25))),
        glasses=float(rng.uniform(0.1, 1.0)) if glasses else 0.0,
        dark_glasses=dark,
        mask=mask,
        bar=bar,
        tan=float(rng.normal(0, 0.05 * hardness)),
        make_up=float(max(0.0, rng.normal(0, 0.4 * hardness))),
        tousle=int(rng.integers(2**31)),
        blur=float(rng.uniform(0.01, 0.055)) * hardness if soft else 0.0,
        motion=float(rng.uniform(0.03, 0.12)) * hardness if shaken else 0.0,
        motion_angle=float(rng.uniform(0, np.pi)),
        noise=float(min(rng.exponential(4.0), 13.0)) * hardness,
        quality=int(rng.integers(int(85 - 50 * min(hardness, 1.4)), 96)),
    )
