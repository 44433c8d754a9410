"""What the readers of predictions hand on, whatever form they read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalkit.widerface_eval.records import find_flaw

COLUMNS = 5
"""x, y, width, height, score; whatever follows in a row, such as landmarks, is left out."""
NOTHING = np.empty((0, COLUMNS))


@dataclass(slots=True)
class Found:
    """What a form of predictions turned out to hold.

    Attributes
    ----------
    rows : dict of str to ndarray of float64, shape (n, 5)
        By image.
    empty : list of str
        Images whose file states nothing.
    malformed : dict of str to str
        What is wrong, by image.
    extra : list of str
        Images that nobody asked for.
    """

    rows: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    malformed: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)

    def take(self, image: str, rows: NDArray[np.float64]) -> None:
        """Keep an image's rows, or what is wrong with the first that is no box with a score."""
        flaw = find_flaw(rows[:, :4], rows[:, 4])
        if flaw is None:
            self.rows[image] = rows
        else:
            self.malformed[image] = f"{image}: detection {flaw[0] + 1}: {flaw[1]}"
