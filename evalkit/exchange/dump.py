"""Writing the exact inputs of a model, for a device that evalkit cannot run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.backends.outputs.manifest import (
    HEADER,
    INCOMPLETE,
    INPUTS,
    Entry,
    Item,
    Manifest,
    Written,
    append,
    read_header,
    read_manifest,
    resume,
    tensor_hash,
    write_header,
)
from evalkit.core.errors import USER_ERRNOS, InputError
from evalkit.core.files import atomic_write
from evalkit.core.machine import available_cores
from evalkit.core.progress import Progress
from evalkit.run.pipeline import (
    ImageSource,
    Normaliser,
    batches_ahead,
    one_opencv_thread,
    read_images,
)

_TASK = 32
_SUFFIX = {"bin": ".bin", "npy": ".npy", "image": ".png", "npz": ".npz"}

Image = NDArray[np.uint8]
Views = Callable[[Image], list[tuple[str, Image]]]
"""Gives the images that a model is fed for one of the data set, by the name of the view."""


@dataclass(frozen=True, slots=True, eq=False)
class Dumped:
    """What a dump wrote: files, and the images that could not be read."""

    folder: Path
    files: int
    inputs: int
    failures: int


def plain_and_flipped(image: Image) -> list[tuple[str, Image]]:
    """Return an aligned face and its mirror image."""
    mirrored: Image = np.ascontiguousarray(image[:, ::-1])
    return [("plain", image), ("flip", mirrored)]


def plain(image: Image) -> list[tuple[str, Image]]:
    """Return an aligned face alone."""
    return [("plain", image)]


def dump(
    folder: Path,
    manifest: Manifest,
    source: ImageSource,
    views: Views,
    normalise: Normaliser,
    progress: Progress,
    *,
    threads: int | None = None,
) -> Dumped:
    """Write the inputs of every image; an interrupted dump resumes.

    Parameters
    ----------
    folder : Path
        Made if missing. Its folder ``inputs`` holds the inputs alone.
    manifest : Manifest
    source : ImageSource
    views : callable
    normalise : Normaliser
    progress : Progress
    threads : int, optional
        That decode; the number of cores if not given.

    Raises
    ------
    evalkit.core.errors.InputError
        The folder holds another dump, or cannot be written.
    """
    try:
        done = _begin(folder, manifest)
        tasks = [
            range(first, min(first + _task(manifest), len(source)))
            for first in range(done, len(source), _task(manifest))
        ]
        if done:
            progress.say(f"resuming: {done:,} of {len(source):,} images are in {folder}")
        writer = _Writer(folder / INPUTS, manifest, source, views, normalise)
        with (
            progress.stage("dump", len(source), "images", done=done) as advance,
            one_opencv_thread(),
            closing(batches_ahead(tasks, writer, threads or available_cores())) as batches,
        ):
            for task, written in batches:
                append(folder, written)
                advance(len(task))
        return _finish(folder, manifest)
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        raise InputError(
            f"Cannot write {folder}: {error.strerror}. Free some space or choose another folder, "
            "then run the same command again."
        ) from error


def _task(manifest: Manifest) -> int:
    """Return images a task: whole files."""
    return manifest.batch * max(1, _TASK // manifest.batch)


def _begin(folder: Path, manifest: Manifest) -> int:
    """Return how many images are done already."""
    for name in (HEADER, INCOMPLETE):
        if (folder / name).is_file():
            before = read_header(folder / name)
            if before != manifest:
                differ = [
                    field
                    for field in Manifest.model_fields
                    if getattr(before, field) != getattr(manifest, field)
                ]
                raise InputError(
                    f"{folder} holds another dump: {', '.join(differ)} "
                    f"{'differs' if len(differ) == 1 else 'differ'}. Give --out another folder."
                )
            return resume(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no dump. Give --out another folder.")
    (folder / INPUTS).mkdir(parents=True, exist_ok=True)
    write_header(folder, manifest, complete=False)
    return 0


class _Writer:
    """Writes the files of some images; called from several threads."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        source: ImageSource,
        views: Views,
        normalise: Normaliser,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.source = source
        self.views = views
        self.normalise = normalise

    def __call__(self, task: range) -> Written:
        images, notes = read_images(self.source, task)
        entries: list[Entry] = []
        for first in range(0, len(task), self.manifest.batch):
            places = range(first, min(first + self.manifest.batch, len(task)))
            seen = [(task[place], images[place]) for place in places if place in images]
            entries += self._files(task[first], seen)
        failures = tuple(notes.failures[place] for place in sorted(notes.failures))
        return Written(task.stop, tuple(entries), failures)

    def _files(self, first: int, images: Sequence[tuple[int, Image]]) -> Iterator[Entry]:
        """Write a file for each view of the images."""
        seen = [(sample, self.views(image)) for sample, image in images]
        for view in range(max((len(views) for _, views in seen), default=0)):
            rows = [(sample, *views[view]) for sample, views in seen]
            stem = f"{first // self.manifest.batch:08d}"
            name = rows[0][1]
            stem += "" if name == "plain" else f"_{name}"
            yield self._write(f"{stem}{_SUFFIX[self.manifest.format]}", rows)

    def _write(self, file: str, rows: Sequence[tuple[int, str, Image]]) -> Entry:
        size = rows[0][2].shape[:2]
        tensor = self.normalise.empty(self.manifest.batch, (size[0], size[1]))
        items = []
        for place, (sample, view, image) in enumerate(rows):
            self.normalise(image, tensor[place])
            items.append(
                Item(
                    sample,
                    self.source.name(sample),
                    view,
                    tuple(tensor.shape[1:]),
                    tensor_hash(tensor[place]),
                )
            )
        _write_input(self.folder / file, tensor, rows[0][2])
        return Entry(file, tuple(items))


def _write_input(path: Path, tensor: NDArray[Any], image: Image) -> None:
    if path.suffix == ".bin":
        tensor.tofile(path)
    elif path.suffix == ".npy":
        np.save(path, tensor, allow_pickle=False)
    elif path.suffix == ".npz":
        np.savez(path, inputs=tensor)
    else:
        done, encoded = cv2.imencode(".png", image[..., ::-1])
        if not done:
            raise InputError(f"OpenCV cannot encode {path}: an image of shape {image.shape}.")
        path.write_bytes(encoded.tobytes())


def _finish(folder: Path, manifest: Manifest) -> Dumped:
    """Write what goes beside the inputs, then the header that says that all is there."""
    if not (folder / HEADER).is_file():
        write_header(folder, manifest, complete=True)
    _, written = read_manifest(folder)
    entries = [entry for part in written for entry in part.entries]
    with atomic_write(folder / "file_list.txt") as file:
        file.writelines(f"{INPUTS}/{entry.file}\n".encode() for entry in entries)
    with atomic_write(folder / "inputs.info") as file:
        file.writelines(_info_line(number, entry, manifest) for number, entry in enumerate(entries))
    return Dumped(
        folder,
        len(entries),
        sum(len(entry.items) for entry in entries),
        sum(len(part.failures) for part in written),
    )


def _info_line(number: int, entry: Entry, manifest: Manifest) -> bytes:
    """Return a line of the list that Ascend's tools take: number, file, width, height."""
    shape = entry.items[0].shape
    height, width = shape[1:] if manifest.layout == "nchw" else shape[:2]
    return f"{number} ./{INPUTS}/{entry.file} {width} {height}\n".encode()
