"""Settings of runs of a detector."""

from __future__ import annotations

from typing import Annotated

from evalkit.core.option import Option
from evalkit.core.settings import RunSettings

DETECTOR = "detector"


class DetectionSettings(RunSettings):
    """Settings of every run of a detector."""

    takes = "detection"

    head: Annotated[
        str | None,
        Option("retinaface, scrfd, yunet, ...", DETECTOR, "figure", "NAME", default="model YAML"),
    ] = None
    sizing: Annotated[
        str | None,
        Option(
            "such as 'original' or 'short_side=800 max=1333'",
            DETECTOR,
            "figure",
            "TEXT",
            default="model YAML",
        ),
    ] = None
    score_threshold: Annotated[
        float | None,
        Option(
            "least score of a detection", DETECTOR, "figure", "X", default="model YAML, else 0.02"
        ),
    ] = None
    nms_threshold: Annotated[
        float | None,
        Option(
            "of two detections that overlap more, drop the weaker",
            DETECTOR,
            "figure",
            "X",
            default="model YAML, else 0.4",
        ),
    ] = None
