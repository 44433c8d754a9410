"""Settings of the verification of one's own pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import field_validator, model_validator

from evalkit.core.option import Option
from evalkit.core.settings import DATA, PROTOCOL, READY, RunSettings, refuse_limit

_HEADER = "path1,path2,same[,subject1,subject2]"


class PairsSettings(RunSettings):
    """Settings of ``evalkit pairs``."""

    takes = "embedding"
    examples: ClassVar[str] = """\
examples:
  evalkit pairs --data pairs.csv --model backbone.onnx --output fp32.json
  evalkit pairs --data pairs.parquet --images photos --align detector --detector scrfd.yaml \\
      --model backbone.onnx
  evalkit pairs --scores scores.csv --fmr 1e-5,1e-4
"""

    data: Annotated[
        Path | None,
        Option(f"CSV or Parquet file with the columns {_HEADER}", DATA, "cell", "FILE"),
    ] = None
    images: Annotated[
        Path | None,
        Option("folder that the paths start from", DATA, "figure", "DIR", default="the file's"),
    ] = None
    align: Annotated[
        Literal["none", "5pt", "detector"],
        Option("align photographs: by a file of points, or by a detector", DATA, "figure"),
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
    flip: Annotated[bool, Option("add the mirrored image's embedding", PROTOCOL, "figure")] = False
    fmr: Annotated[
        tuple[float, ...], Option("FMR targets of FNMR", PROTOCOL, "figure", "X,X,...")
    ] = (1e-4, 1e-3, 1e-2)
    embeddings: Annotated[
        Path | None,
        Option(
            "one row an image, in the order in which the table names them", READY, "file", "NPY"
        ),
    ] = None
    scores: Annotated[
        Path | None,
        Option(
            "CSV or Parquet file with the columns score,same[,subject1,subject2]",
            READY,
            "file",
            "FILE",
        ),
    ] = None

    @field_validator("fmr")
    @classmethod
    def _in_range(cls, fmr: tuple[float, ...]) -> tuple[float, ...]:
        if not fmr or any(not 0 < value < 1 for value in fmr):
            raise ValueError("give at least one FMR, each between 0 and 1")
        return tuple(sorted(set(fmr)))

    @model_validator(mode="after")
    def _one_source(self) -> PairsSettings:
        if self.scores is not None and (self.data is not None or self.embeddings is not None):
            raise ValueError("--scores has its own labels; leave out --data and --embeddings")
        for name, kind in (("points", "5pt"), ("detector", "detector")):
            if (getattr(self, name) is not None) != (self.align == kind):
                raise ValueError(f"--align {kind} and --{name} need each other")
        refuse_limit(self, "embeddings", "scores")
        return self
