"""Looking through a device's outputs for those that lie under another input's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.outputs.checks import MOST, Halves, disagreement
from evalkit.backends.outputs.device import Compare, HostCheck, Read, Verify
from evalkit.backends.outputs.manifest import Dump, Entry, Item
from evalkit.core.errors import InputError

_DOUBT = 0.2
"""Share of images whose two halves differ, above which the fault is not in a few files."""
_SAME = 0.1
"""Largest distance, by length, of two outputs of the very same input."""
_FEW = 32
"""Outputs compared with the model's own, where mirror images check the rest."""


def examine(
    folder: Path, dump: Dump, read: Read, verify: Verify, compare: Compare | None
) -> tuple[str, ...]:
    """Read all outputs, and look for those of other inputs.

    Parameters
    ----------
    folder : Path
        Of the outputs, or one file.
    dump : Dump
    read : callable
    verify : int, "all" or None
        Outputs to compare with what the model gives here; see `Verify`.
    compare : callable or None
        Does so.

    Returns
    -------
    tuple of str
        Sentences for the result.

    Raises
    ------
    evalkit.core.errors.InputError
        A file is damaged, an output belongs to another input or another model, or the comparison
        that ``--verify`` asks for is not possible.
    """
    check = _host_check(dump, read, verify, compare)
    notes = _read_all(folder, dump, read)
    if check.misplaced:
        image, other = check.misplaced[0]
        more = len(check.misplaced) - 1
        raise _misplaced(
            f"{folder}: the output of {image} is that of {other}",
            f" (and {more} more are misplaced)" if more else "",
            "so the model run here says",
        )
    return (*notes, check.note)


def _host_check(dump: Dump, read: Read, verify: Verify, compare: Compare | None) -> HostCheck:
    count = _count(dump, verify)
    note = "The outputs were not compared with the model's own here"
    if count == 0:
        return HostCheck(0, (), f"{note}.")
    if compare is None:
        check = HostCheck(0, (), f"{note}: no backend here has a file of it.")
    else:
        check = compare(dump, read, count)
    if not check.count and verify is not None:
        raise InputError(f"--verify {verify}: {check.note} Leave --verify out to go on without.")
    return check


def _count(dump: Dump, verify: Verify) -> int:
    """Return how many outputs to compare: all of a detector, which has no mirror images."""
    if verify == "all" or (verify is None and dump.manifest.task == "detection"):
        return dump.inputs
    return min(dump.inputs, _FEW if verify is None else verify)


def _read_all(folder: Path, dump: Dump, read: Read) -> tuple[str, ...]:
    """Read everything once; of recognition, compare each face with its mirror image."""
    if dump.manifest.task == "detection":
        for entry in dump.entries:
            read(entry)
        return ()
    result = disagreement(_halves(folder, dump.entries, read))
    if not result.images:
        return ("Without mirror images, two exchanged outputs cannot be noticed.",)
    if result.doubtful > _DOUBT * result.images:
        return (
            f"Of {result.images:,} images, {result.doubtful:,} have an output unlike that of "
            "their mirror image: the outputs are in another order, or the model is broken.",
        )
    if result.exchanged:
        first, second = result.exchanged[0]
        more = len(result.exchanged) - 1
        raise _misplaced(
            f"{folder}: the outputs of {first} and {second} were exchanged",
            f" (and those of {more} more pairs)" if more else "",
            "each agrees with the mirror image of the other",
        )
    if result.doubtful > MOST:
        count = f"{MOST:,} of {result.doubtful:,} doubtful images"
        return (f"Only {count} were checked for exchanges.",)
    return ()


def _misplaced(what: str, more: str, why: str) -> InputError:
    return InputError(
        f"{what}{more}: {why}. Copy the outputs again, under the names of their inputs."
    )


def _halves(folder: Path, entries: Sequence[Entry], read: Read) -> Iterator[Halves]:
    """Yield the two outputs of each image; on the way, compare those of equal inputs."""
    waiting: dict[int, NDArray[np.float32]] = {}
    counts = Counter(item.hash for entry in entries for item in entry.items)
    twice: dict[str, tuple[Item, NDArray[np.float32]]] = {}
    for entry in entries:
        outputs = next(iter(read(entry).values()))
        for item, row in zip(entry.items, outputs, strict=True):
            if counts[item.hash] > 1:
                _check_equal(folder, twice.setdefault(item.hash, (item, row)), (item, row))
            if item.sample in waiting:
                yield Halves(item.name, waiting.pop(item.sample), row)
            else:
                waiting[item.sample] = row


def _check_equal(
    folder: Path,
    first: tuple[Item, NDArray[np.float32]],
    second: tuple[Item, NDArray[np.float32]],
) -> None:
    """Refuse two outputs of one input."""
    (item, row), (other, its_row) = first, second
    if not np.linalg.norm(row - its_row) <= _SAME * np.linalg.norm(row) and item != other:
        raise InputError(
            f"{folder}: {item.name} and {other.name} are the same image, but have "
            f"different outputs ({item.view}): one of them is another image's, or not finite. "
            "Copy them again from the device."
        )
