"""``evalkit pack``."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit.datasets.pack import Align
    from evalkit.datasets.pairs import PairList

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


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    from evalkit.datasets.pairs import PACKED

    parser.add_argument("kind", choices=PACKED, help="format to write")
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="LFW's pairs.txt, or a .csv of path1,path2,label (default: draw pairs from --images, "
        "a folder for each identity)",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument("--out", type=Path, required=True, metavar="BIN", help="file to write")
    _add_alignment(parser)
    parser.add_argument(
        "--count", type=int, default=6000, help="pairs to draw, a multiple of 20 (default: 6000)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the draw, 0 or more (default: 0)"
    )
    parser.add_argument(
        "--encoding",
        choices=["png", "jpeg"],
        default="png",
        help="format of aligned images (default: png)",
    )
    parser.add_argument(
        "--quality", type=int, default=95, help="quality of JPEG, 1 to 100 (default: 95)"
    )


def _add_alignment(parser: argparse.ArgumentParser) -> None:
    alignment = parser.add_argument_group("alignment")
    alignment.add_argument(
        "--align",
        choices=["none", "5pt", "detector"],
        default="none",
        help="none: the images are aligned; 5pt: with the points of a file; detector: with the "
        "points of the detected face that is nearest to the centre (default: none)",
    )
    alignment.add_argument(
        "--points",
        type=Path,
        metavar="FILE",
        help="for 5pt: each line has an image and x1 y1 ... x5 y5",
    )
    alignment.add_argument(
        "--detector",
        metavar="MODEL",
        help="for detector: model YAML of a detector that gives five points",
    )
    alignment.add_argument(
        "--backend",
        default="onnxruntime",
        metavar="NAME",
        help="runtime of the detector (default: onnxruntime)",
    )
    alignment.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="X",
        help="least score of a detected face (default: 0.5)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the set and say what it holds."""
    from evalkit.datasets.pack import pack

    pairs = _pairs(arguments)
    with _alignment(arguments) as align:
        packed = pack(
            pairs,
            arguments.out,
            align=align,
            encoding=arguments.encoding,
            quality=arguments.quality,
        )
    for warning in packed.warnings:
        print(f"warning: {warning}")
    print(
        f"{packed.path}: {packed.pairs:,} pairs ({packed.same:,} same, {packed.different:,} "
        f"different) of {packed.images:,} images, sha256 {packed.sha256}"
    )
    return 0


def _pairs(arguments: argparse.Namespace) -> PairList:
    from evalkit.core.errors import InputError
    from evalkit.datasets.pairs import pairs_from_csv, pairs_from_folder, pairs_from_lfw

    if arguments.pairs is not None and arguments.pairs.suffix.lower() == ".csv":
        return pairs_from_csv(arguments.pairs, arguments.images)
    if arguments.images is None:
        raise InputError("--images is missing: name the folder of the images.")
    if arguments.pairs is not None:
        return pairs_from_lfw(arguments.pairs, arguments.images)
    return pairs_from_folder(arguments.images, arguments.count, arguments.seed)


def _alignment(arguments: argparse.Namespace) -> AbstractContextManager[Align | None]:
    from evalkit.core.errors import InputError
    from evalkit.datasets.pack import five_point_alignment

    for option, kind in (("points", "5pt"), ("detector", "detector")):
        if getattr(arguments, option) is not None and arguments.align != kind:
            raise InputError(f"--{option} is for --align {kind}, not {arguments.align}.")
    if arguments.align == "none":
        return nullcontext()
    if arguments.align == "detector":
        return _detector(arguments)
    if arguments.points is None or arguments.images is None:
        raise InputError("--align 5pt needs --points FILE and --images DIR.")
    return nullcontext(five_point_alignment(arguments.points, arguments.images))


def _detector(arguments: argparse.Namespace) -> AbstractContextManager[Align]:
    from evalkit.core.detection import DetectionSettings
    from evalkit.core.errors import InputError
    from evalkit.core.settings import load_model_config
    from evalkit.run.face_alignment import detector_alignment

    if arguments.detector is None:
        raise InputError("--align detector needs --detector MODEL.")
    run = DetectionSettings(backend=arguments.backend)
    return detector_alignment(
        run,
        load_model_config(arguments.detector, run),
        score_threshold=arguments.score_threshold,
    )
