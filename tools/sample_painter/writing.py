"""What every writer of a sample needs: threads and a marker."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from evalkit.datasets.ijb import MARKER

GENERATOR_VERSION = 2
"""Changes with anything that changes a written byte."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_Task = TypeVar("_Task")
_Record = TypeVar("_Record")


def in_threads(
    work: Callable[[_Task], _Record],
    tasks: Sequence[_Task],
    progress: Progress | None,
    threads: int = 2,
) -> list[_Record]:
    """Do every task, in threads; records come in the order of the tasks."""
    records = []
    with ThreadPoolExecutor(threads) as pool:
        for done, record in enumerate(pool.map(work, tasks), start=1):
            records.append(record)
            if progress is not None:
                progress(done, len(tasks))
    return records


def write_marker(folder: Path, kind: str, seed: int, plan: dict[str, int | float]) -> None:
    """Say in `folder` that its data are painted, by which version, and with which parameters."""
    marker = {
        "name": f"evalkit-sample-{kind}",
        "about": "Faces painted by evalkit in the real format; figures on them are no benchmark's.",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "parameters": plan,
    }
    text = json.dumps(marker, indent=2, sort_keys=True) + "\n"
    (folder / MARKER).write_text(text, encoding="utf-8")
