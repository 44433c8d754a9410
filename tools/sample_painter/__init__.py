"""Paints faces and scenes from numbers, and writes them in the formats of IJB, LFW, WIDER FACE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from evalkit.datasets.errors import DatasetError
from evalkit.datasets.sample import atomic_folder
from sample_painter.ijb import write_ijb
from sample_painter.lfw import write_lfw
from sample_painter.widerface import write_widerface
from sample_painter.writing import Progress, write_marker

Kind = Literal["ijb", "lfw", "widerface"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
LIMITS: Final[Mapping[Kind, tuple[int, int]]] = {
    "ijb": (2, 10_000),
    "lfw": (40, 100_000),
    "widerface": (1, 10_000),
}


class Packaged(NamedTuple):
    """One folder of the package's data files, and what it is painted with."""

    folder: str
    kind: Kind
    size: int
    seed: int

    @property
    def path(self) -> Path:
        """Where it stands among the data files."""
        return Path(self.folder) / f"evalkit-sample-{self.kind}"


CALIBRATION_SEED = 1  # other people than those of the samples that are evaluated
PACKAGED: Final = (
    Packaged("default", "ijb", 128, 0),
    Packaged("default", "lfw", 300, 0),
    Packaged("default", "widerface", 56, 0),
    Packaged("tiny", "ijb", 6, 0),
    Packaged("tiny", "lfw", 40, 0),
    Packaged("tiny", "widerface", 4, 0),
    Packaged("calibration", "lfw", 260, CALIBRATION_SEED),
    Packaged("calibration", "widerface", 20, CALIBRATION_SEED),
)


def paint(
    kind: Kind, out: Path, *, size: int, seed: int = 0, progress: Progress | None = None
) -> None:
    """Paint a sample and write it in the real format.

    The folder appears complete or not at all. The same arguments give the same bytes.

    Parameters
    ----------
    kind : {'ijb', 'lfw', 'widerface'}
        The format; an `ijb` folder serves as a release of IJB-B and of IJB-C.
    out : Path
        Folder to write, which must not exist or be empty.
    size : int
        Subjects (IJB), pairs (LFW, a multiple of 20) or images (WIDER FACE).
    seed : int
        Another seed is another population of people.
    progress : callable, optional
        Called with (pictures done, pictures in all).

    Raises
    ------
    DatasetError
        For a size out of range, or an `out` that is not empty.
    """
    low, high = LIMITS[kind]
    if not low <= size <= high or (kind == "lfw" and size % 20):
        step = " in steps of 20" if kind == "lfw" else ""
        raise DatasetError(
            f"Size {size} of the {kind} sample is out of range",
            remedy=f"Give {low} to {high}{step}.",
        )
    writers = {"ijb": write_ijb, "lfw": write_lfw, "widerface": write_widerface}
    with atomic_folder(out) as work:
        plan = writers[kind](work, size, seed, progress)
        write_marker(work, kind, seed, plan)


def paint_package(out: Path) -> None:
    """Paint every folder of the package's data files into `out`, which must be new or empty."""
    with atomic_folder(out) as work:
        for part in PACKAGED:
            paint(part.kind, work / part.path, size=part.size, seed=part.seed)
