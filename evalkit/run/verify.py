"""Comparing what a device gave with what the same model gives here, for the very same inputs."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Session
from evalkit.backends.outputs.checks import AGREE, unit
from evalkit.backends.outputs.manifest import INPUTS, Entry, Manifest, spread
from evalkit.backends.outputs.reading import Outputs
from evalkit.core.errors import EvalkitError, InputError
from evalkit.core.settings import InputSpec
from evalkit.run.pipeline import Normaliser

Reference = Callable[[], Session]

_LIKE = 0.7
"""Cosine, about their mean, from which an output is that of the reference."""
_POSITIONS = 4096


@dataclass(frozen=True, slots=True)
class Compared:
    """An output: its image, some of the device's numbers, and those that the model gives here."""

    name: str
    found: NDArray[np.float32]
    wanted: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Verified:
    """What the model's own outputs tell.

    Attributes
    ----------
    compared : int
        Outputs; 0 where the model could not run here.
    moved : tuple of (str, str)
        Images that have another's output, and whose.
    note : str
        A sentence for the result.
    """

    compared: int
    moved: tuple[tuple[str, str], ...]
    note: str


def verify(
    reference: Reference,
    entries: Sequence[Entry],
    read: Callable[[Entry], Outputs],
    dump: Path,
    manifest: Manifest,
    most: int | None,
) -> Verified:
    """Run dumped inputs by the same model here, and compare.

    Parameters
    ----------
    reference : callable
        Opens the model, at any precision.
    entries : sequence of Entry
    read : callable
        Gives the device's outputs of an entry.
    dump : Path
    manifest : Manifest
    most : int or None
        Inputs, taken evenly from the first to the last; None takes all.

    Raises
    ------
    evalkit.core.errors.InputError
        A device's embedding has another size than the model's.
    """
    groups: dict[int, list[Compared]] = defaultdict(list)
    try:
        with _opened(reference) as session:
            for compared in _compared(session, _chosen(entries, most), read, dump, manifest):
                groups[compared.found.size].append(compared)
    except _NotComparedError as error:
        return Verified(0, (), f"The outputs were not compared with the model's own here: {error}")
    moved = [pair for group in groups.values() for pair in _moved(group)]
    every = [compared for group in groups.values() for compared in group]
    return Verified(len(every), tuple(moved), _note(every, groups))


class _NotComparedError(Exception):
    """Why the model's own outputs are not to be had."""


def _opened(reference: Reference) -> Session:
    try:
        return reference()
    except EvalkitError as error:
        raise _NotComparedError(str(error)) from error


def _chosen(entries: Sequence[Entry], most: int | None) -> Iterator[tuple[Entry, list[int]]]:
    """Yield entries with the rows of them that are chosen."""
    count = sum(len(entry.items) for entry in entries)
    wanted = iter(spread(range(count), count if most is None else most))
    place = next(wanted, None)
    first = 0
    for entry in entries:
        rows = []
        while place is not None and place < first + len(entry.items):
            rows.append(place - first)
            place = next(wanted, None)
        if rows:
            yield entry, rows
        first += len(entry.items)


def _compared(
    session: Session,
    chosen: Iterator[tuple[Entry, list[int]]],
    read: Callable[[Entry], Outputs],
    dump: Path,
    manifest: Manifest,
) -> Iterator[Compared]:
    for entry, rows in chosen:
        tensors = read_inputs(dump, manifest, entry)
        if tensors is None:
            raise _NotComparedError(f"{entry.file} is not in {dump / INPUTS} any more.")
        outputs = read(entry)
        for row in rows:
            one = outputs
            if manifest.task == "recognition":
                one = {name: value[row : row + 1] for name, value in outputs.items()}
            wanted = run_one(session, tensors[row : row + 1], manifest)
            yield _pair(entry.items[row].name, one, wanted, manifest)


def _pair(name: str, found: Outputs, wanted: Outputs, manifest: Manifest) -> Compared:
    if found.keys() == wanted.keys():
        found = {key: found[key] for key in wanted}
    mine, other = (
        np.concatenate([value.ravel() for value in outputs.values()]) for outputs in (found, wanted)
    )
    if mine.size != other.size:
        said = f"the device gives {mine.size} numbers for {name}, the model here {other.size}"
        if manifest.task == "recognition" and len(found) == len(wanted) == 1:
            raise InputError(
                f"These are outputs of another model, or of another element type: {said}. Correct "
                "--outputs, --model or output_dtype in the runtime info."
            )
        raise _NotComparedError(f"{said}.")
    places = _places(mine.size)
    return Compared(name, mine[places], other[places])


def run_one(session: Session, tensor: NDArray[Any], manifest: Manifest) -> Outputs:
    """Run one dumped input, shape (1, ...), by a model that may want a larger batch or numbers."""
    info = session.inputs[0]
    if tensor.dtype == np.uint8 and info.dtype != "uint8":
        tensor = _normalised(tensor, manifest)
    try:
        if info.batch in {None, 1}:
            return session.run(tensor)
        room = np.zeros((info.batch, *tensor.shape[1:]), tensor.dtype)
        room[:1] = tensor
        return {name: value[:1] for name, value in session.run(room).items()}
    except EvalkitError as error:
        raise _NotComparedError(str(error)) from error


def _normalised(pixels: NDArray[Any], manifest: Manifest) -> NDArray[np.float32]:
    spec = _spec(manifest)
    sizes = (1, 3, 1, 1) if spec.layout == "nchw" else (1, 1, 1, 3)
    mean, std = (
        np.broadcast_to(np.asarray(value, np.float32), 3).reshape(sizes)
        for value in (spec.mean, spec.std)
    )
    normalised: NDArray[np.float32] = (pixels - mean) / std
    return normalised


def _spec(manifest: Manifest) -> InputSpec:
    known = InputSpec.model_fields.keys() & manifest.preprocessing.keys()
    return InputSpec.model_validate({name: manifest.preprocessing[name] for name in known})


def read_inputs(dump: Path, manifest: Manifest, entry: Entry) -> NDArray[Any] | None:
    """Read a dumped file of inputs, shape (batch, ...); None if it is not there.

    Raises
    ------
    evalkit.core.errors.InputError
        It is not what the manifest says.
    """
    file = dump / INPUTS / entry.file
    if not file.is_file():
        return None
    try:
        return _tensors(file, manifest).reshape(manifest.batch, *entry.items[0].shape)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{file} is not the input that was dumped ({error}). Dump again into another folder, "
            "or leave the comparison out with --verify 0."
        ) from error


def _tensors(file: Path, manifest: Manifest) -> NDArray[Any]:
    if file.suffix == ".bin":
        return np.fromfile(file, np.dtype(manifest.dtype).newbyteorder("<"))
    if file.suffix == ".png":
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("OpenCV cannot decode it")
        normalise = Normaliser(_spec(manifest), "uint8")
        tensor = normalise.empty(1, (image.shape[0], image.shape[1]))
        normalise(np.ascontiguousarray(image[..., ::-1], np.uint8), tensor[0])
        return tensor
    held = np.load(file, allow_pickle=False)
    if isinstance(held, np.ndarray):
        return held
    with held:
        inputs: NDArray[Any] = held["inputs"]
        return inputs


def _moved(group: Sequence[Compared]) -> list[tuple[str, str]]:
    if len(group) < 2:
        return []
    agreement = _agreement(group)
    own, best = np.diag(agreement), agreement.argmax(axis=1)
    moved = (agreement[np.arange(len(own)), best] >= _LIKE) & (own < AGREE)
    return [(group[row].name, group[best[row]].name) for row in np.flatnonzero(moved).tolist()]


def _agreement(group: Sequence[Compared]) -> NDArray[np.float64]:
    """Return the cosines of what was found (rows) and wanted (columns), about the mean wanted."""
    wanted = np.stack([compared.wanted for compared in group])
    found = np.stack([compared.found for compared in group])
    centre = wanted.mean(axis=0)
    return unit(found - centre) @ unit(wanted - centre).T


def _note(every: Sequence[Compared], groups: dict[int, list[Compared]]) -> str:
    if not every:
        return "No output was compared with the model's own here."
    cosines = np.array([float(unit(c.found[None])[0] @ unit(c.wanted[None])[0]) for c in every])
    lowest = every[int(cosines.argmin())].name
    said = (
        f"{len(every):,} outputs were compared with the model's own here: median cosine "
        f"{np.median(cosines):.4f}, lowest {cosines.min():.4f} ({lowest})."
    )
    own = [np.diag(_agreement(group)) for group in groups.values() if len(group) > 1]
    if own and float(np.median(np.concatenate(own))) < AGREE:
        said += (
            " Most are unlike it: they are another model's, misordered, or the precision breaks it."
        )
    return said


def _places(size: int) -> NDArray[np.int64]:
    """Choose the same places of every output of one size."""
    if size <= _POSITIONS:
        return np.arange(size)
    return np.sort(np.random.default_rng(size).choice(size, _POSITIONS, replace=False))
