"""The data of a sign-off's protocols, and what tells that they changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evalkit.core.errors import InputError
from evalkit.core.files import sha256_json
from evalkit.datasets.sample import sample_path
from evalkit.verdict.plan import Plan, ProtocolPlan


@dataclass(frozen=True, slots=True)
class Data:
    """The data of a protocol.

    Attributes
    ----------
    path : Path
    state : str
        Hash of the names, sizes and times of all files: it changes when they do. Results hold
        hashes of the content.
    images : int
        How many images there are.
    """

    path: Path
    state: str
    images: int


def find_data(plan: Plan, protocol: ProtocolPlan) -> Data:
    """Find a protocol's data; the embedded sample where none is named.

    Raises
    ------
    evalkit.core.errors.InputError
        They are not there.
    """
    if protocol.data is None:
        path = _sample(protocol)
    else:
        path = (plan.folder / protocol.data.expanduser()).absolute()
    if not path.exists():
        raise InputError(
            f"protocol {protocol.name}: {path} has no data. Correct 'data' in the plan."
        )
    try:
        images = protocol.task.images(path)
    except InputError as error:
        raise InputError(f"protocol {protocol.name}: {error}") from error
    return Data(path, sha256_json(state_of(path)), images)


def _sample(protocol: ProtocolPlan) -> Path:
    kind = protocol.task.sample
    if kind is None:
        raise InputError(
            f"protocol {protocol.name}: evalkit has no sample of it. Set 'data' in the plan."
        )
    return sample_path(kind)


def state_of(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of a file, or of all files of a folder."""
    stats = ((file, file.stat()) for file in _files(path))
    return [(str(file.relative_to(path)), s.st_size, s.st_mtime_ns) for file, s in stats]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, below, names in os.walk(path, followlinks=True):
        below.sort()
        yield from (Path(folder) / name for name in sorted(names))
