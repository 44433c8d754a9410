"""What a run names of the device that ran its model elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalkit.backends.base import SessionOptions
from evalkit.backends.outputs.manifest import Dump, Entry, Task
from evalkit.backends.outputs.reading import Outputs

Read = Callable[[Entry], Outputs]
"""Gives the device's outputs of a file of inputs."""
Verify = int | Literal["all"] | None
"""How many outputs to compare with the model run here; None compares what nothing else checks."""


@dataclass(frozen=True, slots=True)
class HostCheck:
    """What the model's own outputs here say about those of the device.

    Attributes
    ----------
    count : int
        Outputs that were compared; 0 where the model could not run here.
    misplaced : tuple of (str, str)
        Images that have another's output, and whose.
    note : str
        A sentence for the result.
    """

    count: int
    misplaced: tuple[tuple[str, str], ...]
    note: str


Compare = Callable[[Dump, Read, int], HostCheck]
"""Runs so many inputs of a dump by the model here, and compares."""


@dataclass(frozen=True, slots=True)
class OutputsOptions(SessionOptions):
    """How to open outputs of a device.

    Attributes
    ----------
    manifest : Path or None
        The dump's folder, or its manifest.
    runtime_info, throughput_log : Path or None
    task : str or None
        What the evaluation is of; a dump for another task is refused.
    verify : int, "all" or None
        How many inputs to run here too.
    compare : callable or None
        Does so; None where no backend here has a file of the model.
    """

    manifest: Path | None = None
    runtime_info: Path | None = None
    throughput_log: Path | None = None
    task: Task | None = None
    verify: Verify = None
    compare: Compare | None = None
