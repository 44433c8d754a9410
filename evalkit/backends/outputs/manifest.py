"""The manifest of a dump: which file holds the input of which image, and the hash of each input.

``manifest.json`` says what was dumped. ``items.jsonl`` lists the inputs: one line for each task
whose files are written. An interrupted dump resumes from there.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.files import atomic_write
from evalkit.core.records import Record
from evalkit.core.results import Failure, Text

HEADER = "manifest.json"
ITEMS = "items.jsonl"
INPUTS = "inputs"
INCOMPLETE = "manifest.partial.json"

Task = Literal["recognition", "detection"]
Format = Literal["bin", "npy", "image", "npz"]

T = TypeVar("T")


class Manifest(Record):
    """What a dump holds.

    Attributes
    ----------
    task : str
        ``recognition``: an output has one row an image. ``detection``: it has the head's tensors.
    fingerprint : str
        SHA-256 of which images there are, and of how they are prepared.
    dtype, layout : str
        Of the tensors: ``float32`` or ``uint8``; ``nchw`` or ``nhwc``.
    batch : int
        Inputs a file; the last file is filled up with zeros.
    samples : int
        Images of the data set.
    opencv : str
        The version that decoded and prepared the images: another may give other pixels.
    """

    schema_version: Literal[1] = 1
    evalkit_version: str
    task: Task
    protocol: str
    dataset: Text
    fingerprint: str
    model: Text
    preprocessing: dict[str, Any]
    format: Format
    dtype: Literal["float32", "uint8"]
    layout: Literal["nchw", "nhwc"]
    batch: int = Field(ge=1)
    samples: int = Field(ge=0)
    opencv: str


@dataclass(frozen=True, slots=True)
class Item:
    """One input of the model.

    Attributes
    ----------
    sample : int
        Place of the image in the data set.
    name : str
        The image's name.
    view : str
        ``plain``, ``flip``, or the number of a detector's scale.
    shape : tuple of int
        Of the tensor, without the batch.
    hash : str
        BLAKE2b, 16 bytes, of the tensor's bytes in C order.
    """

    sample: int
    name: str
    view: str
    shape: tuple[int, ...]
    hash: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of inputs: its name in the folder ``inputs``, and what its rows are."""

    file: str
    items: tuple[Item, ...]

    @property
    def stem(self) -> str:
        """The file's name without its suffix, as devices name their outputs."""
        return Path(self.file).stem


@dataclass(frozen=True, slots=True)
class Written:
    """The files of consecutive images.

    Attributes
    ----------
    stop : int
        The image after the last.
    entries : tuple of Entry
    failures : tuple of Failure
        Images that could not be read.
    """

    stop: int
    entries: tuple[Entry, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Dump:
    """A complete dump: its folder, its manifest and the files of inputs."""

    folder: Path
    manifest: Manifest
    entries: tuple[Entry, ...]

    @property
    def inputs(self) -> int:
        """How many inputs it has."""
        return sum(len(entry.items) for entry in self.entries)


def read_dump(folder: Path) -> Dump:
    """Read a complete dump; see `read_manifest` for what it raises."""
    manifest, written = read_manifest(folder)
    return Dump(folder, manifest, tuple(entry for part in written for entry in part.entries))


def tensor_hash(tensor: NDArray[Any]) -> str:
    """Return the hash of one input.

    Examples
    --------
    >>> tensor_hash(np.zeros((3, 2, 2), np.float32))
    '87b774e863281ce421c5625c0aa7b29c'
    """
    return hashlib.blake2b(np.ascontiguousarray(tensor).data, digest_size=16).hexdigest()


def spread(values: Sequence[T], most: int) -> list[T]:
    """Take at most so many, evenly from the first to the last.

    Examples
    --------
    >>> spread("abcde", 3)
    ['a', 'c', 'e']
    """
    if most >= len(values):
        return list(values)
    return [values[place] for place in np.linspace(0, len(values) - 1, most).astype(int).tolist()]


def write_header(folder: Path, manifest: Manifest, *, complete: bool) -> None:
    """Write the header; that of a complete dump takes the place of the other."""
    name = HEADER if complete else INCOMPLETE
    with atomic_write(folder / name) as file:
        file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
    if complete:
        (folder / INCOMPLETE).unlink(missing_ok=True)


def append(folder: Path, written: Written) -> None:
    """Add a line for what was written, and flush it to the disk."""
    line = json.dumps({**asdict(written), "failures": [f.model_dump() for f in written.failures]})
    with (folder / ITEMS).open("a", encoding="ascii") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def resume(folder: Path) -> int:
    """Return how many images an interrupted dump has written; cut off an incomplete line."""
    path = folder / ITEMS
    done = whole = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                try:
                    done = _written(json.loads(line)).stop
                except (ValueError, KeyError, TypeError):
                    break
                whole += len(line)
        os.truncate(path, whole)
    return done


def read_manifest(folder: Path) -> tuple[Manifest, list[Written]]:
    """Read the manifest of a complete dump.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        The dump was interrupted.
    evalkit.core.errors.InputError
        There is none, or it is damaged.
    """
    if (folder / INCOMPLETE).is_file() and not (folder / HEADER).is_file():
        raise CannotJudgeError(
            f"The dump in {folder} was interrupted. Run its 'evalkit dump' command again: it "
            "resumes."
        )
    if not (folder / HEADER).is_file():
        raise InputError(
            f"{folder} holds no {HEADER}. Name the folder that 'evalkit dump' wrote with "
            "--manifest."
        )
    manifest = read_header(folder / HEADER)
    written = list(_all_written(folder / ITEMS))
    stop = written[-1].stop if written else 0
    if stop != manifest.samples:
        raise InputError(
            f"{folder / ITEMS} lists {stop:,} of the {manifest.samples:,} images that {HEADER} "
            "counts: it is truncated, or belongs to another dump. Copy both files again."
        )
    return manifest, written


def read_header(path: Path) -> Manifest:
    """Read what a dump holds, complete or not.

    Raises
    ------
    evalkit.core.errors.InputError
        The file is damaged.
    """
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise InputError(
            f"{path} is not a manifest: {where}{first['msg']}. Copy it again from the dump, or "
            "dump again into another folder."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read {path}: {error}. Copy it again from the dump.") from error


def _all_written(path: Path) -> Iterator[Written]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read {path}: {error}. Copy it again from the dump.") from error
    for number, line in enumerate(lines, 1):
        try:
            yield _written(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}, line {number} is damaged ({error}). Copy it again from the dump."
            ) from error


def _written(value: dict[str, Any]) -> Written:
    return Written(
        int(value["stop"]),
        tuple(_entry(entry) for entry in value["entries"]),
        tuple(Failure.model_validate(failure) for failure in value["failures"]),
    )


def _entry(value: dict[str, Any]) -> Entry:
    file = str(value["file"])
    if Path(file).name != file:
        raise ValueError(f"{file!r} is not a plain file name")
    items = tuple(_item(item) for item in value["items"])
    if not items:
        raise ValueError(f"{file!r} holds no input")
    return Entry(file, items)


def _item(value: dict[str, Any]) -> Item:
    return Item(
        sample=int(value["sample"]),
        name=str(value["name"]),
        # A million items share few views and shapes.
        view=sys.intern(str(value["view"])),
        shape=_shared(tuple(int(size) for size in value["shape"])),
        hash=str(value["hash"]),
    )


@functools.lru_cache(maxsize=1024)
def _shared(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape
