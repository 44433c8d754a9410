"""Lists of image pairs: from LFW's ``pairs.txt``, a CSV, or drawn from a folder per identity."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final, Literal, TypeAlias

import numpy as np

from evalkit.datasets.errors import DatasetError

PackFormat: TypeAlias = Literal["lfw"]
"""A format that lists of pairs can be packed into."""

FOLDS: Final = 10
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Of image files, in the order in which they are looked for."""

_LABELS: Final = {
    **dict.fromkeys(("1", "true", "same"), True),
    **dict.fromkeys(("0", "false", "different"), False),
}
_NUMBER: Final = re.compile("[0-9]{1,6}")
_ENUMERATED: Final = 50_000
"""Up to so many possible pairs are all listed before drawing. Of more, pairs are drawn until
enough of them differ."""


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Two image files.

    Attributes
    ----------
    first, second : Path
    same : bool
        Whether they show one person.
    line : int or None
        Line of the list that names them.
    """

    first: Path
    second: Path
    same: bool
    line: int | None = None


@dataclass(frozen=True, slots=True)
class PairList:
    """Pairs of image files, all of which exist.

    Attributes
    ----------
    source : Path
        The list, or the folder that the pairs were drawn from.
    images : Path
        The folder that all images lie in.
    pairs : tuple of ImagePair
    """

    source: Path
    images: Path
    pairs: tuple[ImagePair, ...]


def pairs_from_lfw(path: str | Path, images: str | Path) -> PairList:
    """Read a list in the layout of LFW's ``pairs.txt``.

    A line is ``name i j`` (same) or ``name1 i name2 j`` (different), an image
    ``name/name_0001.jpg`` or of another usual suffix. A first line ``folds n`` or ``n`` says how
    many pairs of each kind a fold has.

    Parameters
    ----------
    path : path-like
        The list.
    images : path-like
        Folder with a folder per person.

    Raises
    ------
    DatasetError
        The list is missing, malformed or incomplete, or an image is missing; names the line.
    """
    path, images = Path(path), Path(images)
    rows = [(number, cells) for number, line in _lines(path) if (cells := line.split())]
    announced = None
    if rows and len(rows[0][1]) <= 2 and all(map(_NUMBER.fullmatch, rows[0][1])):
        announced = 2 * math.prod(int(cell) for cell in rows.pop(0)[1])
    pairs = []
    for line, cells in rows:
        if len(cells) not in (3, 4) or not (
            _NUMBER.fullmatch(cells[1]) and _NUMBER.fullmatch(cells[-1])
        ):
            raise DatasetError(
                f"{' '.join(cells)[:80]!r} is neither 'name i j' nor 'name1 i name2 j'",
                path=path,
                line=line,
                remedy="Correct the line.",
            )
        other = cells[0] if len(cells) == 3 else cells[2]
        first = _numbered(images, cells[0], int(cells[1]), path, line)
        second = _numbered(images, other, int(cells[-1]), path, line)
        pairs.append(ImagePair(first, second, len(cells) == 3, line))
    if announced is not None and announced != len(pairs):
        raise DatasetError(
            f"The first line announces {announced} pairs, but {len(pairs)} follow",
            path=path,
            line=1,
            remedy="Take the list from its source again, or correct the line.",
        )
    return _listed(path, images, pairs)


def pairs_from_csv(path: str | Path, images: str | Path | None = None) -> PairList:
    """Read a list of ``path1,path2,label`` lines, with or without a header.

    A first line of three cells is a header if the third is no label, and neither of the others
    is an image or has the name of one.

    Parameters
    ----------
    path : path-like
        The list; a label is 1, true or same, or 0, false or different.
    images : path-like, optional
        Folder that the paths start from; by default the list's own.

    Raises
    ------
    DatasetError
        The list is missing or malformed, or an image is missing or outside of the folder; names
        the line.
    """
    path = Path(path)
    images = path.parent if images is None else Path(images)
    pairs = []
    for position, (line, text) in enumerate(_lines(path)):
        row = _cells(text)
        if not any(row) or (not position and _is_header(row, images)):
            continue
        label = _LABELS.get(row[2].casefold()) if len(row) == 3 else None
        if label is None:
            raise DatasetError(
                f"{text[:80]!r} is not 'path1,path2,label' with a label of 0 or 1",
                path=path,
                line=line,
                remedy="Correct the line.",
            )
        first, second = (inside(images, cell, path, line) for cell in row[:2])
        for image in (first, second):
            if not image.is_file():
                raise _missing(image, path, line)
        pairs.append(ImagePair(first, second, label, line))
    return _listed(path, images, pairs)


def pairs_from_folder(images: str | Path, count: int = 6000, seed: int = 0) -> PairList:
    """Draw pairs from a folder that holds a folder of images per identity.

    Every fold has other people, so that a threshold is never judged on people it was chosen with.
    A fold has as many same as different pairs, the same pairs first. Same pairs are spread over
    the people as evenly as possible. Different pairs are drawn evenly from all. No pair occurs
    twice.

    Parameters
    ----------
    images : path-like
    count : int
        Number of pairs, a multiple of 20.
    seed : int
        0 or more; the same folder and seed give the same pairs.

    Raises
    ------
    DatasetError
        The folder is missing, or holds too few people or images; or the seed is negative.
    """
    images = Path(images)
    if seed < 0:
        raise DatasetError(f"The seed is {seed}", remedy="Give 0 or a positive number.")
    if count < 2 * FOLDS or count % (2 * FOLDS):
        raise DatasetError(
            f"{count} pairs cannot be balanced over {FOLDS} folds",
            remedy=f"Ask for a multiple of {2 * FOLDS}.",
        )
    random = np.random.default_rng(seed)
    people = _people(images)
    # People with one image come last, so that each fold gets as many who can form same pairs.
    order = sorted(random.permutation(len(people)).tolist(), key=lambda i: len(people[i]) < 2)
    groups = [[people[i] for i in order[fold::FOLDS]] for fold in range(FOLDS)]
    most = min(min(_same_pairs(group), _different_pairs(group)) for group in groups)
    if count > 2 * FOLDS * most:
        raise DatasetError(
            f"{len(people)} people in {FOLDS} folds do not give {count} pairs",
            path=images,
            remedy=(
                f"Ask for at most {2 * FOLDS * most}."
                if most
                else f"Every fold needs two people, one of them with two images: add people "
                f"(at least {2 * FOLDS})."
            ),
        )
    pairs: list[ImagePair] = []
    for group in groups:
        pairs += _draw_same(group, count // FOLDS // 2, random)
        pairs += _draw_different(group, count // FOLDS // 2, random)
    return PairList(images, images, tuple(pairs))


def _people(images: Path) -> list[list[Path]]:
    if not images.is_dir():
        raise DatasetError("This is not a folder", path=images, remedy="Check the path.")
    people = []
    for folder in sorted(path for path in images.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if files:
            people.append(files)
    return people


def _same_pairs(group: Sequence[Sequence[Path]]) -> int:
    return sum(math.comb(len(files), 2) for files in group)


def _different_pairs(group: Sequence[Sequence[Path]]) -> int:
    return math.comb(sum(map(len, group)), 2) - _same_pairs(group)


def _draw_same(
    group: Sequence[Sequence[Path]], count: int, random: np.random.Generator
) -> list[ImagePair]:
    drawn = []
    for files in group:
        possible = math.comb(len(files), 2)
        numbers = random.choice(possible, min(possible, count), replace=False).tolist()
        drawn.append([_numbered_pair(files, number) for number in numbers])
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*drawn))
    return list(itertools.islice((pair for pair in rounds if pair), count))


def _numbered_pair(files: Sequence[Path], number: int) -> ImagePair:
    """Count the pairs (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    second = (1 + math.isqrt(1 + 8 * number)) // 2
    return ImagePair(files[number - math.comb(second, 2)], files[second], same=True)


def _draw_different(
    group: Sequence[Sequence[Path]], count: int, random: np.random.Generator
) -> list[ImagePair]:
    owned = [(person, file) for person, files in enumerate(group) for file in files]
    if _different_pairs(group) <= _ENUMERATED:
        every = [
            ImagePair(a, b, same=False)
            for (one, a), (two, b) in itertools.combinations(owned, 2)
            if one != two
        ]
        return [every[i] for i in random.choice(len(every), count, replace=False)]
    chosen: dict[tuple[int, int], ImagePair] = {}
    while len(chosen) < count:
        i, j = sorted(random.integers(len(owned), size=2).tolist())
        if owned[i][0] != owned[j][0]:
            chosen.setdefault((i, j), ImagePair(owned[i][1], owned[j][1], same=False))
    return list(chosen.values())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\r\n")
    except OSError as error:
        raise DatasetError(
            f"The list cannot be read: {error.strerror}", path=path, remedy="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            "The list is not UTF-8 text", path=path, remedy="Save it as UTF-8."
        ) from error


def _cells(text: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([text]), [])]
    except csv.Error:  # a cell is longer than the csv module reads
        return [text]


def _is_header(row: Sequence[str], images: Path) -> bool:
    """Whether a first row is names of columns, not a pair with a mistake in it."""
    return (
        len(row) == 3
        and (row[2].casefold() not in _LABELS or row[:2] == ["path1", "path2"])
        and not any(Path(cell).suffix.lower() in SUFFIXES for cell in row[:2])
        and not any((images / cell).is_file() for cell in row[:2] if "\0" not in cell)
    )


def _listed(path: Path, images: Path, pairs: Sequence[ImagePair]) -> PairList:
    if not pairs:
        raise DatasetError("The list holds no pair", path=path, remedy="Check the file.")
    return PairList(path, images, tuple(pairs))


def inside(root: Path, name: str, path: Path, line: int) -> Path:
    """Return the file of a path that a list names, which must lie below a folder.

    Raises
    ------
    DatasetError
        The path is absolute, or leads out of the folder; names the list's line.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    elsewhere = parts.is_absolute() or ".." in parts.parts or PureWindowsPath(name).drive
    if not name or "\0" in name or elsewhere:
        raise DatasetError(
            f"{name[:80]!r} is not a path below the folder of images",
            path=path,
            line=line,
            remedy="Write it relative to that folder.",
        )
    return root / parts


def _numbered(images: Path, name: str, number: int, path: Path, line: int) -> Path:
    stem = inside(images, f"{name}/{name}_{number:04d}", path, line)
    for suffix in SUFFIXES:
        image = stem.with_name(stem.name + suffix)
        if image.is_file():
            return image
    raise _missing(stem.with_name(stem.name + SUFFIXES[0]), path, line)


def _missing(image: Path, path: Path, line: int) -> DatasetError:
    return DatasetError(
        f"There is no image {image}",
        path=path,
        line=line,
        remedy="Check the folder of images, or remove the line.",
    )
