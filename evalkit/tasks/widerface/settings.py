"""Settings of the evaluation of WIDER FACE."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from evalkit.core.settings import RunSettings


class WiderFaceSettings(RunSettings):
    """Settings of ``evalkit widerface``."""

    takes = "detection"

    ground_truth: Path | None = None
    events: tuple[str, ...] = ()
    rule: Literal["python", "python_file_order", "matlab", "matlab_int"] = "python"
    iou: float = Field(default=0.5, gt=0, le=1)
    steps: int = Field(default=1000, ge=1)
    head: str | None = None
    sizing: str | None = None
    score_threshold: float | None = None
    nms_threshold: float | None = None
    predictions: Path | None = None
    allow_missing: bool = False
    write_predictions: Path | None = None
    save_images: Path | None = None
