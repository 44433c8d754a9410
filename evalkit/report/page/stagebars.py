"""Where the time of each run went, as stacked bars that need no script."""

from __future__ import annotations

from markupsafe import Markup, escape

from evalkit.report.page.gather import Group
from evalkit.tasks.panels import letter

WIDTH, ROW, LEFT, RIGHT = 720, 34, 40, 130
_LETTER = 7
"""About how wide a letter is: a part too narrow for its name has none."""


def stage_bars(group: Group) -> Markup:
    """Draw one bar a run, its stages in the order in which they ran; empty without timings."""
    runs = [
        (entry, result.ran.batch_size, [s for s in result.stages if s.seconds > 0])
        for entry, result in group.ran
    ]
    longest = max((sum(s.seconds for s in stages) for *_, stages in runs), default=0.0)
    if longest == 0:
        return Markup()
    names = list(dict.fromkeys(stage.name for *_, stages in runs for stage in stages))
    parts = []
    words = []
    for row, (entry, batch_size, stages) in enumerate(runs):
        top = row * ROW + 4
        parts.append(f'<text class="label" x="4" y="{top + 18}">{letter(entry.run)}</text>')
        left = float(LEFT)
        for stage in stages:
            wide = stage.seconds / longest * (WIDTH - LEFT - RIGHT)
            kind = f"stage t{names.index(stage.name) % 4}"
            text = f"{stage.name}: {stage.seconds:.2f} s"
            parts.append(f'<g class="{kind}"><title>{escape(text)}</title>')
            parts.append(f'<rect x="{left:.1f}" y="{top}" width="{wide:.1f}" height="26"/>')
            if wide > 14 + _LETTER * len(stage.name):
                parts.append(f'<text x="{left + 6:.1f}" y="{top + 17}">{escape(stage.name)}</text>')
            parts.append("</g>")
            left += wide
        batch = "" if batch_size is None else f", batch {batch_size}"
        total = f"{sum(stage.seconds for stage in stages):.1f} s{batch}"
        parts.append(f'<text x="{left + 6:.1f}" y="{top + 17}">{total}</text>')
        listed = ", ".join(f"{stage.name} {stage.seconds:.2f} s" for stage in stages)
        words.append(f"{entry.label}{batch}: {listed}")
    height = len(runs) * ROW + 4
    key = f"{group.key}-stages"
    return Markup(
        f'<svg class="chart bars" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">Busy time of each stage</title>'
        f'<desc id="{key}-d">{escape("; ".join(words))}</desc>{"".join(parts)}</svg>'
    )
