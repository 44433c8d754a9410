"""Pictures of a few samples, cut from images that are still those that were evaluated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import EvalkitError, InputError
from evalkit.core.results import Result
from evalkit.core.store import Store
from evalkit.datasets.encoded import decode
from evalkit.datasets.errors import DatasetError, UnreadableImage
from evalkit.run.drift import store_of
from evalkit.stats.evidence import Decisions
from evalkit.tasks.panels import Gallery, Picture, Runs, Scored

Image = NDArray[np.uint8]
"""In OpenCV's channel order."""

SHOWN = 8
"""Pictures a gallery."""

_FACE_HEIGHT = 96
_SCENE_WIDTH = 260
_QUALITY = 72
_UNMOVED = 0.999
"""Where no cosine is lower, pictures of the images that moved furthest tell nothing."""


def face(image: Image, caption: str) -> Picture:
    """Make a picture of a face, or of a pair side by side."""
    return _jpeg(image, min(1.0, _FACE_HEIGHT / image.shape[0]), caption)


def scene(image: Image, caption: str) -> Picture:
    """Make a picture of a whole image."""
    return _jpeg(image, _SCENE_WIDTH / image.shape[1], caption)


def _jpeg(image: Image, scale: float, caption: str) -> Picture:
    size = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return Picture(data.tobytes(), caption)


def gallery(title: str, cut: Callable[[], Iterable[Gallery]]) -> tuple[Gallery, ...]:
    """Return what `cut` gives; a sentence where the images cannot be shown.

    Pictures are an extra: whatever is wrong with the images, the page still appears.
    """
    try:
        return tuple(cut())
    except (EvalkitError, DatasetError, OSError, ValueError, cv2.error) as error:
        return (Gallery(title, f"Not shown: {str(error).rstrip('.')}."),)


def first_run(runs: Runs) -> Scored:
    """Return the reference, else the first run.

    Raises
    ------
    evalkit.core.errors.InputError
        There is no run, or it saw a part of the data, so that its samples have other numbers.
    """
    first = runs.reference or next(iter(runs.scored), None)
    if first is None:
        raise InputError("no run has a result")
    if first.result.status == "partial":
        raise InputError("the run was a quick look at a part of the data")
    return first


class StoredSamples:
    """Files of the samples of an outputs store, each checked against the digest in the store.

    Parameters
    ----------
    result : Result
        Its store is opened.
    folder : Path
        Holds the files; no name leads out of it.

    Raises
    ------
    evalkit.core.errors.InputError
        The folder or the store is not there.
    """

    def __init__(self, result: Result, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"the images are not at {folder}")
        self._folder = folder
        self._store: Store = store_of(result)
        self._rows = {name: row for row, name in enumerate(self._store.names())}

    def load(self, name: str, suffixes: Iterable[str] = ("",)) -> Image:
        """Decode a sample.

        Raises
        ------
        evalkit.core.errors.InputError
            The file is missing, has changed or lies outside the folder.
        ValueError
            It is no image.
        """
        plain, row = PurePosixPath(name), self._rows.get(name)
        if plain.is_absolute() or ".." in plain.parts or row is None:
            raise InputError(f"{name} lies outside the data")
        paths = [self._folder / f"{plain}{suffix}" for suffix in suffixes]
        path = next((path for path in paths if path.is_file()), paths[0])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror}") from error
        start = row - row % self._store.size
        digest = self._store.read(start, outputs=False).digests[row - start].tobytes()
        if hashlib.blake2b(data, digest_size=8).digest() != digest:
            raise InputError(f"{name} has changed since it was evaluated")
        return decode(data)


def moved(runs: Runs, open_images: Callable[[Result], Callable[[str], Image]]) -> Iterator[Gallery]:
    """Yield for each run the images whose embeddings lie furthest from the reference's.

    Parameters
    ----------
    runs : Runs
    open_images : callable
        Gives, for a result, what loads an image by its name.
    """
    load: Callable[[str], Image] | None = None
    for run in runs.scored:
        if not run.moved:
            continue
        title, lowest = f"{run.named}: images that moved furthest", run.moved[0][1]
        if lowest > _UNMOVED:
            yield Gallery(title, f"None moved: the lowest cosine is {lowest:.6f}.")
            continue
        load = load or open_images(run.result)
        pictures = []
        for name, cosine in run.moved[:SHOWN]:
            try:
                pictures.append(face(load(name), f"{name}: cosine {cosine:.4f}"))
            except (UnreadableImage, ValueError, InputError):
                continue
        note = "" if pictures else "Their files have changed, or cannot be read any more."
        yield Gallery(title, note, tuple(pictures))


def worst_pairs(
    run: Scored,
    decisions: Decisions,
    wrong: Sequence[int],
    threshold: float,
    pair: Callable[[int, str], Picture | None],
) -> Gallery:
    """Return the pairs that lie furthest on the wrong side of a threshold.

    Parameters
    ----------
    run : Scored
    decisions : Decisions
    wrong : sequence of int
        All pairs decided wrongly, the furthest first.
    threshold : float
        A similarity.
    pair : callable
        See `flipped`.
    """
    pictures = []
    for row in wrong[:SHOWN]:
        outcome = "different people, accepted"
        if decisions.genuine[row]:
            outcome = "same person, refused"
        similarity = f"similarity {decisions.similarity[row]:.3f}"
        picture = pair(row, f"{decisions.label(row)}, {outcome}: {similarity}")
        pictures += [picture] if picture else []
    note = f"{len(wrong):,} of {len(decisions.genuine):,} pairs are decided wrongly at similarity "
    note += f"{threshold:.3f}; the furthest from it first."
    return Gallery(f"{run.named}: worst pairs", note, tuple(pictures))


def side_by_side(first: Image, second: Image, caption: str) -> Picture:
    """Make a picture of two images of one height."""
    gap = np.full((first.shape[0], 4, 3), 255, np.uint8)
    return face(np.hstack([first, gap, second]), caption)


def flipped(runs: Runs, pair: Callable[[int, str], Picture | None]) -> Iterator[Gallery]:
    """Yield for each run the comparisons that it decides otherwise than the reference.

    Parameters
    ----------
    runs : Runs
    pair : callable
        Makes the picture of a comparison, by its number, with a caption; None if it cannot.
    """
    before = _decided(runs.reference, runs.primary) if runs.reference else None
    for run in runs.scored if before else ():
        after = None if run.reference else _decided(run, runs.primary)
        if before is None or after is None:
            continue
        pictures = []
        for row in before.changed(after)[:SHOWN]:
            scores = " → ".join(
                f"{side.similarity[row]:.3f}" if np.isfinite(side.similarity[row]) else "failed"
                for side in (before, after)
            )
            kind = "same person" if before.genuine[row] else "different people"
            now = "accepted" if after.accepted[row] else "refused"
            picture = pair(row, f"{before.label(row)}, {kind}: {scores}, now {now}")
            pictures += [picture] if picture else []
        if pictures:
            yield Gallery(f"{run.named}: decisions that flipped", "", tuple(pictures))


def _decided(run: Scored, name: str) -> Decisions | None:
    """Return a run's decisions at the thresholds of one of its own metrics."""
    metric = next((metric for metric in run.result.metrics if metric.name == name), None)
    evidence = run.main
    return None if metric is None or evidence is None else evidence.decisions(metric, metric)
