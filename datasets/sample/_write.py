"""What every writer of a sample needs: its plan, threads, a marker, one atomic rename."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from evalkit.datasets.errors import DatasetError

GENERATOR_VERSION = 1
"""Changes with anything that changes a written byte, so that caches are not mistaken."""

MARKER = "evalkit-sample.json"
"""File beside (or in) every written sample that says what it is."""

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


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Give a temporary sibling of `out` to fill; it becomes `out` only if nothing fails.

    Raises
    ------
    DatasetError
        If `out` exists and is not an empty folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DatasetError("It already exists", path=out, remedy="Name a new or an empty folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        work.chmod(0o755)
        yield work
        work.replace(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def write_marker(folder: Path, kind: str, seed: int, plan: dict[str, int | float]) -> None:
    """Say in `folder` that its data is drawn, by which version, and with which parameters."""
    marker = {
        "name": f"evalkit-sample-{kind}",
        "about": "Faces drawn by evalkit in the real format; figures on them are no benchmark's.",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "parameters": plan,
    }
    text = json.dumps(marker, indent=2, sort_keys=True) + "\n"
    (folder / MARKER).write_text(text, encoding="utf-8")
