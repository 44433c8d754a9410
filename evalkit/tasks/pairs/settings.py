"""Settings of ``evalkit pairs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import field_validator, model_validator

from evalkit.core.alignment import AlignmentSettings
from evalkit.core.option import Option
from evalkit.core.settings import DATA, PROTOCOL, READY, RunSettings, refuse_limit

_HEADER = "path1,path2,same[,subject1,subject2]"


class PairsSettings(AlignmentSettings, RunSettings):
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
        Option(
            f"CSV or Parquet file with the columns {_HEADER}",
            DATA,
            "cell",
            "FILE",
            default="$EVALKIT_DATA",
        ),
    ] = None
    images: Annotated[
        Path | None,
        Option("folder that the paths start from", DATA, "figure", "DIR", default="the file's"),
    ] = None
    flip: Annotated[bool, Option("add the mirrored image's embedding", PROTOCOL, "figure")] = False
    fmr: Annotated[
        tuple[float, ...],
        Option("FMR targets of FNMR", PROTOCOL, "figure", "X,X,...", chooses=True),
    ] = (1e-4, 1e-3, 1e-2)
    embeddings: Annotated[
        Path | None,
        Option(
            "one row an image, in the order of first appearance in the table", READY, "file", "NPY"
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
        refuse_limit(self, "embeddings", "scores")
        return self
