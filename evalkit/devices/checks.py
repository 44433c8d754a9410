"""Finding outputs that lie under another image's name.

A face and its mirror image have nearly the same embedding. Where the two outputs of an image
disagree, but each agrees with the other half of another's, the files of the two were exchanged.
Where the model can run here too, its own outputs for the dumped inputs tell the same of any model.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Session
from evalkit.devices.manifest import INPUTS, Entry, Manifest
from evalkit.devices.reading import Outputs

AGREE = 0.5
"""Cosine, about the mean, that two outputs of one face reach."""
DOUBTFUL = 0.7
"""Cosine of a face and its mirror image below which they are compared with others."""
CLEAR = 0.2
"""Difference of two cosines that is no accident."""
_MOST = 2000
_FIRST = 512
_POSITIONS = 4096
_LIKE = 0.7
"""Cosine, about their mean, from which an output is that of the reference."""


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """The embeddings of an image and of its mirror image, shape (dim,) each."""

    name: str
    plain: NDArray[np.float32]
    flipped: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What the mirror images tell.

    Attributes
    ----------
    images, doubtful : int
        How many there are, and in how many the two halves differ.
    exchanged : tuple of (str, str)
        Images that have each other's output.
    """

    images: int
    doubtful: int
    exchanged: tuple[tuple[str, str], ...]


def disagreement(pairs: Iterable[Halves]) -> Disagreement:
    """Compare the outputs of images with those of their mirror images.

    Cosines are taken about the mean of the first images, since the embeddings of some models share
    a large common part.

    Parameters
    ----------
    pairs : iterable of Halves
        Read once. The first 2,000 doubtful ones are kept and compared with one another.
    """
    stream = iter(pairs)
    first = list(itertools.islice(stream, _FIRST))
    if not first:
        return Disagreement(0, 0, ())
    centre = np.mean([half for pair in first for half in (pair.plain, pair.flipped)], axis=0)
    kept: list[Halves] = []
    images = doubtful = 0
    for pair in itertools.chain(first, stream):
        images += 1
        centred = Halves(pair.name, pair.plain - centre, pair.flipped - centre)
        if _cosine(centred.plain, centred.flipped) < DOUBTFUL:
            doubtful += 1
            if len(kept) < _MOST:
                kept.append(centred)
    return Disagreement(images, doubtful, _exchanged(kept))


def _exchanged(kept: list[Halves]) -> tuple[tuple[str, str], ...]:
    if len(kept) < 2:
        return ()
    plain = _unit(np.stack([pair.plain for pair in kept]))
    flipped = _unit(np.stack([pair.flipped for pair in kept]))
    across = plain @ flipped.T
    better = (across >= AGREE) & (across - np.diag(across)[:, None] >= CLEAR)
    # Images of one person, or too poor to tell apart, agree with each other without any mistake.
    mutual = better & better.T & (across - plain @ plain.T >= CLEAR)
    pairs = np.argwhere(np.triu(mutual)).tolist()
    return tuple((kept[one].name, kept[other].name) for one, other in pairs)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = np.nan_to_num(rows.astype(np.float64), posinf=0, neginf=0)
    lengths: NDArray[np.float64] = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.maximum(lengths, 1e-30)


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    one, other = _unit(np.stack([first, second]))
    return float(one @ other)


_Compared = tuple[str, NDArray[np.float32], NDArray[np.float32]]
"""An image, what the device gave for it, and what the model gives here."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What the model's own outputs tell: misplaced images with whose they are, and a sentence."""

    moved: tuple[tuple[str, str], ...]
    note: str


def spread(entries: Sequence[Entry], most: int | None) -> list[Entry]:
    """Take at most so many entries, from first to last."""
    if most is None or most >= len(entries):
        return list(entries)
    places = np.unique(np.linspace(0, len(entries) - 1, most).astype(int))
    return [entries[place] for place in places.tolist()]


def unlike_reference(
    reference: Session,
    entries: Sequence[Entry],
    read: Callable[[Entry], Outputs],
    dump: Path,
    manifest: Manifest,
) -> Verified:
    """Run the dumped inputs by a session of the same model, and compare.

    Parameters
    ----------
    reference : Session
        Of the model, at any precision.
    entries : sequence of Entry
        Which inputs; only outputs of the same size are compared with one another.
    read : callable
        Gives the device's outputs of an entry.
    dump : Path
    manifest : Manifest
    """
    if manifest.format == "image":
        return Verified((), "Images were dumped, so that the outputs could not be checked here.")
    groups: dict[int, list[_Compared]] = defaultdict(list)
    for entry in entries:
        tensors = read_inputs(dump / INPUTS / entry.file, manifest, entry)
        if tensors is None:
            return Verified((), f"{entry.file} is not in {dump} any more: nothing was checked.")
        outputs = read(entry)
        for row, item in enumerate(entry.items):
            wanted = _flat(reference.run(tensors[row : row + 1]))
            one = outputs if manifest.task == "detection" else _row(outputs, row)
            found = _flat(one)
            if found.size != wanted.size:
                return Verified(
                    (),
                    f"The device gives {found.size} numbers an input, the model here "
                    f"{wanted.size}: nothing was compared.",
                )
            places = _places(found.size)
            groups[found.size].append((item.name, found[places], wanted[places]))
    count = sum(len(group) for group in groups.values())
    moved = [pair for group in groups.values() for pair in _moved(group)]
    return Verified(tuple(moved), f"{count:,} outputs were compared with the model's own here.")


def _moved(
    group: Sequence[_Compared],
) -> list[tuple[str, str]]:
    if len(group) < 2:
        return []
    wanted = np.stack([want for _, _, want in group])
    centre = wanted.mean(axis=0)
    found = np.stack([given for _, given, _ in group])
    agreement = _unit(found - centre) @ _unit(wanted - centre).T
    own = np.diag(agreement)
    best = agreement.argmax(axis=1)
    moved = (agreement[np.arange(len(own)), best] >= _LIKE) & (own < AGREE)
    return [(group[row][0], group[best[row]][0]) for row in np.flatnonzero(moved).tolist()]


def read_inputs(file: Path, manifest: Manifest, entry: Entry) -> NDArray[np.generic] | None:
    """Read a dumped file of tensors, None if it is not there."""
    if not file.is_file():
        return None
    if file.suffix == ".bin":
        flat = np.fromfile(file, manifest.dtype)
        return flat.reshape(manifest.batch, *entry.items[0].shape)
    held = np.load(file, allow_pickle=False)
    if isinstance(held, np.ndarray):
        return held
    with held:
        inputs: NDArray[np.generic] = held["inputs"]
        return inputs


def _row(outputs: Outputs, row: int) -> Outputs:
    return {name: value[row : row + 1] for name, value in outputs.items()}


def _flat(outputs: Outputs) -> NDArray[np.float32]:
    return np.concatenate([value.ravel() for value in outputs.values()])


def _places(size: int) -> NDArray[np.int64]:
    """Choose the same places of every output of one size."""
    if size <= _POSITIONS:
        return np.arange(size)
    return np.sort(np.random.default_rng(size).choice(size, _POSITIONS, replace=False))
