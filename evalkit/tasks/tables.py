"""Tables as plain data: a task fills them, the report draws them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    header : tuple of str
    rows : tuple of tuple of str
    title : str
        A line above it, empty without one.
    left : int
        How many of the first columns hold words; the others numbers.
    notes : tuple of str
        Lines below it that say how to read it.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    left: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """A result for a reader.

    Attributes
    ----------
    dataset : str
        Name and counts.
    rules : str
        The conventions that the figures rest on; empty where there are none to name.
    partial : str
        Why a partial result is partial.
    tables : tuple of Table
    """

    dataset: str
    rules: str
    partial: str
    tables: tuple[Table, ...]
