"""``evalkit pack``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict

from evalkit.cli.options import Options, resolve
from evalkit.core.alignment import AlignmentSettings
from evalkit.core.errors import InputError
from evalkit.core.option import Option
from evalkit.datasets.pairs import PackFormat, PairList

EPILOG = """\
examples:
  evalkit pack lfw --pairs pairs.txt --images lfw-aligned --out my.bin
  evalkit pack lfw --pairs pairs.csv --images photos --align 5pt --points points.txt --out my.bin
  evalkit pack lfw --pairs pairs.txt --images lfw --align detector --detector scrfd-500m.yaml \\
      --out my.bin
  evalkit pack lfw --images people --count 6000 --seed 1 --out my.bin    (a folder per identity)

Without --pairs, half of the drawn pairs are same pairs, and no person is in two of the ten folds.
Each fold needs two people, one of them with two images: 20 people in all.
"""


class PackSettings(AlignmentSettings):
    """Settings of ``evalkit pack``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[PackFormat, Option("format to write", "", "file", positional=True)]
    pairs: Annotated[
        Path | None,
        Option(
            "LFW's pairs.txt, or a .csv of path1,path2,label",
            "",
            "file",
            "FILE",
            default="draw pairs from --images, a folder for each identity",
        ),
    ] = None
    images: Annotated[Path | None, Option("folder of the images", "", "file", "DIR")] = None
    out: Annotated[Path, Option("file to write", "", "file", "BIN")]
    backend: Annotated[str, Option("runtime of the detector", "alignment", "run", "NAME")] = (
        "onnxruntime"
    )
    count: Annotated[int, Option("pairs to draw, a multiple of 20", "", "run")] = 6000
    seed: Annotated[int, Option("seed of the draw, 0 or more", "", "run")] = 0
    encoding: Annotated[Literal["png", "jpeg"], Option("format of aligned images", "", "run")] = (
        "png"
    )
    quality: Annotated[int, Option("quality of JPEG, 1 to 100", "", "run")] = 95


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    options = Options(parser)
    options.add(PackSettings, PackSettings.__annotations__)
    options.add(PackSettings, AlignmentSettings.model_fields, group="alignment")


def run(arguments: argparse.Namespace) -> int:
    """Write the set and print its counts."""
    from evalkit.core.detection import DetectionSettings
    from evalkit.datasets.pack import pack
    from evalkit.run.face_alignment import alignment

    settings = resolve(arguments, PackSettings)
    pairs = _pairs(settings)
    detection = DetectionSettings(backend=settings.backend)
    with alignment(settings, pairs.images, detection) as align:
        packed = pack(
            pairs,
            settings.out,
            align=align,
            encoding=settings.encoding,
            quality=settings.quality,
        )
    for warning in packed.warnings:
        print(f"warning: {warning}")
    print(
        f"{packed.path}: {packed.pairs:,} pairs ({packed.same:,} same, {packed.different:,} "
        f"different) of {packed.images:,} images, sha256 {packed.sha256}"
    )
    return 0


def _pairs(settings: PackSettings) -> PairList:
    from evalkit.datasets.pairs import pairs_from_csv, pairs_from_folder, pairs_from_lfw

    if settings.pairs is not None and settings.pairs.suffix.lower() == ".csv":
        return pairs_from_csv(settings.pairs, settings.images)
    if settings.images is None:
        raise InputError("--images is missing: name the folder of the images.")
    if settings.pairs is not None:
        return pairs_from_lfw(settings.pairs, settings.images)
    return pairs_from_folder(settings.images, settings.count, settings.seed)
