"""Face verification sets in one file: LFW, CFP-FP, AgeDB-30 and every ``.bin`` like them.

Such a file is a pickle of ``(images, issame)``: pair i is images 2i and 2i + 1, each a whole JPEG
or PNG file, and ``issame`` has one truth value a pair.
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.encoded import decode_face, image_header
from evalkit.datasets.errors import DatasetError, UnreadableImage
from evalkit.datasets.safe_pickle import RawArray, load_plain

FOLDS: Final = 10
MAX_FILE_BYTES: Final = 4 << 30
"""About 70 times LFW; a file is read whole."""

_PICKLES: Final = (b"\x80", b"(", b"]", b"c")
"""How a pickle starts: its protocol, or in the oldest ones a tuple, a list, or a name."""
_LAYOUT: Final = (
    "A verification set is a pickle of (images, issame); 'python -m evalkit pack lfw' makes one."
)


@dataclass(frozen=True, slots=True, eq=False)
class LfwPairs:
    """A verification set, its images still encoded.

    Attributes
    ----------
    name : str
        The file's name without its suffix: ``cfp_fp``.
    path : Path
    sha256 : str
        Of the file: sets of one name circulate in several versions.
    images : sequence of bytes
        JPEG or PNG files; pair i is images 2i and 2i + 1.
    issame : ndarray of bool, shape (n_pairs,)
        Read-only.
    warnings : tuple of str
    """

    name: str
    path: Path
    sha256: str
    images: Sequence[bytes]
    issame: NDArray[np.bool_]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return self.issame.size

    def image_name(self, index: int) -> str:
        """Name of an image, which the file gives none: ``lfw pair 17 second``."""
        return f"{self.name} pair {index // 2} {('first', 'second')[index % 2]}"


@dataclass(frozen=True, slots=True)
class BinSummary:
    """What a verification set holds.

    Attributes
    ----------
    name, sha256 : str
    path : Path
    file_bytes : int
    pairs, same, different : int
    fold_pairs, fold_same : tuple of int
        Pairs, and same pairs, in each of ten contiguous folds.
    sizes : mapping of (int, int) to int
        How many images have a (width, height).
    formats : mapping of str to int
        How many images are ``jpeg`` or ``png``.
    distinct_images : int
        Different image files; a set may use one in several pairs.
    identical_pairs : tuple of int
        Pairs whose two image files are the same bytes.
    repeated_pairs : tuple of int
        Pairs that hold the same two image files as an earlier pair.
    undecodable : tuple of (int, str)
        Images (pair i is 2i and 2i + 1) that do not decode, and why.
    warnings : tuple of str
    """

    name: str
    path: Path
    sha256: str
    file_bytes: int
    pairs: int
    same: int
    different: int
    fold_pairs: tuple[int, ...]
    fold_same: tuple[int, ...]
    sizes: Mapping[tuple[int, int], int]
    formats: Mapping[str, int]
    distinct_images: int
    identical_pairs: tuple[int, ...]
    repeated_pairs: tuple[int, ...]
    undecodable: tuple[tuple[int, str], ...]
    warnings: tuple[str, ...]


class LfwImages:
    """The images of a set for the pipeline, decoded when they are needed; safe to use from threads.

    Parameters
    ----------
    pairs : LfwPairs
    size : int
        Side of the images returned. Images of another size are resized bicubically, as by the
        ``resize_short`` of MXNet that InsightFace's loader calls.
    """

    __slots__ = ("_pairs", "_size")

    def __init__(self, pairs: LfwPairs, size: int = 112) -> None:
        self._pairs = pairs
        self._size = size

    def __len__(self) -> int:
        return len(self._pairs.images)

    def name(self, index: int) -> str:
        """Name of an image: its set, pair and place in it."""
        return self._pairs.image_name(index)

    def path(self, index: int) -> None:
        """Return None: an image is part of the set's file, whose hash covers it."""

    def load(self, index: int) -> NDArray[np.uint8]:
        """Decode one image.

        Returns
        -------
        ndarray of shape (size, size, 3), uint8
            Channels in the order red, green, blue.

        Raises
        ------
        UnreadableImage
            It does not decode; names the pair.
        """
        try:
            image = decode_face(self._pairs.images[index])
        except ValueError as error:
            raise UnreadableImage(
                f"The {_place(index)} is unreadable: {error}",
                path=self._pairs.path,
            ) from error
        if image.shape[:2] != (self._size, self._size):
            resized = cv2.resize(image, (self._size, self._size), interpolation=cv2.INTER_CUBIC)
            return np.asarray(resized, np.uint8)
        return image

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        """As `load`, and the 8-byte BLAKE2b digest of the encoded image."""
        image = self.load(index)
        return image, hashlib.blake2b(self._pairs.images[index], digest_size=8).digest()


def load_bin(path: str | Path, *, check_images: bool = True) -> LfwPairs:
    """Read a verification set; nothing in the file is ever executed.

    Parameters
    ----------
    path : path-like
        The ``.bin``: images as byte strings of Python 2 or 3, or as uint8 arrays of shape (n,)
        or (n, 1); labels as a list of bool, int or NumPy bool, or as an array.
    check_images : bool
        Refuse a set with an image that is not a complete JPEG or PNG; `LfwImages.load` does so when
        it comes to the image.

    Raises
    ------
    DatasetError
        The file is missing, hostile, damaged, has another layout, or holds such an image; names
        the pair.
    """
    pairs = _read(Path(path))
    for index, image in enumerate(pairs.images if check_images else ()):
        try:
            image_header(image)
        except ValueError as error:
            raise DatasetError(
                f"The {_place(index)} is unreadable: {error}",
                path=pairs.path,
                remedy="Take the file from its source again, or pack it anew without the pair.",
            ) from error
    return pairs


def inspect_bin(path: str | Path) -> BinSummary:
    """Say what a verification set holds; decodes every image.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    DatasetError
        As for `load_bin`, except that unreadable images are listed instead.
    """
    pairs = _read(Path(path))
    sizes: Counter[tuple[int, int]] = Counter()
    formats: Counter[str] = Counter()
    undecodable = []
    for index, image in enumerate(pairs.images):
        try:
            header = image_header(image)
            decode_face(image)
        except ValueError as error:
            undecodable.append((index, str(error)))
            continue
        sizes[header.width, header.height] += 1
        formats[header.format] += 1
    digests = [hashlib.sha256(image).digest() for image in pairs.images]
    folds = np.array_split(pairs.issame, FOLDS)
    same = int(np.count_nonzero(pairs.issame))
    identical, repeated, contradicting = _duplicates(digests, pairs.issame)
    warnings = list(pairs.warnings)
    if identical:
        warnings.append(f"{len(identical)} pairs hold one image file twice.")
    if contradicting:
        warnings.append(f"{contradicting} pairs contradict the label of an earlier, equal pair.")
    if undecodable:
        warnings.append(f"{len(undecodable)} images do not decode.")
    return BinSummary(
        name=pairs.name,
        path=pairs.path,
        sha256=pairs.sha256,
        file_bytes=pairs.path.stat().st_size,
        pairs=len(pairs),
        same=same,
        different=len(pairs) - same,
        fold_pairs=tuple(fold.size for fold in folds),
        fold_same=tuple(int(np.count_nonzero(fold)) for fold in folds),
        sizes=dict(sizes.most_common()),
        formats=dict(formats.most_common()),
        distinct_images=len(set(digests)),
        identical_pairs=tuple(identical),
        repeated_pairs=tuple(repeated),
        undecodable=tuple(undecodable),
        warnings=tuple(warnings),
    )


def _duplicates(
    digests: Sequence[bytes], issame: NDArray[np.bool_]
) -> tuple[list[int], list[int], int]:
    """Return identical and repeated pairs, and how many of the latter have another label."""
    first_label: dict[frozenset[bytes], bool] = {}
    identical, repeated, contradicting = [], [], 0
    for pair, same in enumerate(issame.tolist()):
        images = frozenset(digests[2 * pair : 2 * pair + 2])
        if len(images) == 1:
            identical.append(pair)
        if images in first_label:
            repeated.append(pair)
            contradicting += first_label[images] != same
        first_label.setdefault(images, same)
    return identical, repeated, contradicting


def _read(path: Path) -> LfwPairs:
    data = _bytes_of(path)
    if not data.startswith(_PICKLES):
        what = "no .bin" if data else "empty"
        raise DatasetError(f"The file is {what}", path=path, remedy=_LAYOUT)
    value = load_plain(data, path)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise DatasetError("The file is not a pair of images and labels", path=path, remedy=_LAYOUT)
    images = _images(value[0], path)
    issame = _labels(value[1], path)
    if len(images) != 2 * issame.size:
        whole = min(len(images) // 2, issame.size)
        raise DatasetError(
            f"{len(images)} images make {len(images) / 2:g} pairs, but there are {issame.size} "
            f"labels; pair {whole} is the first that is incomplete",
            path=path,
            remedy="Take the file from its source again, or pack it anew.",
        )
    return LfwPairs(
        name=path.stem,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        images=images,
        issame=issame,
        warnings=_fold_warnings(issame),
    )


def _bytes_of(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError("This is not a file", path=path, remedy="Name the .bin itself.")
        if status.st_size > MAX_FILE_BYTES:
            raise DatasetError(
                f"The file has {status.st_size:,} bytes, more than the {MAX_FILE_BYTES:,} that "
                "are read at once",
                path=path,
                remedy="Split it into several sets.",
            )
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"The file cannot be read: {error.strerror}", path=path, remedy="Check the path."
        ) from error


def _images(value: object, path: Path) -> tuple[bytes, ...]:
    if not isinstance(value, (tuple, list)) or not value:
        raise DatasetError("The file holds no list of images", path=path, remedy=_LAYOUT)
    images = []
    for index, item in enumerate(value):
        flat = isinstance(item, RawArray) and item.dtype == "u1" and item.shape[1:] in ((), (1,))
        image = item.data if isinstance(item, RawArray) and flat and item.shape else item
        if not isinstance(image, bytes):
            raise DatasetError(
                f"The {_place(index)} is not an encoded image but {_kind(item)}",
                path=path,
                remedy=_LAYOUT,
            )
        images.append(image)
    return tuple(images)


def _labels(value: object, path: Path) -> NDArray[np.bool_]:
    if isinstance(value, RawArray) and len(value.shape) == 1:
        value = list(value.data)
    if not isinstance(value, (tuple, list)):
        raise DatasetError("The file holds no list of labels", path=path, remedy=_LAYOUT)
    for pair, label in enumerate(value):
        if not isinstance(label, int) or label not in (0, 1):
            shown = str(label) if isinstance(label, int) else _kind(label)
            raise DatasetError(
                f"The label of pair {pair} is {shown}, not true or false",
                path=path,
                remedy=_LAYOUT,
            )
    labels = np.array(value, bool)
    labels.flags.writeable = False
    return labels


def _place(index: int) -> str:
    return f"{('first', 'second')[index % 2]} image of pair {index // 2}"


def _kind(value: object) -> str:
    if isinstance(value, RawArray):
        return f"an array of type {value.dtype} and shape {value.shape}"
    return f"a value of type {type(value).__name__.lstrip('_')}"


def _fold_warnings(issame: NDArray[np.bool_]) -> tuple[str, ...]:
    """Warn of what makes ten contiguous folds useless."""
    if issame.size < FOLDS:
        return (f"There are only {issame.size} pairs; ten folds need at least {FOLDS}.",)
    lacking = sum(fold.all() or not fold.any() for fold in np.array_split(issame, FOLDS))
    if not lacking:
        return ()
    return (
        f"{lacking} of {FOLDS} contiguous folds hold one kind of pair only; interleave the folds.",
    )
