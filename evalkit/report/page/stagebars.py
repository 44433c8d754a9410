"""Where the time of each run went, as stacked bars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evalkit.core.results import Stage
from evalkit.report.page.gather import Group
from evalkit.tasks.panels import letter

_WIDE, _LEFT, _ROW = 550, 40, 34
_LETTER = 7
"""About how wide a letter is: a part too narrow for its name has none."""


def stage_bars(group: Group) -> dict[str, Any] | None:
    """Return one bar a run, its stages in the order in which they ran; None without timings."""
    longest = max((_busy(result.stages) for _, result in group.ran), default=0.0)
    if longest == 0:
        return None
    stages = [stage for _, result in group.ran for stage in result.stages if stage.seconds > 0]
    colours = list(dict.fromkeys(stage.name for stage in stages))
    rows, words = [], []
    for number, (entry, result) in enumerate(group.ran):
        left, parts = float(_LEFT), []
        for stage in result.stages:
            wide = stage.seconds / longest * _WIDE
            if wide > 0:
                room = wide > 14 + _LETTER * len(stage.name)
                parts.append((colours.index(stage.name) % 4, stage, left, wide, room))
                left += wide
        size = result.ran.batch_size
        batch = "" if size is None else f", batch {size}"
        total = f"{_busy(result.stages):.1f} s{batch}"
        rows.append((letter(entry.run), number * _ROW + 4, parts, left, total))
        listed = ", ".join(f"{stage.name} {stage.seconds:.2f} s" for _, stage, *_ in parts)
        words.append(f"{entry.label}{batch}: {listed}")
    height = len(rows) * _ROW + 4
    return {"key": f"{group.key}-stages", "height": height, "rows": rows, "words": words}


def _busy(stages: Iterable[Stage]) -> float:
    return sum(stage.seconds for stage in stages)
