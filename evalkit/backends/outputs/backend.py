"""The backend ``outputs``: what a device wrote for the inputs of a dump, as if it ran here.

An input is known by its hash: the evaluation decodes and prepares the images as it always does, and
an output is taken only for the very tensor that was dumped. Other data, or another preparation
than that of the dump, give inputs that the manifest does not have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

import evalkit
from evalkit.backends.base import (
    PRECISIONS,
    Backend,
    Probe,
    Ran,
    Session,
    SessionOptions,
    Speed,
    TensorInfo,
)
from evalkit.backends.outputs.checks import MOST, Halves, disagreement
from evalkit.backends.outputs.manifest import (
    Entry,
    Item,
    Manifest,
    Task,
    read_manifest,
    tensor_hash,
)
from evalkit.backends.outputs.reading import OutputFolder, OutputMatrix, Outputs
from evalkit.backends.outputs.runtime_info import RuntimeInfo, read_runtime_info, read_throughput
from evalkit.core.errors import InputError
from evalkit.run.verify import Reference, Verified, verify

NAME = "outputs"
_REMEMBERED = 64
_DOUBT = 0.2
"""Share of images whose two halves differ, above which it is no matter of a few files."""
_SAME = 0.1
"""Largest distance, by length, of two outputs of the very same input."""
_FEW = 32
"""Outputs compared with the model's own, where mirror images tell the rest."""
Verify = int | Literal["all"] | None
"""How many outputs to compare with the model run here; None compares what nothing else checks."""


class OutputsBackend(Backend):
    """Outputs that were computed elsewhere."""

    name: ClassVar[str] = NAME
    manifest: ClassVar[Path | None] = None
    runtime_info: ClassVar[Path | None] = None
    throughput_log: ClassVar[Path | None] = None
    reference: ClassVar[Reference | None] = None
    verify: ClassVar[Verify] = None
    task: ClassVar[Task | None] = None

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`: reading files works everywhere."""
        return Probe(True, evalkit.__version__, ("elsewhere",), PRECISIONS)

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`; the model is the folder of outputs, or one file of them all."""
        if not model.exists():
            raise InputError(f"There are no outputs {model}. Name what the device wrote.")
        info = read_runtime_info(cls.runtime_info, options.precision)
        rate = None if cls.throughput_log is None else read_throughput(cls.throughput_log)
        session = OutputsSession(model, _manifest_folder(cls.manifest, model), info, rate, options)
        if cls.task not in {None, session.manifest.task}:
            raise InputError(
                f"{session.dump} is a dump of {session.manifest.protocol}, for {cls.task} another "
                "is needed. Name the right one with --manifest."
            )
        session.examine(cls.reference, cls.verify)
        return session


def outputs_backend(
    *,
    manifest: Path | None,
    runtime_info: Path | None = None,
    throughput_log: Path | None = None,
    reference: Reference | None = None,
    verify: Verify = None,
    task: Task | None = None,
) -> type[OutputsBackend]:
    """Return the backend with a run's own files.

    Parameters
    ----------
    manifest : Path or None
        The dump's folder, or its manifest.
    runtime_info, throughput_log : Path or None
    reference : callable, optional
        Opens the model here, where it can be.
    verify : int, "all" or None
        Inputs to run by `reference` too.
    task : str or None
        What the evaluation is of; a dump for another is refused.
    """
    given = {
        "manifest": manifest,
        "runtime_info": runtime_info,
        "throughput_log": throughput_log,
        "reference": None if reference is None else staticmethod(reference),
        "verify": verify,
        "task": task,
    }
    return type("OutputsBackend", (OutputsBackend,), given)


class OutputsSession(Session):
    """The outputs of a dump's inputs; see `Session`.

    Parameters
    ----------
    folder : Path
        Of the outputs, or one file.
    dump : Path
        The folder of the manifest.
    info : RuntimeInfo
    throughput : float or None
        Images a second, from the device's log.
    options : SessionOptions
    """

    def __init__(
        self,
        folder: Path,
        dump: Path,
        info: RuntimeInfo,
        throughput: float | None,
        options: SessionOptions,
    ) -> None:
        self.folder = folder
        self.dump = dump
        self.manifest, written = read_manifest(dump)
        entries = [entry for part in written for entry in part.entries]
        self._reader = _reader(folder, entries, info, self.manifest)
        self._places: dict[str, tuple[Entry, int]] = {}
        for entry in entries:
            for row, item in enumerate(entry.items):
                self._places.setdefault(item.hash, (entry, row))
        self._entries = entries
        self._held: dict[str, Outputs] = {}
        self.inputs = (_input(self.manifest, entries),)
        first = self._reader.read(entries[0])
        self.outputs = tuple(_output(name, value, self.manifest) for name, value in first.items())
        self.speed = Speed(info.batch_size, throughput)
        self.ran = Ran(
            backend=NAME,
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
                "dump_format": self.manifest.format,
            },
            notes=(info.notes,) if info.notes else (),
        )

    def examine(self, reference: Reference | None, most: Verify) -> None:
        """Read all outputs, and look for those of other inputs; what was found goes to `ran`.

        Parameters
        ----------
        reference : callable or None
            Opens the model here.
        most : int, "all" or None
            Outputs to compare with what it gives; see `Verify`.

        Raises
        ------
        evalkit.core.errors.InputError
            A file is damaged, an output is another input's or another model's; or a comparison was
            asked for that cannot be made.
        """
        found = self._verified(reference, most)
        self._check()
        if found.moved:
            first, whose = found.moved[0]
            more = len(found.moved) - 1
            raise InputError(
                f"{self.folder}: the output of {first} is that of {whose}"
                f"{f' (and {more} more are misplaced)' if more else ''}, as the model gives "
                "them here. Copy them again, under the names of their inputs."
            )
        self._tell(found.note)

    def _verified(self, reference: Reference | None, most: Verify) -> Verified:
        count = self._count(most)
        note = "The outputs were not compared with the model's own here"
        if count == 0:
            return Verified(0, (), f"{note}.")
        if reference is None:
            found = Verified(0, (), f"{note}: no backend here has a file of it.")
        else:
            read = self._reader.read
            found = verify(reference, self._entries, read, self.dump, self.manifest, count)
        if not found.compared and most is not None:
            raise InputError(f"--verify {most}: {found.note} Leave --verify out to go on without.")
        return found

    def _count(self, most: Verify) -> int:
        """Return how many outputs to compare: all of a detector, which has no mirror images."""
        inputs = sum(len(entry.items) for entry in self._entries)
        if most == "all" or (most is None and self.manifest.task == "detection"):
            return inputs
        return min(inputs, _FEW if most is None else most)

    def _tell(self, note: str) -> None:
        self.ran = replace(self.ran, notes=(*self.ran.notes, note))

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        if batch.dtype != np.dtype(self.manifest.dtype):
            raise InputError(
                f"{self.dump}: the dump's inputs are {self.manifest.dtype}, given {batch.dtype}."
            )
        found = [self._output(row) for row in batch]
        if self.manifest.task == "detection":
            (only,) = found
            return {name: value.copy() for name, value in only.items()}
        return {name: np.concatenate([row[name] for row in found]) for name in found[0]}

    def _output(self, tensor: NDArray[Any]) -> Outputs:
        place = self._places.get(tensor_hash(tensor))
        if place is None and not tensor.any():
            # The room of an image that could not be read: what stands there is not used.
            return {info.name: self._nothing(info) for info in self.outputs}
        if place is None:
            raise InputError(
                f"{self.dump} has no such input: these data or this preparation are not those of "
                "the dump. Name the same --data, model YAML and options as 'evalkit dump' had."
                + self._difference()
            )
        entry, row = place
        outputs = self._read(entry)
        if self.manifest.task == "detection":
            return outputs
        return {name: value[row : row + 1] for name, value in outputs.items()}

    def _difference(self) -> str:
        """Return what may be why an input is not in the dump."""
        if self.manifest.opencv != cv2.__version__:
            return (
                f" The dump was decoded by OpenCV {self.manifest.opencv}, this is "
                f"{cv2.__version__}: dump with this version."
            )
        if self.manifest.preprocessing.get("flip") is False:
            return " The dump has no mirrored faces (--no-flip), but this evaluation takes them."
        return ""

    def _read(self, entry: Entry) -> Outputs:
        if entry.file not in self._held:
            if len(self._held) >= _REMEMBERED:
                self._held.pop(next(iter(self._held)))
            self._held[entry.file] = self._reader.read(entry)
        return self._held[entry.file]

    def _nothing(self, info: TensorInfo) -> NDArray[np.float32]:
        shape = tuple(size if isinstance(size, int) else 1 for size in info.shape)
        return np.full(shape, np.nan, np.float32)

    def _check(self) -> None:
        """Read everything once, so that what is wrong is told before anything is stored."""
        if self.manifest.task == "detection":
            for entry in self._entries:
                self._reader.read(entry)
            return
        found = disagreement(self._halves(self._entries))
        if not found.images:
            self._tell("Without mirror images, an exchange of two outputs goes unnoticed.")
        elif found.doubtful > _DOUBT * found.images:
            self._tell(
                f"Of {found.images:,} images, {found.doubtful:,} have an output unlike that of "
                "their mirror image: the outputs are misordered, or the model is broken."
            )
        elif found.exchanged:
            first, second = found.exchanged[0]
            more = len(found.exchanged) - 1
            raise InputError(
                f"{self.folder}: the outputs of {first} and {second} were exchanged"
                f"{f' (and those of {more} more pairs)' if more else ''}: each agrees with the "
                "mirror image of the other. Copy them again, under the names of their inputs."
            )
        elif found.doubtful > MOST:
            self._tell(f"Exchanges were looked for among {MOST:,} of {found.doubtful:,} images.")

    def _halves(self, entries: Sequence[Entry]) -> Iterator[Halves]:
        """Yield the two outputs of each image; on the way, compare those of equal inputs."""
        waiting: dict[int, tuple[Item, NDArray[np.float32]]] = {}
        counts = Counter(item.hash for entry in entries for item in entry.items)
        twice: dict[str, tuple[Item, NDArray[np.float32]]] = {}
        for entry in entries:
            outputs = next(iter(self._reader.read(entry).values()))
            for item, row in zip(entry.items, outputs, strict=True):
                if counts[item.hash] > 1:
                    self._compare(*twice.setdefault(item.hash, (item, row)), item, row)
                if item.sample not in waiting:
                    waiting[item.sample] = item, row
                    continue
                _, other = waiting.pop(item.sample)
                yield Halves(item.name, other, row)

    def _compare(
        self, item: Item, row: NDArray[np.float32], other: Item, its: NDArray[np.float32]
    ) -> None:
        """Refuse two outputs of one input."""
        if not np.linalg.norm(row - its) <= _SAME * np.linalg.norm(row) and item != other:
            raise InputError(
                f"{self.folder}: {item.name} and {other.name} are the same image, but have "
                f"different outputs ({item.view}): one of them is another image's, or not finite. "
                "Copy them again from the device."
            )


def _reader(
    folder: Path, entries: Sequence[Entry], info: RuntimeInfo, manifest: Manifest
) -> OutputFolder | OutputMatrix:
    if not entries:
        raise InputError("The manifest lists no input. Dump again.")
    if folder.is_dir():
        return OutputFolder(folder, entries, info, manifest)
    if manifest.task == "detection":
        raise InputError(f"{folder} is one file; a detector's outputs are a folder of files.")
    return OutputMatrix(folder, entries)


def _manifest_folder(given: Path | None, outputs: Path) -> Path:
    if given is not None:
        if not given.exists():
            raise InputError(
                f"There is no manifest {given}. Name the folder that 'evalkit dump' wrote."
            )
        return given if given.is_dir() else given.parent
    raise InputError(
        f"Which inputs {outputs} are the outputs of is not said: name the folder that 'evalkit "
        "dump' wrote with --manifest. (A detector's predictions in WIDER FACE's layout go to "
        "--predictions instead.)"
    )


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
