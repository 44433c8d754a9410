"""The images of a data set, to draw calibration images from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.core.files import sha256_json
from evalkit.core.progress import Progress
from evalkit.datasets.pairs import SUFFIXES
from evalkit.datasets.sample import Content, calibration_path
from evalkit.datasets.widerface import WiderImages
from evalkit.run.pipeline import ImageSource
from evalkit.tasks import task_of
from evalkit.tasks.base import Samples, first

Kind = Content


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """The images of a data set, and their groups.

    Attributes
    ----------
    name, path, sha256 : str, Path, str
        Of the data set.
    kind : str
        ``faces`` that are aligned, or whole ``photographs``.
    source : ImageSource
    content : callable
        Returns the encoded bytes of an image.
    groups : ndarray of int64, shape (n,)
        Images of one group are never divided between calibration and comparison.
    identities : tuple of str, or None
        The name of each group, if the data have it; comparable between data sets of one kind.
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


@contextmanager
def load_images(path: Path | None, kind: Kind, size: int, progress: Progress) -> Iterator[ImageSet]:
    """List the images of a data set; they can be read inside the ``with``.

    Parameters
    ----------
    path : Path or None
        An IJB release, a ``.bin``, a WIDER FACE folder or any folder of images. None is evalkit's
        sample for calibration, which shows other people than the evaluated sample.
    kind : str
        The kind that the model takes.
    size : int
        Side of an aligned face.
    progress : Progress

    Raises
    ------
    evalkit.core.errors.InputError, evalkit.datasets.errors.DatasetError
        There is no image, or the images are not of this kind.
    """
    if path is None:
        progress.say("no --calibration: using the embedded sample, which suits its own models")
        path = calibration_path(kind)
    with _find(path, kind, size, progress) as images:
        _check(images, kind)
        yield images


def _check(images: ImageSet, kind: Kind) -> None:
    if not len(images.source):
        raise InputError(f"{images.path} holds no image to calibrate with. Give another folder.")
    if images.kind != kind:
        raise InputError(
            f"{images.path} holds {images.kind}, but the model takes {kind}. A recognition model "
            "is calibrated with aligned faces (a .bin, an IJB release, a folder of them), a "
            "detector with photographs (WIDER FACE, a folder of them)."
        )


@contextmanager
def _find(path: Path, kind: Kind, size: int, progress: Progress) -> Iterator[ImageSet]:
    task = task_of(path)
    if task is not None:
        holds: Kind = "faces" if task.head == "embedding" else "photographs"
        with first(task.listing(path, progress)) as samples:
            yield _listed(samples, holds, size)
    elif path.is_dir():
        yield _folder(path, kind, size)
    else:
        raise InputError(f"There is no calibration data {path}. Check the path.")


def _listed(samples: Samples, kind: Kind, size: int) -> ImageSet:
    if samples.source is None:
        raise InputError(f"{samples.root} holds no images. Give another --calibration.")
    source = samples.source(size)
    groups = np.arange(len(source)) if samples.groups is None else samples.groups
    return ImageSet(
        name=samples.dataset.name,
        path=Path(samples.dataset.path),
        sha256=samples.dataset.sha256,
        kind=kind,
        source=source,
        content=samples.content or (lambda index: _file(source, index).read_bytes()),
        groups=groups,
        identities=samples.people.names if samples.people else None,
        issame=samples.genuine,
    )


def _file(source: ImageSource, index: int) -> Path:
    path = source.path(index)
    if path is None:
        raise InputError(
            f"{source.name(index)} is no file, so it cannot be used for calibration. Give another "
            "--calibration."
        )
    return path


def _folder(path: Path, kind: Kind, size: int) -> ImageSet:
    files = sorted(
        file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES
    )
    images = WiderImages(path, [str(file) for file in files])
    people, groups = np.unique([str(file.parent) for file in files], return_inverse=True)
    # One folder does not name the people on its images, nor do folders of whole photographs.
    is_named = kind == "faces" and len(people) > 1
    sizes = [(name, images.path(at).stat().st_size) for at, name in enumerate(images.names)]
    return ImageSet(
        name=f"folder:{path.resolve().name}",
        path=path,
        sha256=sha256_json(sizes),
        kind=kind,
        source=_Resized(images, size) if kind == "faces" else images,
        content=lambda index: images.path(index).read_bytes(),
        groups=groups.astype(np.int64) if is_named else np.arange(len(images)),
        identities=tuple(f"folder {person}" for person in people) if is_named else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Resized:
    """Faces of a folder, resized to the side that a model takes."""

    images: WiderImages
    size: int

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return self.images.name(index)

    def path(self, index: int) -> Path:
        return self.images.path(index)

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        image, digest = self.images.load_with_digest(index)
        side = (self.size, self.size)
        if image.shape[:2] != side:
            resized: Any = cv2.resize(image, side, interpolation=cv2.INTER_CUBIC)
            image = resized
        return image, digest
