"""Wall time of a run and of its stages."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from evalkit.core.errors import InputError
from evalkit.core.results import Stage


@dataclass(slots=True)
class Items:
    """How many items a stage has worked on; the stage sets it when it knows."""

    count: int = 0


class Clock:
    """Wall time of a run and of its stages.

    Examples
    --------
    >>> clock = Clock()
    >>> with clock.stage("fusion") as items:
    ...     items.count = 12
    >>> [(stage.name, stage.items) for stage in clock.stages]
    [('fusion', 12)]
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.stages: list[Stage] = []

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return time.perf_counter() - self.start

    @contextmanager
    def stage(self, name: str) -> Iterator[Items]:
        """Time a named stage; one that fails leaves no record."""
        begin = time.perf_counter()
        items = Items()
        yield items
        seconds = time.perf_counter() - begin
        self.stages.append(Stage(name=name, seconds=seconds, items=items.count))


@contextmanager
def scorable() -> Iterator[None]:
    """Turn a `ValueError` of the numerics, which is about the user's arrays, into an input error.

    Raises
    ------
    evalkit.core.errors.InputError
    """
    try:
        yield
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise InputError(f"These data cannot be scored: {reason}.") from error
