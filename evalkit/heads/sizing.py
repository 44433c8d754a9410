"""How an image of any size becomes a detector's input, and how boxes return to the image.

A policy has a name, a line of text that results record:

- ``original``: the image's own size, padded to a multiple of the stride;
- ``short_side=800 max=1333``: resized, keeping its shape, then padded to a multiple of the stride;
- ``fixed=640x640 letterbox``: resized to fit, keeping its shape, at the top left (``centered``: in
  the middle; ``stretch``: resized to fill);
- ``multi_scale=500,800,1100 max=2000 flip``: several short sides, each perhaps mirrored too.

``stride=N`` (32) and ``pad=V`` (a grey value from 0 to 255, or ``mean``, the model's mean colour)
may follow where they apply. ``original stride=1`` does not pad.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError

Size = tuple[int, int]
Pad = int | Literal["mean"]
Fit = Literal["letterbox", "centered", "stretch"]

_MIRRORED_POINTS = (1, 0, 2, 4, 3)


@dataclass(frozen=True, slots=True)
class Geometry:
    """The place of one image in the network's input; sizes are (height, width) in pixels.

    Attributes
    ----------
    image : tuple of int
        The original.
    resized : tuple of int
        The image after resizing.
    input : tuple of int
        The network's input, which holds the resized image and padding.
    offset : tuple of int
        Top and left of the resized image in the input.
    mirrored : bool
        Whether the image was mirrored left to right first.
    """

    image: Size
    resized: Size
    input: Size
    offset: Size = (0, 0)
    mirrored: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input for one pixel of the image, along x and y."""
        return self.resized[1] / self.image[1], self.resized[0] / self.image[0]

    def boxes_to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes x1 y1 x2 y2, shape (n, 4), from the input to the original image.

        Examples
        --------
        >>> Geometry((100, 200), (50, 100), (64, 128)).boxes_to_image(np.float32([[1, 2, 3, 4]]))
        array([[2., 4., 6., 8.]], dtype=float32)
        """
        corners = self._points(boxes.reshape(-1, 2, 2))
        if self.mirrored:
            corners[:, :, 0] = corners[:, ::-1, 0]
        return corners.reshape(-1, 4)

    def landmarks_to_image(self, landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map landmarks, shape (n, 5, 2), to the original image; left stays left if mirrored."""
        points = self._points(landmarks)
        return points[:, _MIRRORED_POINTS] if self.mirrored else points

    def _points(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        top, left = self.offset
        start, scale = np.array((left, top), np.float32), np.array(self.scale, np.float32)
        placed: NDArray[np.float32] = (points - start) / scale
        if self.mirrored:
            placed[..., 0] = self.image[1] - placed[..., 0]
        return placed


class Sizing(Protocol):
    """A policy: frozen; `str` writes the name that `parse_sizing` reads."""

    def views(self, image: Size) -> tuple[Geometry, ...]:
        """Return the views of an image of (height, width) that the network gets."""

    @property
    def pad(self) -> Pad:
        """Grey value of the padding, or ``mean``."""


@dataclass(frozen=True, slots=True)
class Original:
    """The image's own size, padded at the right and the bottom to a multiple of the stride."""

    stride: int = 32
    pad: Pad = "mean"

    def views(self, image: Size) -> tuple[Geometry, ...]:
        """See `Sizing.views`."""
        return (Geometry(image, image, _up_to(image, self.stride)),)

    def __str__(self) -> str:
        return f"original stride={self.stride} pad={self.pad}"


@dataclass(frozen=True, slots=True)
class ShortSide:
    """Short side of `size` pixels, less if the long side would exceed `longest`; then padded."""

    size: int
    longest: int | None = None
    stride: int = 32
    pad: Pad = "mean"

    def views(self, image: Size) -> tuple[Geometry, ...]:
        """See `Sizing.views`."""
        scale = self.size / min(image)
        if self.longest is not None:
            scale = min(scale, self.longest / max(image))
        resized = _scaled(image, scale)
        return (Geometry(image, resized, _up_to(resized, self.stride)),)

    def __str__(self) -> str:
        longest = "" if self.longest is None else f" max={self.longest}"
        return f"short_side={self.size}{longest} stride={self.stride} pad={self.pad}"


@dataclass(frozen=True, slots=True)
class Fixed:
    """One input size for all images: `height` and `width`, filled by the rule `fit`."""

    height: int
    width: int
    fit: Fit = "letterbox"
    pad: Pad = "mean"

    def views(self, image: Size) -> tuple[Geometry, ...]:
        """See `Sizing.views`."""
        whole = (self.height, self.width)
        if self.fit == "stretch":
            return (Geometry(image, whole, whole),)
        scale = min(self.height / image[0], self.width / image[1])
        height, width = _scaled(image, scale)
        resized = min(height, self.height), min(width, self.width)
        offset = (0, 0)
        if self.fit == "centered":
            offset = (self.height - resized[0]) // 2, (self.width - resized[1]) // 2
        return (Geometry(image, resized, whole, offset),)

    def __str__(self) -> str:
        pad = "" if self.fit == "stretch" else f" pad={self.pad}"
        return f"fixed={self.width}x{self.height} {self.fit}{pad}"


@dataclass(frozen=True, slots=True)
class MultiScale:
    """Several short sides, each also mirrored with `flip`; `evalkit.heads.voting` joins them."""

    sizes: tuple[int, ...]
    longest: int | None = None
    flip: bool = False
    stride: int = 32
    pad: Pad = "mean"

    def views(self, image: Size) -> tuple[Geometry, ...]:
        """See `Sizing.views`; sizes that `longest` makes equal give one view."""
        plain = dict.fromkeys(
            view
            for size in self.sizes
            for view in ShortSide(size, self.longest, self.stride).views(image)
        )
        mirrored = (replace(view, mirrored=True) for view in plain if self.flip)
        return (*plain, *mirrored)

    def __str__(self) -> str:
        longest = "" if self.longest is None else f" max={self.longest}"
        flip = " flip" if self.flip else ""
        sizes = ",".join(map(str, self.sizes))
        return f"multi_scale={sizes}{longest}{flip} stride={self.stride} pad={self.pad}"


_FORMS = (
    "'original', 'short_side=N max=M', 'fixed=WxH letterbox' (or centered, stretch) or "
    "'multi_scale=N,N,... max=M flip', with stride=N and pad=0..255 or pad=mean where they apply"
)
_ALLOWED = {
    "original": {"stride", "pad"},
    "short_side": {"max", "stride", "pad"},
    "fixed": {*get_args(Fit), "pad"},
    "multi_scale": {"max", "flip", "stride", "pad"},
}


def parse_sizing(text: str) -> Sizing:
    """Read a policy's name.

    Raises
    ------
    evalkit.core.errors.InputError
        It has another form; the message lists the forms.

    Examples
    --------
    >>> parse_sizing("short_side=800 max=1333")
    ShortSide(size=800, longest=1333, stride=32, pad='mean')
    >>> str(parse_sizing("fixed=640x480 letterbox"))
    'fixed=640x480 letterbox pad=mean'
    """
    words = [word.partition("=")[::2] for word in text.split()]
    (kind, value), rest = (words[0], dict(words[1:])) if words else (("", ""), {})
    try:
        if rest.keys() - _ALLOWED[kind] or len(rest) != len(words) - 1:
            raise ValueError(text)
        return _build(kind, value, rest)
    except (KeyError, ValueError) as error:
        raise InputError(f"There is no input sizing {text!r}. Write {_FORMS}.") from error


def _build(kind: str, value: str, rest: dict[str, str]) -> Sizing:
    grey = rest.get("pad", "mean")
    pad: Pad = "mean" if grey == "mean" else _whole(grey, least=0, most=255)
    stride = _whole(rest.get("stride", "32"))
    longest = _whole(rest["max"]) if "max" in rest else None
    if kind == "original" and not value:
        return Original(stride, pad)
    if kind == "short_side":
        return ShortSide(_whole(value), longest, stride, pad)
    if kind == "multi_scale" and not rest.get("flip"):
        sizes = tuple(_whole(size) for size in value.split(","))
        return MultiScale(sizes, longest, "flip" in rest, stride, pad)
    (fit,) = rest.keys() - {"pad"}
    if kind != "fixed" or rest[fit] or (fit == "stretch" and "pad" in rest):
        raise ValueError(kind)
    width, height = value.split("x")
    return Fixed(_whole(height), _whole(width), cast("Fit", fit), pad)


def _whole(text: str, least: int = 1, most: int = 1 << 16) -> int:
    if not re.fullmatch(r"[0-9]+", text) or not least <= int(text) <= most:
        raise ValueError(text)
    return int(text)


def _scaled(image: Size, scale: float) -> Size:
    return max(1, round(image[0] * scale)), max(1, round(image[1] * scale))


def _up_to(size: Size, stride: int) -> Size:
    return -(-size[0] // stride) * stride, -(-size[1] // stride) * stride


def place(
    image: NDArray[np.uint8], geometry: Geometry, colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Resize an image bilinearly and pad it.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, 3)
    geometry : Geometry
        A view of an image of this size.
    colour : three ints
        Of the padding, in the image's order of channels; see `pad_colour`.

    Returns
    -------
    ndarray of uint8, shape (geometry.input, 3)
    """
    if image.shape[:2] != geometry.image:
        raise ValueError(f"an image of {image.shape[:2]} does not fit {geometry}")
    if geometry.mirrored:
        image = image[:, ::-1]
    height, width = geometry.resized
    if geometry.resized != geometry.image:
        image = cv2.resize(np.ascontiguousarray(image), (width, height))
    if geometry.resized == geometry.input:
        return np.ascontiguousarray(image)
    top, left = geometry.offset
    bottom, right = geometry.input[0] - top - height, geometry.input[1] - left - width
    padded: NDArray[np.uint8] = cv2.copyMakeBorder(
        np.ascontiguousarray(image), top, bottom, left, right, cv2.BORDER_CONSTANT, value=colour
    )
    return padded


def pad_colour(
    pad: Pad, mean: float | Sequence[float], color: Literal["rgb", "bgr"]
) -> tuple[int, int, int]:
    """Return the padding's colour in RGB, from a policy and the model's mean in its own order.

    The mean colour is close to zero after normalisation, and convolutions pad with zero.

    Examples
    --------
    >>> pad_colour("mean", (104, 117, 123), "bgr")
    (123, 117, 104)
    """
    if pad != "mean":
        return pad, pad, pad
    values = np.broadcast_to(np.asarray(mean, np.float64), 3)
    first, second, third = (int(np.clip(round(float(value)), 0, 255)) for value in values)
    return (first, second, third) if color == "rgb" else (third, second, first)


def batches_by_size(
    sizes: Sequence[Size], batch_size: int, max_pixels: int | None = None
) -> list[tuple[int, ...]]:
    """Group inputs of equal size into batches.

    Parameters
    ----------
    sizes : sequence of (height, width)
        Of each input.
    batch_size : int
        The largest batch.
    max_pixels : int, optional
        The largest number of pixels in a batch, to bound memory; a batch has at least one input.

    Returns
    -------
    list of tuple of int
        Indices, each once: sizes in the order of their first input, ascending within a size.

    Examples
    --------
    >>> batches_by_size([(32, 64), (64, 64), (32, 64), (32, 64)], 2)
    [(0, 2), (3,), (1,)]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    buckets: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        buckets.setdefault(size, []).append(index)
    batches = []
    for (height, width), members in buckets.items():
        most = batch_size
        if max_pixels is not None:
            most = max(1, min(batch_size, max_pixels // (height * width)))
        batches += [tuple(members[at : at + most]) for at in range(0, len(members), most)]
    return batches
