"""Pictures of the faces whose embeddings moved furthest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evalkit.core.results import Result
from evalkit.tasks.panels import Gallery, Runs
from evalkit.tasks.pictures import Image, StoredSamples, gallery, moved


def pictures(runs: Runs) -> tuple[Gallery, ...]:
    """Return the images that moved furthest."""
    return gallery("Images that moved furthest", lambda: moved(runs, _by_name))


def _by_name(result: Result) -> Callable[[str], Image]:
    return StoredSamples(result, Path(result.dataset.path) / "loose_crop").load
