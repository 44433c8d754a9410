"""Settings of a conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from evalkit.convert.base import Method
from evalkit.core.option import Option
from evalkit.core.settings import PREPARATION, RunSettings

_CALIBRATION = "calibration"
_LAYERS = "layers"


class ConversionSettings(RunSettings):
    """Settings of ``evalkit convert``; `precision` is what is built."""

    shared = frozenset({"architecture", *PREPARATION, "device", "threads", "worker_timeout"})

    model: Annotated[
        str | None,
        Option("model file, model YAML, or its name", "", "cell", metavar="MODEL", positional=True),
    ] = None
    precision: Annotated[
        Literal["fp16", "bf16", "int8"],
        Option("precision to build", "", "cell", option="--to", required=True),
    ] = "int8"
    out: Annotated[Path, Option("file to write", "", "file", "FILE")]
    backend: Annotated[str, Option("backend whose toolchain converts", "", "cell", "NAME")] = (
        "onnxruntime"
    )
    replace: Annotated[
        bool, Option("replace --out", "", "file", option="--overwrite", only_on=True)
    ] = False
    yaml: Annotated[
        Path | None,
        Option("add the file to this model YAML, or write the YAML", "", "file", "YAML"),
    ] = None
    calibration: Annotated[
        Path | None,
        Option(
            "an IJB release, a .bin, a WIDER FACE folder, or a folder of images",
            _CALIBRATION,
            "file",
            "DATA",
            default="the embedded sample",
        ),
    ] = None
    evaluated: Annotated[
        Path | None,
        Option(
            "data that will be evaluated: none of its identities and images are drawn",
            _CALIBRATION,
            "file",
            "DATA",
        ),
    ] = None
    samples: Annotated[int, Option("images for calibration", _CALIBRATION, "figure", "N")] = Field(
        default=256, ge=1
    )
    held_out: Annotated[
        int, Option("images for the comparison with fp32", _CALIBRATION, "figure", "N")
    ] = Field(default=128, ge=1)
    seed: Annotated[int, Option("seed of the draw", _CALIBRATION, "figure", "N")] = Field(
        default=0, ge=0
    )
    method: Annotated[
        Method | None,
        Option(
            "how int8 ranges are chosen",
            _CALIBRATION,
            "figure",
            default="the first that the toolchain has",
        ),
    ] = None
    per_channel: Annotated[
        bool, Option("one scale for each channel of a weight", _CALIBRATION, "figure")
    ] = True
    symmetric: Annotated[bool, Option("centre the ranges on zero", _CALIBRATION, "figure")] = True
    least_cosine: Annotated[
        float,
        Option("write no model whose mean cosine to fp32 is lower", _CALIBRATION, "run", "X"),
    ] = Field(default=0.9, ge=0, le=1)
    exclude: Annotated[
        tuple[str, ...],
        Option(
            "keep these layers in fp32; globs; repeatable", _LAYERS, "figure", "NAME", repeat=True
        ),
    ] = ()
    auto_exclude: Annotated[
        bool,
        Option("exclude the worst layers until the goal is met", _LAYERS, "figure", only_on=True),
    ] = False
    until_cosine: Annotated[
        float | None, Option("goal: mean cosine to fp32", _LAYERS, "figure", "X", default="0.999")
    ] = Field(default=None, gt=0, le=1)
    until_accuracy: Annotated[
        float | None,
        Option("goal: accuracy on pairs of a .bin", _LAYERS, "figure", "X"),
    ] = Field(default=None, gt=0, le=1)
    python: Annotated[
        Path | None, Option("interpreter that has the toolchain", "model", "cell", "EXE")
    ] = None

    @model_validator(mode="after")
    def _goals(self) -> ConversionSettings:
        if self.until_cosine is not None and self.until_accuracy is not None:
            raise ValueError("give --until-cosine or --until-accuracy, not both")
        if not self.auto_exclude and (self.until_cosine or self.until_accuracy):
            raise ValueError("--until-cosine and --until-accuracy are goals of --auto-exclude")
        return self
