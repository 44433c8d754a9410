"""Outputs of a device in place of a session.

The hash of an input names its output. The evaluation decodes and prepares the images as always, and
takes an output only for the very tensor that was dumped. Other data, or another preparation, give
inputs that the manifest does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import evalkit
from evalkit.backends.base import Ran, Session, SessionOptions, Speed, TensorInfo
from evalkit.backends.outputs.manifest import Dump, Entry, Manifest, tensor_hash
from evalkit.backends.outputs.reading import OutputFolder, OutputMatrix, Outputs
from evalkit.backends.outputs.runtime_info import RuntimeInfo
from evalkit.core.errors import InputError

_REMEMBERED = 64


class OutputsSession(Session):
    """The outputs of a dump's inputs; see `Session`.

    Parameters
    ----------
    backend : str
        Its name, for the record.
    folder : Path
        Of the outputs, or one file.
    dump : Dump
    info : RuntimeInfo
    throughput : float or None
        Images a second, from the device's log.
    options : SessionOptions
    """

    def __init__(
        self,
        backend: str,
        folder: Path,
        dump: Dump,
        info: RuntimeInfo,
        throughput: float | None,
        options: SessionOptions,
    ) -> None:
        self.dump = dump
        self._reader = _reader(folder, dump, info)
        self._places: dict[str, tuple[Entry, int]] = {}
        for entry in dump.entries:
            for row, item in enumerate(entry.items):
                self._places.setdefault(item.hash, (entry, row))
        self._recent: dict[str, Outputs] = {}
        self.inputs = (_input(dump.manifest, dump.entries),)
        first = self.read(dump.entries[0])
        self.outputs = tuple(_output(name, value, dump.manifest) for name, value in first.items())
        self.speed = Speed(info.batch_size, throughput)
        self.ran = Ran(
            backend=backend,
            version=evalkit.__version__,
            device=info.device,
            precision_requested=options.precision,
            precision_ran=info.precision_ran,
            threads=info.threads,
            details={
                "runtime": info.runtime,
                "runtime_version": info.version,
                "batch_size": info.batch_size,
                "throughput": throughput,
                "dump_format": dump.manifest.format,
            },
            notes=(info.notes,) if info.notes else (),
        )

    def add_notes(self, notes: Sequence[str]) -> None:
        """Add sentences to the record of what ran."""
        self.ran = replace(self.ran, notes=(*self.ran.notes, *notes))

    def read(self, entry: Entry) -> Outputs:
        """Return the outputs of a file of inputs."""
        return self._reader.read(entry)

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        manifest = self.dump.manifest
        if batch.dtype != np.dtype(manifest.dtype):
            raise InputError(
                f"{self.dump.folder}: the dump's inputs are {manifest.dtype}, but the evaluation "
                f"prepares {batch.dtype}."
            )
        rows = [self._output(row) for row in batch]
        if manifest.task == "detection":
            (only,) = rows
            return {name: value.copy() for name, value in only.items()}
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def _output(self, tensor: NDArray[Any]) -> Outputs:
        place = self._places.get(tensor_hash(tensor))
        if place is None and not tensor.any():
            # Zeros stand for an image that could not be read: nobody uses their output.
            return {info.name: _nothing(info) for info in self.outputs}
        if place is None:
            raise InputError(
                f"{self.dump.folder} has no such input: the data or their preparation differ "
                "from those of the dump. Name the same --data, model YAML and options as for "
                f"'evalkit dump'.{_difference(self.dump.manifest)}"
            )
        entry, row = place
        outputs = self._read_again(entry)
        if self.dump.manifest.task == "detection":
            return outputs
        return {name: value[row : row + 1] for name, value in outputs.items()}

    def _read_again(self, entry: Entry) -> Outputs:
        """Read a file's outputs, or take them from the last files that were read."""
        if entry.file not in self._recent:
            if len(self._recent) >= _REMEMBERED:
                self._recent.pop(next(iter(self._recent)))
            self._recent[entry.file] = self.read(entry)
        return self._recent[entry.file]


def _difference(manifest: Manifest) -> str:
    """Return why an input may not be in the dump."""
    if manifest.opencv != cv2.__version__:
        return (
            f" The dump was decoded by OpenCV {manifest.opencv}, this is {cv2.__version__}: dump "
            "with this version."
        )
    if manifest.preprocessing.get("flip") is False:
        return " The dump has no mirrored faces (--no-flip), but this evaluation takes them."
    return ""


def _nothing(info: TensorInfo) -> NDArray[np.float32]:
    shape = tuple(size if isinstance(size, int) else 1 for size in info.shape)
    return np.full(shape, np.nan, np.float32)


def _reader(folder: Path, dump: Dump, info: RuntimeInfo) -> OutputFolder | OutputMatrix:
    if not dump.entries:
        raise InputError("The manifest lists no input. Dump again.")
    if folder.is_dir():
        return OutputFolder(folder, dump.entries, info, dump.manifest)
    if dump.manifest.task == "detection":
        raise InputError(f"{folder} is one file; a detector's outputs are a folder of files.")
    return OutputMatrix(folder, dump.entries)


def _input(manifest: Manifest, entries: Sequence[Entry]) -> TensorInfo:
    shapes = {item.shape for entry in entries for item in entry.items}
    sizes: tuple[int | None, ...] = next(iter(shapes))
    if len(shapes) > 1:
        sizes = tuple(
            size if len({shape[axis] for shape in shapes}) == 1 else None
            for axis, size in enumerate(sizes)
        )
    batch = 1 if manifest.task == "detection" else "n"
    return TensorInfo("input0", manifest.dtype, (batch, *sizes))


def _output(name: str, value: NDArray[np.float32], manifest: Manifest) -> TensorInfo:
    if manifest.task == "detection":
        return TensorInfo(name, "float32", tuple(value.shape))
    return TensorInfo(name, "float32", ("n", *value.shape[1:]))
