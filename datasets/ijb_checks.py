"""The joins between the meta files of an IJB release, checked before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.errors import DatasetError
from evalkit.datasets.tables import Field, Table, read_csv

RELEASE_AGAIN: Final = "Take the meta files from one release, unchanged."

_ONE_TO_N: Final = (Field("TEMPLATE_ID", "int"), Field("SUBJECT_ID", "int"))
_LARGEST_LOOKUP: Final = 1 << 24
"""Ids up to this value are looked up in an array rather than by bisection."""


class Enrolment(NamedTuple):
    """Templates and their subjects.

    Attributes
    ----------
    template_id : ndarray of shape (n,), int32
        Ascending, each once.
    subject_id : ndarray of shape (n,), int32
        The subject of each.
    """

    template_id: NDArray[np.int32]
    subject_id: NDArray[np.int32]

    def subject_of(self, templates: NDArray[np.int32]) -> NDArray[np.int32]:
        """Subjects of templates that are all known, in the shape of the query."""
        subjects: NDArray[np.int32] = self.subject_id[positions(self.template_id, templates)]
        return subjects

    def among(self, templates: NDArray[np.int32]) -> Enrolment:
        """Take those of some templates that are here."""
        rows = np.isin(self.template_id, templates)
        return Enrolment(self.template_id[rows], self.subject_id[rows])


class OneToN(NamedTuple):
    """The 1:N files of a release.

    Attributes
    ----------
    galleries : mapping of str to Enrolment, or None
    probes : Enrolment or None
    tables : tuple of Table
    warnings : tuple of str
    """

    galleries: Mapping[str, Enrolment] | None = None
    probes: Enrolment | None = None
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()


def positions(ids: NDArray[np.int32], queries: NDArray[np.int32]) -> NDArray[np.integer]:
    """Positions of queries in an ascending array of ids that holds them all.

    Examples
    --------
    >>> positions(np.array([3, 7, 8], np.int32), np.array([8, 3], np.int32)).tolist()
    [2, 0]
    """
    if len(ids) and ids[0] >= 0 and ids[-1] < _LARGEST_LOOKUP:
        lookup = np.zeros(int(ids[-1]) + 1, np.int32)
        lookup[ids] = np.arange(len(ids), dtype=np.int32)
        return lookup[queries]
    return np.searchsorted(ids, queries)


def check_faces(faces: Table, points: Table) -> None:
    """Refuse face files whose rows do not name the same images, and unusable names or ids.

    Raises
    ------
    DatasetError
        Names the file and the line.
    """
    names, others = faces.columns["image"], points.columns["image"]
    rows = min(len(names), len(others))
    differ = names[:rows] != others[:rows]
    if differ.any():
        row = int(differ.argmax())
        raise DatasetError(
            f"The image is {os.fsdecode(others[row])!r}, but {os.fsdecode(names[row])!r} in "
            f"{faces.path.name} (line {faces.line_of(row)})",
            path=points.path,
            line=points.line_of(row),
            remedy=f"Both files must list the same images in the same order. {RELEASE_AGAIN}",
        )
    if len(names) != len(others):
        raise DatasetError(
            f"{len(others)} rows, but {faces.path.name} has {len(names)}",
            path=points.path,
            remedy=f"One of the two was cut off. {RELEASE_AGAIN}",
        )
    _check_names_stay_inside(faces)
    negative = faces.columns["template"] < 0
    if negative.any():
        row = int(negative.argmax())
        raise DatasetError(
            f"The template id {faces.columns['template'][row]} is negative",
            path=faces.path,
            line=faces.line_of(row),
            remedy=RELEASE_AGAIN,
        )


def _check_names_stay_inside(faces: Table) -> None:
    names = faces.columns["image"]
    blob = names.tobytes()
    if not any(part in blob for part in (b"..", b"/", b"\\", b":")):
        return
    for row, name in enumerate(names.tolist()):
        parts = name.replace(b"\\", b"/").split(b"/")
        if not parts[0] or b".." in parts or b":" in parts[0]:
            raise DatasetError(
                f"The image {os.fsdecode(name)!r} lies outside loose_crop/",
                path=faces.path,
                line=faces.line_of(row),
                remedy="Names must be relative to loose_crop/, without '..'.",
            )


def check_templates_have_faces(table: Table, templates: NDArray[np.int32], faces: Table) -> None:
    """Refuse templates (one or more a row of a table) that no face belongs to.

    Raises
    ------
    DatasetError
        Names the first line and its template.
    """
    known = np.unique(faces.columns["template"])
    columns = templates.reshape(len(templates), -1).T
    missing = [~np.isin(column, known) for column in columns]
    if not any(column.any() for column in missing):
        return
    row = int(np.logical_or.reduce(missing).argmax())
    side = next(index for index, column in enumerate(missing) if column[row])
    count = len(np.setdiff1d(templates, known))
    raise DatasetError(
        f"No face belongs to template {columns[side][row]} ({count} such templates in the file)",
        path=table.path,
        line=table.line_of(row),
        remedy=f"{faces.path.name} is of another release or was cut off. {RELEASE_AGAIN}",
    )


def odd_pairs(pairs: Table) -> list[str]:
    """Warnings on pairs that are listed twice, of a template with itself, or of one class only.

    Raises
    ------
    DatasetError
        A pair is listed both as genuine and as impostor.
    """
    templates, genuine = pairs.columns["templates"], pairs.columns["label"]
    warnings = []
    own = int(np.count_nonzero(templates[:, 0] == templates[:, 1]))
    if own:
        warnings.append(f"{pairs.path.name}: {own} pairs compare a template with itself.")
    for label, word in ((True, "genuine"), (False, "impostor")):
        if not (genuine == label).any():
            warnings.append(f"{pairs.path.name}: there are no {word} pairs.")
    keys = _pair_keys(templates)
    if (keys[1:] > keys[:-1]).all():  # most releases list their pairs in order
        return warnings
    keys.sort()
    repeated = keys[1:][keys[1:] == keys[:-1]]
    if len(repeated):
        warnings.append(f"{pairs.path.name}: {len(repeated)} pairs are repeated; each counts.")
        _refuse_contradictions(pairs, np.unique(repeated))
    return warnings


def _pair_keys(templates: NDArray[np.int32]) -> NDArray[np.int64]:
    """One number a pair; the score is symmetric, so (a, b) and (b, a) have the same."""
    left, right = templates.T
    keys: NDArray[np.int64] = np.minimum(left, right).astype(np.int64)
    keys <<= 32
    keys |= np.maximum(left, right)
    return keys


def _refuse_contradictions(pairs: Table, repeated: NDArray[np.int64]) -> None:
    keys, genuine = _pair_keys(pairs.columns["templates"]), pairs.columns["label"]
    rows = np.flatnonzero(np.isin(keys, repeated))
    _, first, inverse = np.unique(keys[rows], return_index=True, return_inverse=True)
    differ = genuine[rows] != genuine[rows[first]][inverse]
    if not differ.any():
        return
    at = int(differ.argmax())
    row, before = int(rows[at]), int(rows[first[inverse[at]]])
    low, high = divmod(int(keys[row]), 1 << 32)
    raise DatasetError(
        f"The templates {low} and {high} are labelled {int(genuine[row])} here, but "
        f"{int(genuine[before])} in line {pairs.line_of(before)}",
        path=pairs.path,
        line=pairs.line_of(row),
        remedy=RELEASE_AGAIN,
    )


def read_one_to_n(prefix: Path, galleries: Sequence[str], faces: Table, pairs: Table) -> OneToN:
    """Read the 1:N files, or none of them where one is missing.

    Parameters
    ----------
    prefix : Path
        What the files' paths begin with: ``meta/ijbc_1N``.
    galleries : sequence of str
    faces, pairs : Table

    Raises
    ------
    DatasetError
        A file is malformed, names a template without a face, or gives a template two subjects.
    """
    names = [*(f"gallery_{gallery}" for gallery in galleries), "probe_mixed"]
    files = [prefix.with_name(f"{prefix.name}_{name}.csv") for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if len(missing) == len(files):
        return OneToN()
    if missing:
        return OneToN(warnings=(f"1:N is left out, because meta/ lacks {', '.join(missing)}.",))
    tables = tuple(read_csv(file, _ONE_TO_N) for file in files)
    for table in tables:
        check_templates_have_faces(table, table.columns["TEMPLATE_ID"], faces)
    warnings = tuple(_odd_labels(pairs, _joined_subjects(tables)))
    *enrolled, probes = (_joined_subjects([table]) for table in tables)
    enrolments = MappingProxyType(dict(zip(galleries, enrolled, strict=True)))
    return OneToN(enrolments, probes, tables, warnings)


def _joined_subjects(tables: Sequence[Table]) -> Enrolment:
    """Join 1:N files into the subject of every template; an error names the line of a second."""
    templates = np.concatenate([table.columns["TEMPLATE_ID"] for table in tables])
    subjects = np.concatenate([table.columns["SUBJECT_ID"] for table in tables])
    unique, first, inverse = np.unique(templates, return_index=True, return_inverse=True)
    differ = subjects != subjects[first][inverse]
    if differ.any():
        at = row = int(differ.argmax())
        for table in tables:
            if row < len(table):
                raise DatasetError(
                    f"Template {templates[at]} is of subject {subjects[at]} here, but of "
                    f"subject {subjects[first[inverse[at]]]} before",
                    path=table.path,
                    line=table.line_of(row),
                    remedy=RELEASE_AGAIN,
                )
            row -= len(table)
    return Enrolment(unique, subjects[first])


def _odd_labels(pairs: Table, enrolment: Enrolment) -> list[str]:
    """Warnings on pairs whose label disagrees with the subjects that the 1:N files name."""
    templates, genuine = pairs.columns["templates"], pairs.columns["label"]
    unnamed = len(np.setdiff1d(templates, enrolment.template_id))
    if unnamed:
        return [
            f"{pairs.path.name}: the 1:N files name no subject for {unnamed} of its templates; "
            "subjects are taken from its genuine pairs."
        ]
    same = enrolment.subject_of(templates[:, 0]) == enrolment.subject_of(templates[:, 1])
    wrong = same != genuine
    if not wrong.any():
        return []
    count, row = int(np.count_nonzero(wrong)), int(wrong.argmax())
    return [
        f"{pairs.path.name}: {count} labels disagree with the subjects of the 1:N files, "
        f"first in line {pairs.line_of(row)}."
    ]
