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
from evalkit.backends.outputs.device import HostCheck, Read
from evalkit.backends.outputs.manifest import INPUTS, Dump, Entry, Manifest, spread
from evalkit.backends.outputs.reading import Outputs
from evalkit.core.errors import EvalkitError, InputError
from evalkit.core.settings import InputSpec
from evalkit.run.pipeline import Normaliser

Reference = Callable[[], Session]

_LIKE = 0.7
"""Cosine, about their mean, from which an output is that of the reference."""
_POSITIONS = 4096


@dataclass(frozen=True, slots=True)
class Pair:
    """Some numbers of one output: the image, the device's numbers, and those of the model here."""

    name: str
    device: NDArray[np.float32]
    here: NDArray[np.float32]


def compare(reference: Reference, dump: Dump, read: Read, count: int) -> HostCheck:
    """Run dumped inputs by the same model here, and compare.

    Parameters
    ----------
    reference : callable
        Opens the model, at any precision.
    dump : Dump
    read : callable
        Gives the device's outputs of an entry.
    count : int
        Inputs, taken evenly from the first to the last.

    Raises
    ------
    evalkit.core.errors.InputError
        A device's embedding has another size than the model's.
    """
    groups: dict[int, list[Pair]] = defaultdict(list)
    try:
        with _opened(reference) as session:
            for pair in _pairs(session, dump, read, count):
                groups[pair.device.size].append(pair)
    except _NotComparedError as error:
        return HostCheck(0, (), f"The outputs were not compared with the model's own here: {error}")
    misplaced = [names for group in groups.values() for names in _misplaced(group)]
    every = [pair for group in groups.values() for pair in group]
    return HostCheck(len(every), tuple(misplaced), _note(every, groups))


class _NotComparedError(Exception):
    """Why the model cannot give its own outputs here."""


def _opened(reference: Reference) -> Session:
    try:
        return reference()
    except EvalkitError as error:
        raise _NotComparedError(str(error)) from error


def _chosen(dump: Dump, count: int) -> Iterator[tuple[Entry, list[int]]]:
    """Yield entries with the rows of them that are chosen."""
    places = iter(spread(range(dump.inputs), count))
    place = next(places, None)
    first = 0
    for entry in dump.entries:
        rows = []
        while place is not None and place < first + len(entry.items):
            rows.append(place - first)
            place = next(places, None)
        if rows:
            yield entry, rows
        first += len(entry.items)


def _pairs(session: Session, dump: Dump, read: Read, count: int) -> Iterator[Pair]:
    manifest = dump.manifest
    for entry, rows in _chosen(dump, count):
        tensors = read_inputs(dump, entry)
        if tensors is None:
            raise _NotComparedError(f"{entry.file} is no longer in {dump.folder / INPUTS}.")
        outputs = read(entry)
        for row in rows:
            one = outputs
            if manifest.task == "recognition":
                one = {name: value[row : row + 1] for name, value in outputs.items()}
            here = run_one(session, tensors[row : row + 1], manifest)
            yield _pair(entry.items[row].name, one, here, manifest)


def _pair(name: str, device: Outputs, here: Outputs, manifest: Manifest) -> Pair:
    if device.keys() == here.keys():
        device = {key: device[key] for key in here}
    theirs, ours = (
        np.concatenate([value.ravel() for value in outputs.values()]) for outputs in (device, here)
    )
    if theirs.size != ours.size:
        said = f"the device gives {theirs.size} numbers for {name}, the model here {ours.size}"
        if manifest.task == "recognition" and len(device) == len(here) == 1:
            raise InputError(
                f"These are outputs of another model, or of another element type: {said}. Correct "
                "--outputs, --model or output_dtype in the runtime info."
            )
        raise _NotComparedError(f"{said}.")
    places = _places(theirs.size)
    return Pair(name, theirs[places], ours[places])


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


def read_inputs(dump: Dump, entry: Entry) -> NDArray[Any] | None:
    """Read a dumped file of inputs, shape (batch, ...); None if it is not there.

    Raises
    ------
    evalkit.core.errors.InputError
        It is not what the manifest says.
    """
    file = dump.folder / INPUTS / entry.file
    if not file.is_file():
        return None
    try:
        tensors = _tensors(file, dump.manifest)
        return tensors.reshape(dump.manifest.batch, *entry.items[0].shape)
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
    content = np.load(file, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        inputs: NDArray[Any] = content["inputs"]
        return inputs


def _misplaced(group: Sequence[Pair]) -> list[tuple[str, str]]:
    """Return the images whose output is nearer to the model's of another one, and which."""
    if len(group) < 2:
        return []
    agreement = _agreement(group)
    own, best = np.diag(agreement), agreement.argmax(axis=1)
    misplaced = (agreement[np.arange(len(own)), best] >= _LIKE) & (own < AGREE)
    return [(group[row].name, group[best[row]].name) for row in np.flatnonzero(misplaced).tolist()]


def _agreement(group: Sequence[Pair]) -> NDArray[np.float64]:
    """Return cosines of the device's outputs (rows) and of those here, about the latter's mean."""
    here = np.stack([pair.here for pair in group])
    device = np.stack([pair.device for pair in group])
    centre = here.mean(axis=0)
    return unit(device - centre) @ unit(here - centre).T


def _note(every: Sequence[Pair], groups: dict[int, list[Pair]]) -> str:
    if not every:
        return "No output was compared with the model's own here."
    cosines = np.array(
        [float(unit(pair.device[None])[0] @ unit(pair.here[None])[0]) for pair in every]
    )
    lowest = every[int(cosines.argmin())].name
    said = (
        f"{len(every):,} outputs were compared with the model's own here: median cosine "
        f"{np.median(cosines):.4f}, lowest {cosines.min():.4f} ({lowest})."
    )
    own = [np.diag(_agreement(group)) for group in groups.values() if len(group) > 1]
    if own and float(np.median(np.concatenate(own))) < AGREE:
        said += (
            " Most of them differ: they are of another model, in another order, or the precision "
            "breaks the model."
        )
    return said


def _places(size: int) -> NDArray[np.int64]:
    """Choose the same places of every output of one size."""
    if size <= _POSITIONS:
        return np.arange(size)
    return np.sort(np.random.default_rng(size).choice(size, _POSITIONS, replace=False))
