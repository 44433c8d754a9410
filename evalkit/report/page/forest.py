"""A change and its bounds against the margin, as a picture small enough for a table's cell."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from evalkit.report.page.gather import Group
from evalkit.report.page.tables import change_of

WIDTH, HEIGHT = 150, 28
_PAD = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """Range of changes that all rows of a table share."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a change lies; beyond the range it stays at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return _PAD + min(1.0, max(0.0, share)) * (WIDTH - 2 * _PAD)


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
) -> Markup:
    """Draw one change.

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
    middle = HEIGHT / 2
    low, high = bounds
    words = f"change {100 * change:+.3f} points"
    parts = []
    if margin is not None:
        x = scale.place(-margin)
        parts.append(f'<rect class="allowed" x="{x:.1f}" y="3" height="{HEIGHT - 6}" ')
        parts.append(f'width="{WIDTH - _PAD - x:.1f}"/>')
        parts.append(f'<path class="margin" d="M{x:.1f} 2V{HEIGHT - 2}"/>')
        words += f", margin {-100 * margin:.3g}"
    zero = scale.place(0)
    parts.append(f'<path class="zero" d="M{zero:.1f} 2V{HEIGHT - 2}"/>')
    if low is not None and high is not None:
        ends = f"M{scale.place(low):.1f} {middle}H{scale.place(high):.1f}"
        parts.append(f'<path class="span" d="{ends}"/>')
        words += f", bounds {100 * low:+.3f} to {100 * high:+.3f}"
    x = scale.place(change)
    if scale.low <= change <= scale.high:
        parts.append(f'<circle class="at" cx="{x:.1f}" cy="{middle}" r="4.5"/>')
    else:
        away = 1 if change > scale.high else -1
        tip = f"M{x + 4 * away:.1f} {middle}L{x - 6 * away:.1f} {middle - 6}V{middle + 6}Z"
        parts.append(f'<path class="at" d="{tip}"/>')
        words += " (beyond this picture)"
    return Markup(
        f'<svg class="forest is-{kind}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img"><title>{escape(words)}</title>{"".join(parts)}</svg>'
    )
