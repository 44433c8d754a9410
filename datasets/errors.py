"""The error of a data set that is not what it should be."""

from __future__ import annotations

from pathlib import Path


class DatasetError(ValueError):
    """A file of a data set is missing, malformed or does not fit the others.

    Parameters
    ----------
    problem : str
        What is wrong, in one sentence without its full stop.
    path : path-like, optional
        The file (or folder) it is wrong in.
    line : int, optional
        The line, counted from 1.
    remedy : str, optional
        What the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        remedy: str | None = None,
    ) -> None:
        where = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(f"{where}{problem}." + (f" {remedy}" if remedy else ""))
        self.path = path
        self.line = line


class UnreadableImage(DatasetError):  # noqa: N818 - no fault of the program
    """One image is missing or does not decode: the run goes on without it."""
