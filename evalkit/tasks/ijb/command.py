"""``evalkit ijbc`` and ``evalkit ijbb``."""

from __future__ import annotations

from typing import Literal

from evalkit.core.progress import Progress
from evalkit.tasks.commands import Show
from evalkit.tasks.ijb.settings import IjbSettings


def run(name: str, settings: IjbSettings, progress: Progress, show: Show, *, command: str) -> None:
    """Evaluate, print the table, write the result."""
    from evalkit.report.ijb import describe  # noqa: PLC0415 - the report is above
    from evalkit.tasks.ijb.evaluation import evaluate  # noqa: PLC0415

    protocol: Literal["IJBB", "IJBC"] = "IJBC" if name == "ijbc" else "IJBB"
    result, scores = evaluate(protocol, settings, progress, command=command)
    show(describe(result))
    if settings.output is not None:
        result.save(settings.output, scores)
        show(f"\nresult: {settings.output}")
