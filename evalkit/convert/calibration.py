"""Images for calibration, and others for the comparison with fp32, drawn by a seed.

Half of the identities calibrate, the other half is held out. A set without identities is divided by
its pairs or images. The record lists the drawn images by name and SHA-256.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.convert.image_sets import ImageSet
from evalkit.core.errors import InputError
from evalkit.core.files import sha256_json
from evalkit.core.progress import Progress
from evalkit.core.sidecar import DIGEST_BYTES
from evalkit.run.pipeline import Normaliser, Tensor

Prepare = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The drawn images.

    Attributes
    ----------
    calibration, held_out : ndarray of int64
        Rows of the set; the latter ascending.
    record : dict
        JSON values: names and hashes of all images, and warnings.
    warnings : tuple of str
    """

    calibration: NDArray[np.int64]
    held_out: NDArray[np.int64]
    record: dict[str, Any]
    warnings: tuple[str, ...]


def draw(
    images: ImageSet,
    *,
    samples: int,
    held_out: int,
    seed: int,
    evaluated: ImageSet | None,
    progress: Progress,
) -> Drawn:
    """Draw images for calibration and others for the comparison.

    Parameters
    ----------
    images : ImageSet
    samples, held_out : int
        The largest number of each.
    seed : int
        0 or more; the same set and seed give the same images.
    evaluated : ImageSet or None
        The data that the model will be evaluated on: its identities and images are not drawn.
    progress : Progress

    Raises
    ------
    evalkit.core.errors.InputError
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
            "compare with. At least one of each is needed. Give a larger data set, or another "
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
        "digests": [_digest(images, row) for row in chosen],
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
    """Return the identities and the hashes of images that must not be drawn, and warnings.

    The fingerprint of a dump holds the warnings: other words would make it another dump.
    """
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
    """Take the first rows that are allowed, with their hashes."""
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
            "Repair the data set."
        ) from error


def _listed(images: ImageSet, rows: dict[int, str]) -> dict[str, Any]:
    return {
        "count": len(rows),
        "sha256": sha256_json(list(rows.values())),
        "images": [[images.source.name(row), sha256] for row, sha256 in rows.items()],
    }


def _digest(images: ImageSet, row: int) -> str:
    """Hash an image as output stores do, so that an evaluation compares without reading it."""
    return hashlib.blake2b(images.content(row), digest_size=DIGEST_BYTES).hexdigest()


def _identities(images: ImageSet, rows: dict[int, str]) -> list[str] | None:
    if images.identities is None:
        return None
    return [images.identities[group] for group in np.unique(images.groups[list(rows)]).tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatches:
    """Some images of a set as `evalkit.convert.base.Batches`.

    Attributes
    ----------
    images : ImageSet
    rows : ndarray of int64
    normalise : Normaliser
        That of the evaluation.
    prepare : callable
        Resizes an image to `size`.
    size : tuple of int
        Height and width.
    batch : int
        Rows of a batch.
    full : bool
        Whether the last batch is padded with the first images.
    """

    images: ImageSet
    rows: NDArray[np.int64]
    normalise: Normaliser
    prepare: Prepare
    size: tuple[int, int]
    batch: int
    full: bool

    def __len__(self) -> int:
        """Count the batches."""
        return math.ceil(len(self.rows) / self.batch)

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the batches; an image that does not decode raises an error with its name."""
        for first in range(0, len(self.rows), self.batch):
            rows = self.rows[first : first + self.batch]
            if self.full and len(rows) < self.batch:
                rows = np.concatenate([rows, np.resize(self.rows, self.batch - len(rows))])
            yield self._batch(rows)

    def _batch(self, rows: NDArray[np.int64]) -> Tensor:
        tensor = self.normalise.empty(len(rows), self.size)
        for row, out in zip(rows.tolist(), tensor, strict=True):
            image, _ = self.images.source.load_with_digest(row)
            self.normalise(self.prepare(image), out)
        if not np.isfinite(tensor).all():
            raise InputError(
                f"A calibration batch of {self.images.path} has NaN or infinite values after "
                "(pixel - mean) / std. Correct --mean and --std."
            )
        return tensor
