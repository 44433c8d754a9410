"""WIDER FACE as a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evalkit.core.results import Result
from evalkit.stats.evidence import Array, Evidence
from evalkit.tasks.base import Task
from evalkit.tasks.widerface import evidence
from evalkit.tasks.widerface.settings import WiderFaceSettings


class WiderFaceTask(Task[WiderFaceSettings]):
    """Average precision of a detector on the Easy, Medium and Hard faces of the validation set."""

    name = "widerface"
    title = "WIDER FACE"
    head = "detection"
    Settings = WiderFaceSettings
    reading = "figures in %, differences in points; intervals two-sided, over images"
    probe_images = 4

    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        """See `Task.read`."""
        return evidence.read(arrays, result)

    def primaries(self, settings: WiderFaceSettings) -> tuple[str, ...]:
        """See `Task.primaries`."""
        return ("ap/easy", "ap/medium", "ap/hard")

    def finds(self, path: Path) -> bool:
        """See `Task.finds`: annotations of either split."""
        return any(path.rglob("wider_face_*_bbx_gt.txt"))
