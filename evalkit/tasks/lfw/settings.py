"""Settings of the evaluation of the LFW family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from evalkit.core.option import Option
from evalkit.core.settings import DATA, OUTPUT, PROTOCOL, READY, RunSettings, refuse_limit

_EXAMPLES = """\
examples:
  evalkit lfw                                        the embedded sample and its model
  evalkit lfw --data lfw.bin --model backbone.onnx --output fp32.json
  evalkit lfw --data SETS --model r50.yaml --backend torch     every .bin, one table
  evalkit lfw --data lfw.bin --model backbone.onnx --errors errors
"""


class LfwSettings(RunSettings):
    """Settings of ``evalkit lfw``; a set is used whole, so no image may fail unless it is said."""

    takes = "embedding"
    examples = _EXAMPLES

    data: Annotated[
        Path | None,
        Option(
            "a .bin file, or a folder of several",
            DATA,
            "cell",
            "PATH",
            default="$EVALKIT_DATA, else the sample",
        ),
    ] = None
    max_failures: Annotated[
        int,
        Option("stop if more than N images fail: every pair of a set counts", DATA, "run", "N"),
    ] = Field(default=0, ge=0)
    output: Annotated[
        Path | None,
        Option(
            "write the result to this file; a folder of sets writes NAME.SET.json for each",
            OUTPUT,
            "file",
            "JSON",
            writes="file",
        ),
    ] = None
    flip: Annotated[bool, Option("add the mirrored image's embedding", PROTOCOL, "figure")] = True
    rules: Annotated[
        tuple[Literal["insightface", "exact", "facexzoo"], ...],
        Option("rules of accuracy: insightface, exact, facexzoo", PROTOCOL, "figure", "NAME,..."),
    ] = ("insightface", "exact")
    far: Annotated[
        tuple[float, ...],
        Option("FAR targets of VAL and TAR", PROTOCOL, "figure", "X,X,...", chooses=True),
    ] = (1e-3,)
    folds: Annotated[
        Literal["auto", "contiguous", "interleaved"],
        Option("how pairs fill the ten folds", PROTOCOL, "figure"),
    ] = "auto"
    errors: Annotated[
        Path | None,
        Option(
            "write pictures of the worst errors to this folder",
            PROTOCOL,
            "file",
            "DIR",
            writes="folder",
        ),
    ] = None
    embeddings: Annotated[
        Path | None,
        Option("embeddings, one row for each image, in the set's order", READY, "file", "NPY"),
    ] = None
    embeddings_flip: Annotated[
        Path | None, Option("embeddings of the mirrored images", READY, "file", "NPY")
    ] = None

    @field_validator("far")
    @classmethod
    def _in_range(cls, far: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < value < 1 for value in far):
            raise ValueError("each FAR must lie between 0 and 1")
        return tuple(sorted(set(far)))

    @field_validator("rules")
    @classmethod
    def _once(cls, rules: tuple[Any, ...]) -> tuple[Any, ...]:
        if not rules:
            raise ValueError("give at least one rule: insightface, exact or facexzoo")
        return tuple(dict.fromkeys(rules))

    @model_validator(mode="after")
    def _embeddings_first(self) -> LfwSettings:
        if self.embeddings_flip is not None and self.embeddings is None:
            raise ValueError("--embeddings-flip needs --embeddings")
        refuse_limit(self, "embeddings")
        return self
