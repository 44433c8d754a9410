"""Settings of a dump."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from evalkit.core.settings import RunSettings


class DumpSettings(RunSettings):
    """Settings of ``evalkit dump``."""

    kind: Literal["lfw", "ijbb", "ijbc", "widerface"]
    out: Path
    format: Literal["bin", "npy", "image", "npz"] = "bin"
    batch: int | None = Field(default=None, ge=1)
    dtype: Literal["float32", "uint8"] | None = None
    flip: bool = True
    sizing: str | None = None
    events: tuple[str, ...] = ()
    ground_truth: Path | None = None
    calibration: int | None = Field(default=None, ge=1)
    calibration_data: Path | None = None
    seed: int = Field(default=0, ge=0)
