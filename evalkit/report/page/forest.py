"""A change and its bounds against the margin, as a picture small enough for a table's cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evalkit.report.page.gather import Group
from evalkit.report.page.tables import change_of

_WIDTH, _PAD = 150, 8


@dataclass(frozen=True, slots=True)
class Scale:
    """Range of changes that all rows of a table share."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a change lies; beyond the range it stays at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return _PAD + min(1.0, max(0.0, share)) * (_WIDTH - 2 * _PAD)


def scale_of(group: Group) -> Scale | None:
    """Return the range of a group's pictures; None where nothing was compared.

    The margin sets it where there is one, so that a wrecked run does not flatten the others.
    """
    changes = [change_of(group, entry) for entry in group.entries]
    values = [abs(value) for row in changes for value in row if value is not None]
    if not values:
        return None
    if group.margin is not None:
        return Scale(-2.2 * group.margin, 1.4 * group.margin)
    reach = 1.15 * max(*values, 1e-6)
    return Scale(-reach, reach)


def forest(
    scale: Scale,
    change: float,
    bounds: tuple[float | None, float | None],
    margin: float | None,
    kind: str,
) -> dict[str, Any]:
    """Return the places of one picture, and what it shows in words.

    Parameters
    ----------
    scale : Scale
    change : float
        0 to 1, as all that follow.
    bounds : tuple of float or None
        Low and high.
    margin : float or None
        The loss accepted.
    kind : {"pass", "fail", "open", "none"}
        Its colour.
    """
    low, high = bounds
    words = f"change {100 * change:+.3f} points"
    places: dict[str, Any] = {"kind": kind, "zero": scale.place(0), "at": scale.place(change)}
    if margin is not None:
        places["margin"] = scale.place(-margin)
        words += f", margin {-100 * margin:.3g}"
    if low is not None and high is not None:
        places["span"] = scale.place(low), scale.place(high)
        words += f", bounds {100 * low:+.3f} to {100 * high:+.3f}"
    places["away"] = (change > scale.high) - (change < scale.low)
    if places["away"]:
        words += " (beyond this picture)"
    return {**places, "words": words}
