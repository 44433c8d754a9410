"""The LFW family as a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evalkit.core.errors import InputError
from evalkit.core.results import Result
from evalkit.datasets.lfw import load_bin
from evalkit.run.frame import rate_name
from evalkit.stats.evidence import Array, Evidence
from evalkit.tasks.base import Task
from evalkit.tasks.lfw import evidence
from evalkit.tasks.lfw.settings import LfwSettings


class Lfw(Task[LfwSettings]):
    """LFW, CFP-FP, AgeDB-30 and every ``.bin`` of pairs: ten-fold verification."""

    name = "lfw"
    title = "LFW"
    head = "embedding"
    Settings = LfwSettings
    reading = (
        "figures in %, differences in points; intervals and tests two-sided, over pairs as if "
        "independent"
    )
    probe_images = 40

    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        """See `Task.read`."""
        return evidence.read(arrays, result)

    def primaries(self, settings: LfwSettings) -> tuple[str, ...]:
        """See `Task.primaries`."""
        rates = [f"{rate}@far={rate_name(far)}" for rate in ("tar", "val") for far in settings.far]
        # facexzoo counts ties as wrong either way, which no decision at a threshold does.
        accuracies = [f"accuracy/{rule}" for rule in settings.rules if rule != "facexzoo"]
        return (*rates, "auc", *accuracies)

    def views(self, settings: LfwSettings) -> tuple[str, ...]:
        """See `Task.views`."""
        return ("plain", "flip") if settings.flip else ("plain",)

    def finds(self, path: Path) -> bool:
        """See `Task.finds`: a file, or a folder that holds one set."""
        return path.is_file() or len(list(path.glob("*.bin"))) == 1

    def images(self, path: Path) -> int:
        """See `Task.images`."""
        if path.is_dir():
            raise InputError(f"{path} is a folder; name one .bin in it.")
        return 2 * len(load_bin(path))
