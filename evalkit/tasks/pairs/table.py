"""A table of pairs: which images or scores, of one person or of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evalkit.core.files import sha256_file, sha256_json
from evalkit.datasets.errors import DatasetError

FIRST_ROW = 2
"""Line of the first pair: the header is the first line."""

_LABELS = {
    **dict.fromkeys(("1", "true", "same", "1.0"), True),
    **dict.fromkeys(("0", "false", "different", "0.0"), False),
}


@dataclass(frozen=True, slots=True, eq=False)
class PairTable:
    """Pairs of images, or scores of pairs.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the file.
    genuine : ndarray of bool, shape (pairs,)
    subjects : ndarray of str, shape (pairs, 2), or None
    images : tuple of str
        Distinct paths in the order in which the table names them; empty for scores.
    sides : ndarray of int64, shape (pairs, 2) or (0, 2)
        Rows of `images`; none for scores.
    scores : ndarray of float64, shape (pairs,), or None
    """

    path: Path
    sha256: str
    genuine: NDArray[np.bool_]
    subjects: NDArray[np.str_] | None
    images: tuple[str, ...] = ()
    sides: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    scores: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.genuine)

    def trials(self) -> str:
        """Return the hash of labels and subjects: what is compared, whatever the scores are."""
        people = [] if self.subjects is None else self.subjects.tolist()
        return sha256_json([self.genuine.tolist(), people])

    def part(self, limit: int | None) -> PairTable:
        """Return pairs of both kinds from all over the table, of about so many images."""
        if limit is None or limit >= len(self.images):
            return self
        kinds = [np.flatnonzero(self.genuine == kind) for kind in (True, False)]
        chosen = [
            rows[np.linspace(0, len(rows) - 1, min(len(rows), max(1, limit // 4))).astype(int)]
            for rows in kinds
            if len(rows)
        ]
        rows = np.sort(np.concatenate(chosen))
        images, sides = np.unique(self.sides[rows], return_inverse=True)
        return replace(
            self,
            genuine=self.genuine[rows],
            subjects=None if self.subjects is None else self.subjects[rows],
            images=tuple(self.images[image] for image in images),
            sides=sides.reshape(-1, 2),
        )

    def groups(self) -> NDArray[np.int64] | None:
        """Return a number for each image; those of one subject, or of joined pairs, share it."""
        if not len(self.sides):
            return None
        count = len(self.images)
        if self.subjects is not None:
            who = np.empty(count, self.subjects.dtype)
            who[self.sides] = self.subjects
            return np.unique(who, return_inverse=True)[1].astype(np.int64)
        links = coo_array((np.ones(len(self)), self.sides.T), shape=(count, count))
        joined: NDArray[np.int32] = connected_components(links, directed=False)[1]
        return joined.astype(np.int64)


def read_pairs(path: Path) -> PairTable:
    """Read a table of image pairs.

    Raises
    ------
    evalkit.datasets.errors.DatasetError
        It cannot be read, a column or a value is wrong, or subjects and labels disagree.
    """
    columns = _columns(path, ("path1", "path2", "same"))
    names = [_names(path, columns, name) for name in ("path1", "path2")]
    both = np.column_stack(names).ravel()
    distinct, first, rows = np.unique(both, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    sides = place[rows].reshape(-1, 2)
    table = replace(_labelled(path, columns), images=tuple(distinct[order].tolist()), sides=sides)
    _check_people(table)
    return table


def _check_people(table: PairTable) -> None:
    """Refuse an image that shows one subject in one row, and another in another."""
    if table.subjects is None:
        return
    who = np.empty(len(table.images), table.subjects.dtype)
    who[table.sides] = table.subjects
    wrong = np.argwhere(who[table.sides] != table.subjects)
    if len(wrong):
        row, side = wrong[0]
        image = table.sides[row, side]
        raise DatasetError(
            f"{table.images[image]} shows {str(table.subjects[row, side])!r} here, but "
            f"{str(who[image])!r} in another row",
            path=table.path,
            line=int(row) + FIRST_ROW,
            remedy="Correct the subjects of one of them.",
        )


def read_scores(path: Path) -> PairTable:
    """Read a table of scores; a higher score means more alike.

    Raises
    ------
    evalkit.datasets.errors.DatasetError
        As for `read_pairs`.
    """
    columns = _columns(path, ("score", "same"))
    values = _cast(path, columns, "score", pa.float64()).to_numpy(zero_copy_only=False)
    table = replace(_labelled(path, columns), scores=values.astype(np.float64))
    # Two models' scores of the same pairs are of the same data: the scores are no part of it.
    return replace(table, sha256=table.trials())


def _columns(path: Path, needed: tuple[str, ...]) -> Mapping[str, pa.ChunkedArray]:
    try:
        if path.suffix.lower() == ".parquet":
            table = parquet.read_table(path)
        else:
            texts = dict.fromkeys((*needed, "label", "subject1", "subject2"), pa.string())
            kinds = csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
            table = csv.read_csv(path, convert_options=kinds)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"The table cannot be read: {str(error).rstrip('.')}",
            path=path,
            remedy="Give a CSV file in UTF-8 with a header, or a Parquet file.",
        ) from error
    # Lists for `evalkit pack` call the column label.
    names = ["same" if name == "label" else name for name in table.column_names]
    table = table.rename_columns(names)
    absent = [name for name in needed if name not in table.column_names]
    if ("subject1" in table.column_names) != ("subject2" in table.column_names):
        absent.append("subject1 or subject2: give both or none")
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise DatasetError(
            f"The table has the column {twice[0]} twice", path=path, remedy="Remove one of them."
        )
    if absent:
        raise DatasetError(
            f"The table has no column {' and no column '.join(absent)}",
            path=path,
            remedy=f"Write the header {','.join(needed)}[,subject1,subject2].",
        )
    if not table.num_rows:
        raise DatasetError("The table has no pair", path=path, remedy="Add a row for each pair.")
    return {name: table.column(name) for name in table.column_names}


def _cast(
    path: Path, columns: Mapping[str, pa.ChunkedArray], name: str, kind: pa.DataType
) -> pa.ChunkedArray:
    try:
        column = columns[name].cast(kind, safe=False)
        column.validate(full=True)  # casting bytes to text checks nothing
    except pa.ArrowException as error:
        what = "numbers" if pa.types.is_floating(kind) else "text"
        raise DatasetError(
            f"The column {name} does not hold {what}: {str(error).rstrip('.')}",
            path=path,
            remedy="Correct the column.",
        ) from error
    return column


def _names(path: Path, columns: Mapping[str, pa.ChunkedArray], name: str) -> NDArray[np.str_]:
    texts = _cast(path, columns, name, pa.string()).to_pylist()
    for row, text in enumerate(texts, FIRST_ROW):
        if not text:
            raise DatasetError(f"{name} is empty", path=path, line=row, remedy="Fill it in.")
    return np.array(texts, dtype=np.str_)


def _labelled(path: Path, columns: Mapping[str, pa.ChunkedArray]) -> PairTable:
    labels = _cast(path, columns, "same", pa.string()).to_pylist()
    genuine = []
    for row, text in enumerate(labels, FIRST_ROW):
        label = _LABELS.get(str(text).strip().casefold())
        if label is None:
            raise DatasetError(
                f"same is {text!r}", path=path, line=row, remedy="Write 1 (same person) or 0."
            )
        genuine.append(label)
    table = PairTable(path, sha256_file(path), np.array(genuine), None)
    if "subject1" not in columns:
        return table
    columns_of_subjects = [_names(path, columns, name) for name in ("subject1", "subject2")]
    subjects = np.column_stack(columns_of_subjects)
    wrong = np.flatnonzero((subjects[:, 0] == subjects[:, 1]) != table.genuine)
    if len(wrong):
        first, second = subjects[wrong[0]]
        raise DatasetError(
            f"same is {int(table.genuine[wrong[0]])}, but the subjects are {first!r} and "
            f"{second!r}",
            path=path,
            line=int(wrong[0]) + FIRST_ROW,
            remedy="Correct the label or the subjects.",
        )
    return replace(table, subjects=subjects)
