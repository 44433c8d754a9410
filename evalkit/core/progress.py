"""Progress of long stages: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

Advance = Callable[[int], None]

_LINE_EVERY_S = 10.0


class Progress:
    """Where stages report to.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    stream : file, optional
        Standard error by default.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream if stream is not None else sys.stderr

    def say(self, line: str) -> None:
        """Show one line (not where quiet)."""
        if not self.quiet:
            tqdm.write(line, file=self.stream)

    @contextmanager
    def stage(self, name: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Report one stage.

        Parameters
        ----------
        name, unit : str
            What is done, and to what: ``"inference"``, ``"faces"``.
        total, done : int
            How many there are, and how many an earlier run has done.

        Yields
        ------
        callable
            To be called with the number of newly finished items.
        """
        if self.quiet or total <= 0:
            yield lambda _: None
        elif self.stream.isatty():
            with tqdm(
                total=total,
                initial=done,
                desc=name,
                unit=f" {unit}",
                file=self.stream,
                smoothing=0.1,
                dynamic_ncols=True,
            ) as bar:
                yield lambda count: _discard(bar.update(count))
        else:
            yield _Lines(name, total, unit, done, self.say)


def _discard(_: object) -> None:
    return None


class _Lines:
    """Progress for logs: a line every ten seconds, and one at the end."""

    def __init__(
        self, name: str, total: int, unit: str, done: int, say: Callable[[str], None]
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.first = self.done = done
        self.say = say
        self.start = self.last = time.monotonic()

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last < _LINE_EVERY_S and self.done < self.total:
            return
        self.last = now
        rate = (self.done - self.first) / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        self.say(
            f"{self.name}: {self.done:,}/{self.total:,} {self.unit} "
            f"({self.done / self.total:.0%}), {rate:,.0f}/s, {_clock(left)} left"
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
