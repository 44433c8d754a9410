"""Reading of predictions: a folder of text files by event, or one JSON or NPZ file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from evalkit.widerface_eval.errors import IncompleteError, WiderFaceError, listed
from evalkit.widerface_eval.ground_truth import without_suffix
from evalkit.widerface_eval.packed import COLUMNS, NOTHING, Entry, Rows, read_json, read_npz
from evalkit.widerface_eval.records import Detections, find_flaw


@dataclass(frozen=True, slots=True)
class Reading:
    """Detections as read, and what was wrong with the files they came from.

    Attributes
    ----------
    detections : Detections
        One entry for every image; without rows where its file is in one of the lists below.
    missing, empty, malformed : tuple of str
        Images without a file, with a file that states nothing, with a broken one.
    extra : tuple of str
        Files of images that the ground truth does not have.
    """

    detections: Detections
    missing: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """How many images count as without detections because their files cannot be used."""
        return len(self.missing) + len(self.empty) + len(self.malformed)

    def warnings(self) -> tuple[str, ...]:
        """One sentence for each kind of problem that was allowed."""
        kinds = {
            "missing, and counted as without detections": self.missing,
            "empty, and counted as without detections": self.empty,
            "malformed, and counted as without detections": self.malformed,
            "of images unknown to the ground truth, and left out": self.extra,
        }
        return tuple(
            f"{len(names)} prediction files are {what}: {listed(names)}."
            for what, names in kinds.items()
            if names
        )


def read_predictions(
    path: str | Path,
    images: Sequence[str],
    *,
    known: Collection[str] | None = None,
    allow_missing: bool = False,
) -> Reading:
    """Read the predictions of some images.

    Parameters
    ----------
    path : path
        A folder of ``event/image.txt``; or a ``.json`` file, an object of ``event/image`` to a
        list of ``[x, y, w, h, score, ...]``; or an ``.npz`` file as `write_predictions` makes it.
    images : sequence of str
        ``event/image`` of each image to read, without suffix.
    known : collection of str, optional
        Other images that may have predictions, which are not read.
    allow_missing : bool
        Count images of missing, empty and malformed files as without detections, and ignore extra
        files. By default these files are an error.

    Raises
    ------
    IncompleteError
        Files are missing or empty.
    WiderFaceError
        Files are malformed or extra, or none belongs to the images.

    Notes
    -----
    A text file has the image's name, the number of detections, and one line for each:
    ``x y w h score`` and perhaps other columns, such as landmarks. The reader also accepts any
    white space, blank lines, no name, no number, a name with its folder or suffix, and Windows
    line ends. Numbers may be whole or not.
    """
    path = Path(path)
    if path.is_dir():
        entries = _read_folder(path)
    elif path.suffix == ".json":
        entries = read_json(path)
    elif path.suffix == ".npz":
        entries = read_npz(path)
    else:
        raise WiderFaceError(f"{path}: it is neither a folder nor a .json or .npz file.")
    content = _Content()
    content.read(entries, set(images), set(known or ()))
    if not content.rows and (content.extra or not (content.empty or content.malformed)):
        raise WiderFaceError(
            f"{path}: none of its {len(content.extra)} predictions is of an image of the ground "
            f"truth, such as {listed(sorted(images)[:1])}. Are they of another split, or is it "
            "the folder above or below?"
        )
    reading = content.reading(images)
    if not allow_missing:
        _refuse(path, reading, content.malformed)
    return reading


@dataclass(slots=True)
class _Content:
    """What was read, by image: rows, nothing stated, or what is wrong; and unknown images."""

    rows: dict[str, Rows] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    malformed: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)

    def read(self, entries: Iterator[Entry], images: set[str], others: set[str]) -> None:
        """Read the entries of some images, and sort out those of unknown ones."""
        for image, read in entries:
            if image not in images:
                self.extra += [] if image in others else [image]
                continue
            try:
                rows = read()
            except ValueError as error:
                self.malformed[image] = str(error)
                continue
            if rows is None:
                self.empty.append(image)
            else:
                self.rows[image] = rows

    def reading(self, images: Sequence[str]) -> Reading:
        """Put the detections into the images' order."""
        present = self.rows.keys() | set(self.empty) | self.malformed.keys()
        return Reading(
            Detections.from_rows(images, [self.rows.get(image, NOTHING) for image in images]),
            missing=tuple(image for image in images if image not in present),
            empty=tuple(sorted(self.empty)),
            malformed=tuple(sorted(self.malformed)),
            extra=tuple(sorted(self.extra)),
        )


def _read_folder(folder: Path) -> Iterator[Entry]:
    for event in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        for name in sorted(entry.name for entry in os.scandir(folder / event)):
            if name.endswith(".txt") and not name.startswith("."):
                stem = name.removesuffix(".txt")
                yield f"{event}/{stem}", partial(_read_text_file, folder / event / name, stem)


def _read_text_file(path: Path, stem: str) -> Rows | None:
    try:
        return parse_text(path.read_text("utf-8-sig"), stem)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse(path: Path, reading: Reading, malformed: Mapping[str, str]) -> None:
    problems = []
    if reading.malformed:
        problems.append(
            f"{len(reading.malformed)} are malformed: "
            + listed([malformed[image] for image in reading.malformed])
        )
    if reading.extra:
        problems.append(f"{len(reading.extra)} are of unknown images: {listed(reading.extra)}")
    if reading.missing:
        problems.append(f"{len(reading.missing)} are missing: {listed(reading.missing)}")
    if reading.empty:
        problems.append(
            f"{len(reading.empty)} are empty (write the number 0 where nothing is detected): "
            + listed(reading.empty)
        )
    if problems:
        kind = WiderFaceError if reading.malformed or reading.extra else IncompleteError
        raise kind(
            f"{path}: the predictions do not fit the ground truth, so no AP is stated. Of the "
            f"files {'; '.join(problems)}. Correct them. Or count the images of these files as "
            "without detections: --allow-missing."
        )


def parse_text(text: str, stem: str) -> Rows | None:
    r"""Rows of one prediction file; None if it states nothing, not even the number 0.

    Parameters
    ----------
    text : str
    stem : str
        The image's name without folder and suffix, which the first line must agree with.

    Returns
    -------
    ndarray of float64, shape (n, 5)
        x, y, width, height, score.

    Raises
    ------
    ValueError
        The text is malformed; the message names the line.

    Examples
    --------
    >>> parse_text("a.jpg\n1\n10 20 30 40.5 0.9\n", "a")
    array([[10. , 20. , 30. , 40.5,  0.9]])
    """
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    start, count = _header(lines, stem)
    if count is None and start == len(lines):
        return None
    rows = [line.split() for line in lines[start:]]
    if count is not None and count != len(rows):
        raise ValueError(f"it announces {count} detections and has {len(rows)}")
    if not rows:
        return NOTHING
    width = len(rows[0])
    if width < COLUMNS or set(map(len, rows)) != {width}:
        at = next(i for i, row in enumerate(rows) if len(row) != max(width, COLUMNS))
        problem = f"has {len(rows[at])} columns, not {max(width, COLUMNS)}"
        raise ValueError(f"line {_line_number(text, start + at)} {problem}")
    try:
        if "_" in "".join(lines[start:]):  # float() would take it
            raise ValueError
        table = np.array(list(map(float, chain.from_iterable(rows)))).reshape(-1, width)
    except ValueError:
        at = next(i for i, row in enumerate(rows) if not all(map(_is_number, row)))
        raise ValueError(f"line {_line_number(text, start + at)} is not numbers") from None
    table = table[:, :COLUMNS]
    flaw = find_flaw(table[:, :4], table[:, 4])
    if flaw is not None:
        raise ValueError(f"line {_line_number(text, start + flaw[0])}: {flaw[1]}")
    return table


def _header(lines: list[str], stem: str) -> tuple[int, int | None]:
    """Where the detections start, and how many are announced."""
    if not lines:
        return 0, None
    start = 0
    name = without_suffix(lines[0].replace("\\", "/").rpartition("/")[2])
    if name == stem:
        start = 1
    elif not _is_number(lines[0].split()[0]):
        raise ValueError(f"its first line names {lines[0]!r}, another image")
    if start < len(lines) and len(lines[start].split()) == 1:
        if not lines[start].isdecimal():
            raise ValueError(f"{lines[start]!r} is not a number of detections")
        return start + 1, int(lines[start])
    return start, None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word  # float() would take 1_465, the end of many an image's name


def _line_number(text: str, row: int) -> int:
    filled = [at for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    return filled[row]
