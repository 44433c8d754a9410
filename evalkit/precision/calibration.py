"""Images to calibrate with, and others to compare with fp32, drawn by a seed.

Half of the identities calibrate, the other half is held out; where a set has no identities, its
pairs or images take their place. What was drawn is recorded by name and SHA-256.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.ijb import load_ijb
from evalkit.datasets.lfw import LfwImages, load_bin
from evalkit.datasets.pairs import SUFFIXES
from evalkit.datasets.widerface import WiderImages, load_widerface
from evalkit.errors import InputError
from evalkit.files import cache_dir, sha256_json
from evalkit.pipeline import ImageSource, Normaliser, Tensor
from evalkit.progress import Progress

Kind = Literal["faces", "photographs"]
Prepare = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

SAMPLE_SEED = 1  # other people than those of the sample that is evaluated
_SAMPLE_PAIRS = 320


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


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """What was drawn.

    Attributes
    ----------
    calibration, held_out : ndarray of int64
        Rows of the set; the latter ascending.
    record : dict
        JSON values: names and hashes of all of them, and warnings.
    warnings : tuple of str
    """

    calibration: NDArray[np.int64]
    held_out: NDArray[np.int64]
    record: dict[str, Any]
    warnings: tuple[str, ...]


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
    evalkit.errors.InputError, evalkit.datasets.errors.DatasetError
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
    from evalkit.datasets.sample import sample_path  # noqa: PLC0415 - heavy

    progress.say("no --calibration: taking the embedded sample, which suits its own models")
    with progress.counting("rendering the sample", "images") as report:
        if kind == "faces":
            return sample_path(
                "lfw", cache_dir(), size=_SAMPLE_PAIRS, seed=SAMPLE_SEED, progress=report
            )
        return sample_path("widerface", cache_dir(), seed=SAMPLE_SEED, progress=report)


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
    subjects = release.subjects()
    ids, groups = np.unique(subjects.subject_of(release.template_id), return_inverse=True)
    source = release.faces(size)
    named = release.galleries is not None and release.probes is not None
    kind = f"{protocol} subject" if named else f"{release.name} {release.fingerprint[:8]} subject"
    return ImageSet(
        name=release.name,
        path=release.root,
        sha256=release.fingerprint,
        kind="faces",
        source=source,
        content=lambda index: source.path(index).read_bytes(),
        groups=groups.astype(np.int64),
        identities=tuple(f"{kind} {number}" for number in ids),
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


def draw(
    images: ImageSet,
    *,
    samples: int,
    held_out: int,
    seed: int,
    evaluated: ImageSet | None,
    progress: Progress,
) -> Drawn:
    """Draw images to calibrate with and others to compare with.

    Parameters
    ----------
    images : ImageSet
    samples, held_out : int
        At most so many of each.
    seed : int
        0 or more; the same set and seed give the same images.
    evaluated : ImageSet or None
        What the model will be judged on: its identities and its images are not drawn.
    progress : Progress

    Raises
    ------
    evalkit.errors.InputError
        Too few images are left.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(int(images.groups.max()) + 1)
    barred, warnings = _barred(images, evaluated, progress)
    names = images.identities
    allowed = [g for g in order.tolist() if names is None or names[g] not in barred]
    first, second = allowed[: (len(allowed) + 1) // 2], allowed[(len(allowed) + 1) // 2 :]
    chosen = _take(images, random.permutation(_rows(images, first)), samples, barred)
    # Whole pairs are held out, so that they can be verified.
    pairs = (2 * np.array(second, np.int64)[:, None] + (0, 1)).ravel()
    rest = random.permutation(_rows(images, second)) if images.issame is None else pairs
    other = _take(images, rest, held_out, barred)
    if not chosen or not other:
        raise InputError(
            f"{images.path} leaves {len(chosen)} images to calibrate with and {len(other)} to "
            "compare with. At least one of each is needed: name a larger data set, or another "
            "--evaluated."
        )
    if len(chosen) < samples:
        warnings += (f"Only {len(chosen)} images to calibrate with, not {samples}.",)
    record = {
        "data": images.name,
        "path": str(images.path.absolute()),
        "data_sha256": images.sha256,
        "evaluated_sha256": None if evaluated is None else evaluated.sha256,
        "seed": seed,
        **_listed(images, chosen),
        "identities": _identities(images, chosen),
        "held_out": _listed(images, other),
        "warnings": list(warnings),
    }
    return Drawn(np.array(list(chosen)), np.sort(list(other)), record, warnings)


def _rows(images: ImageSet, groups: Sequence[int]) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(images.groups, groups))


def _barred(
    images: ImageSet, evaluated: ImageSet | None, progress: Progress
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Name the identities, and hash the images, that must not be drawn."""
    if evaluated is None:
        return frozenset(), ()
    if evaluated.sha256 == images.sha256:
        return frozenset(), (
            f"{images.path} is both calibrated with and evaluated: figures on it flatter the "
            "model. Calibrate with other people.",
        )
    hashes = set()
    count = len(evaluated.source)
    with progress.stage("hashing the evaluated images", count, "images") as advance:
        for index in range(count):
            hashes.add(_sha256(evaluated, index))
            advance(1)
    barred = frozenset(hashes) | frozenset(evaluated.identities or ())
    nameless = [s.name for s in (images, evaluated) if s.identities is None and s.kind == "faces"]
    if not nameless:
        return barred, ()
    return barred, (
        f"{' and '.join(nameless)} do not say who is on their images: none that is evaluated was "
        "drawn, but other images of the same people may have been.",
    )


def _take(
    images: ImageSet, rows: NDArray[np.int64], count: int, barred: frozenset[str]
) -> dict[int, str]:
    """Take the first rows that are not barred, with their hashes."""
    taken: dict[int, str] = {}
    for row in rows.tolist():
        if len(taken) == count:
            break
        sha256 = _sha256(images, row)
        if sha256 not in barred:
            taken[row] = sha256
    return taken


def _sha256(images: ImageSet, index: int) -> str:
    try:
        return hashlib.sha256(images.content(index)).hexdigest()
    except OSError as error:
        raise InputError(
            f"{images.source.name(index)} of {images.path} cannot be read: {error.strerror}. "
            "Mend the data set."
        ) from error


def _listed(images: ImageSet, rows: dict[int, str]) -> dict[str, Any]:
    return {
        "count": len(rows),
        "sha256": sha256_json(list(rows.values())),
        "images": [[images.source.name(row), sha256] for row, sha256 in rows.items()],
    }


def _identities(images: ImageSet, rows: dict[int, str]) -> list[str] | None:
    if images.identities is None:
        return None
    return [images.identities[group] for group in np.unique(images.groups[list(rows)]).tolist()]


class ImageBatches:
    """Some images of a set as `evalkit.precision.base.Batches`.

    Parameters
    ----------
    images : ImageSet
    rows : ndarray of int64
    normalise : Normaliser
        That of the evaluation.
    prepare : callable
        Brings an image to `size`.
    size : tuple of int
        Height and width.
    batch : int
        Rows of a batch.
    full : bool
        Whether the last batch is filled up with the first images.
    """

    def __init__(
        self,
        images: ImageSet,
        rows: NDArray[np.int64],
        normalise: Normaliser,
        prepare: Prepare,
        size: tuple[int, int],
        *,
        batch: int,
        full: bool,
    ) -> None:
        self.images = images
        self.rows = rows
        self.batch = batch
        self.full = full
        self._normalise = normalise
        self._prepare = prepare
        self._size = size

    def __len__(self) -> int:
        """Count the batches."""
        return math.ceil(len(self.rows) / self.batch)

    def __iter__(self) -> Iterator[Tensor]:
        """Give the batches; images that do not decode raise, and name themselves."""
        for first in range(0, len(self.rows), self.batch):
            rows = self.rows[first : first + self.batch]
            if self.full and len(rows) < self.batch:
                rows = np.concatenate([rows, np.resize(self.rows, self.batch - len(rows))])
            yield self._batch(rows)

    def _batch(self, rows: NDArray[np.int64]) -> Tensor:
        tensor = self._normalise.empty(len(rows), self._size)
        for row, out in zip(rows.tolist(), tensor, strict=True):
            image, _ = self.images.source.load_with_digest(row)
            self._normalise(self._prepare(image), out)
        if not np.isfinite(tensor).all():
            raise InputError(
                f"A calibration batch of {self.images.path} has NaN or infinite values after "
                "(pixel - mean) / std. Correct --mean and --std."
            )
        return tensor
