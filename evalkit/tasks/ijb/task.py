"""IJB-B and IJB-C as tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from evalkit.core.results import Result
from evalkit.stats.evidence import Array, Evidence
from evalkit.tasks.base import Task
from evalkit.tasks.figures import rate_name
from evalkit.tasks.ijb import evidence, pictures
from evalkit.tasks.ijb.settings import IjbSettings
from evalkit.tasks.panels import Gallery, Runs


class Ijb(Task[IjbSettings]):
    """Verification and identification of templates, by the protocol of one release."""

    protocol: ClassVar[Literal["IJBB", "IJBC"]]
    head = "embedding"
    Settings = IjbSettings
    reading = "figures in %, differences in points; intervals two-sided, over subjects"

    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        """See `Task.read`."""
        return evidence.read(arrays, result)

    def pictures(self, runs: Runs) -> tuple[Gallery, ...]:
        """See `Task.pictures`."""
        return pictures.pictures(runs)

    def primaries(self, settings: IjbSettings) -> tuple[str, ...]:
        """See `Task.primaries`."""
        if settings.rule != "at_most":
            raise ValueError(f"settings: the test is of the rule at_most, not of {settings.rule}")
        return tuple(f"tar@far={rate_name(far)}" for far in settings.far)

    def views(self, settings: IjbSettings) -> tuple[str, ...]:
        """See `Task.views`."""
        return ("plain",) if settings.flip == "none" else ("plain", "flip")

    def finds(self, path: Path) -> bool:
        """See `Task.finds`: a release folder, or the folder that holds it."""
        marker = Path("meta", f"{self.protocol.lower()}_face_tid_mid.txt")
        return any((folder / marker).is_file() for folder in (path, path / self.protocol))


class Ijbb(Ijb):
    """IJB-B."""

    name = "ijbb"
    title = "IJB-B"
    protocol = "IJBB"


class Ijbc(Ijb):
    """IJB-C."""

    name = "ijbc"
    title = "IJB-C"
    protocol = "IJBC"
