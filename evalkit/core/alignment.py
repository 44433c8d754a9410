"""Settings of the alignment of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, model_validator

from evalkit.core.option import Option
from evalkit.core.settings import DATA


class AlignmentSettings(BaseModel):
    """Settings of whatever can make aligned faces of photographs."""

    align: Annotated[
        Literal["none", "5pt", "detector"],
        Option(
            "align photographs by a file of points, or by a detector: the face nearest to the "
            "centre",
            DATA,
            "figure",
        ),
    ] = "none"
    points: Annotated[
        Path | None, Option("for 5pt: image and x1 y1 ... x5 y5 in a line", DATA, "figure", "FILE")
    ] = None
    detector: Annotated[
        str | None,
        Option("for detector: a model YAML that gives five points", DATA, "figure", "MODEL"),
    ] = None
    score_threshold: Annotated[
        float, Option("for detector: least score of a face", DATA, "figure", "X")
    ] = 0.5

    @model_validator(mode="after")
    def _with_its_file(self) -> AlignmentSettings:
        options = {"5pt": ("points", self.points), "detector": ("detector", self.detector)}
        for kind, (name, value) in options.items():
            if self.align != kind and value is not None:
                raise ValueError(f"--{name} is for --align {kind}, not {self.align}")
        name, value = options.get(self.align, ("", ""))
        if value is None:
            raise ValueError(f"--align {self.align} needs --{name}")
        return self
