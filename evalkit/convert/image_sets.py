"""Data sets that images to calibrate with are drawn from: what a path holds, listed alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.core.files import cache_dir, sha256_json
from evalkit.core.progress import Progress
from evalkit.datasets.ijb import load_ijb
from evalkit.datasets.lfw import LfwImages, load_bin
from evalkit.datasets.pairs import SUFFIXES
from evalkit.datasets.sample import Content, calibration_path
from evalkit.datasets.widerface import WiderImages, load_widerface
from evalkit.run.pipeline import ImageSource
from evalkit.tasks.ijb.samples import people_of

Kind = Content


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """The images of a data set, and what belongs together among them.

    Attributes
    ----------
    name, path, sha256 : str, Path, str
        Of the data set.
    kind : str
        ``faces`` that are aligned, or whole ``photographs``.
    source : ImageSource
    content : callable
        Gives the encoded bytes of an image.
    groups : ndarray of int64, shape (n,)
        Images of one number are never divided between calibration and comparison.
    identities : tuple of str, or None
        Who each group is, where the data tell; comparable between data sets of one kind.
    issame : ndarray of bool, or None
        For sets of pairs: group i is pair i, images 2i and 2i + 1.
    """

    name: str
    path: Path
    sha256: str
    kind: Kind
    source: ImageSource
    content: Callable[[int], bytes]
    groups: NDArray[np.int64]
    identities: tuple[str, ...] | None = None
    issame: NDArray[np.bool_] | None = None


def load_images(path: Path | None, kind: Kind, size: int, progress: Progress) -> ImageSet:
    """Find out what a data set is, and list its images.

    Parameters
    ----------
    path : Path or None
        An IJB release, a ``.bin``, a WIDER FACE folder or any folder of images; None takes a sample
        of evalkit, of other people than the sample that is evaluated.
    kind : str
        What the model takes.
    size : int
        Side of an aligned face.
    progress : Progress

    Raises
    ------
    evalkit.core.errors.InputError, evalkit.datasets.errors.DatasetError
        There is no image, or they are not of the kind that the model takes.
    """
    found = _find(_sample(kind, progress) if path is None else path, kind, size)
    if not len(found.source):
        raise InputError(f"{found.path} holds no image to calibrate with. Name another folder.")
    if found.kind != kind:
        raise InputError(
            f"{found.path} holds {found.kind}, but the model takes {kind}. A recognition model is "
            "calibrated with aligned faces (a .bin, an IJB release, a folder of them), a detector "
            "with photographs (WIDER FACE, a folder of them)."
        )
    return found


def _sample(kind: Kind, progress: Progress) -> Path:
    progress.say("no --calibration: taking the embedded sample, which suits its own models")
    return calibration_path(kind)


def _find(path: Path, kind: Kind, size: int) -> ImageSet:
    if path.is_file():
        return _bin(path, size)
    if not path.is_dir():
        raise InputError(f"There is no calibration data {path}. Check the path.")
    for protocol in ("IJBC", "IJBB"):
        marker = Path("meta", f"{protocol.lower()}_face_tid_mid.txt")
        if (path / marker).is_file() or (path / protocol / marker).is_file():
            return _ijb(path, protocol, size)
    bins = sorted(path.glob("*.bin"))
    if len(bins) == 1:
        return _bin(bins[0], size)
    if any(path.rglob("wider_face_*_bbx_gt.txt")):
        return _wider(path)
    return _folder(path, kind, size)


def _bin(path: Path, size: int) -> ImageSet:
    pairs = load_bin(path)
    return ImageSet(
        name=pairs.name,
        path=path,
        sha256=pairs.sha256,
        kind="faces",
        source=LfwImages(pairs, size),
        content=lambda index: pairs.images[index],
        groups=np.repeat(np.arange(len(pairs)), 2),
        issame=pairs.issame,
    )


def _ijb(path: Path, protocol: Literal["IJBB", "IJBC"], size: int) -> ImageSet:
    release = load_ijb(path, protocol, cache_dir=cache_dir() / "tables")
    people, groups = people_of(release, release)
    source = release.faces(size)
    return ImageSet(
        name=release.name,
        path=release.root,
        sha256=release.fingerprint,
        kind="faces",
        source=source,
        content=lambda index: source.path(index).read_bytes(),
        groups=groups,
        identities=people.names,
    )


def _wider(path: Path) -> ImageSet:
    annotations = next(path.rglob("wider_face_*_bbx_gt.txt"))
    split = "val" if "_val_" in annotations.name else "train"
    wider = load_widerface(path, split, annotations=annotations, events=_events(path, split))
    return _photographs(f"widerface:{path.resolve().name}", path, wider.images)


def _events(path: Path, split: str) -> list[str] | None:
    """Name the events whose folders are there: a calibration needs not the whole split."""
    for folder in (path / f"WIDER_{split}" / "images", path / "images"):
        if folder.is_dir():
            return sorted(event.name for event in folder.iterdir() if event.is_dir()) or None
    return None


def _photographs(name: str, path: Path, images: WiderImages) -> ImageSet:
    return ImageSet(
        name=name,
        path=path,
        sha256=sha256_json([(image, images.path(at).stat().st_size) for at, image in _all(images)]),
        kind="photographs",
        source=images,
        content=lambda index: images.path(index).read_bytes(),
        groups=np.arange(len(images)),
    )


def _all(images: WiderImages) -> Iterable[tuple[int, str]]:
    return enumerate(images.names)


def _folder(path: Path, kind: Kind, size: int) -> ImageSet:
    files = sorted(
        file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES
    )
    images = WiderImages(path, [str(file) for file in files])
    found = _photographs(f"folder:{path.resolve().name}", path, images)
    if kind == "photographs":
        return found
    people, groups = np.unique([str(file.parent) for file in files], return_inverse=True)
    each = len(people) < 2  # one folder says nothing of who is on its images
    return ImageSet(
        name=found.name,
        path=path,
        sha256=found.sha256,
        kind="faces",
        source=_Resized(images, size),
        content=found.content,
        groups=found.groups if each else groups.astype(np.int64),
        identities=None if each else tuple(f"folder {person}" for person in people),
    )


class _Resized:
    """Faces of a folder at the side that a model takes."""

    def __init__(self, images: WiderImages, size: int) -> None:
        self._images = images
        self._size = size

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return self._images.name(index)

    def path(self, index: int) -> Path:
        return self._images.path(index)

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        image, digest = self._images.load_with_digest(index)
        if image.shape[:2] != (self._size, self._size):
            resized: Any = cv2.resize(
                image, (self._size, self._size), interpolation=cv2.INTER_CUBIC
            )
            image = resized
        return image, digest
