"""``evalkit convert``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.cli.options import command_line, resolve, scale

_EPILOG = """\
examples:
  evalkit convert sample-recognition --to int8 --out sample-int8.onnx
  evalkit convert r50.onnx --to int8 --calibration IJBC --out r50-int8.onnx --yaml r50.yaml
  evalkit convert r50.yaml --to int8 --calibration faces.bin --auto-exclude --until-cosine 0.999 \\
      --out r50-int8.onnx
  evalkit convert scrfd-500m.yaml --to fp16 --calibration WIDER --out scrfd-fp16.onnx

Half of the identities calibrate; cosines to fp32 are of the other half. Exit code 1: the model came
out wrong and was not written.
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.epilog = _EPILOG
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("model", metavar="MODEL", help="model file, model YAML, or its name")
    parser.add_argument(
        "--to", dest="precision", choices=["fp16", "bf16", "int8"], required=True, help="target"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="what to write")
    parser.add_argument("--backend", metavar="NAME", help="whose toolchain (onnxruntime)")
    parser.add_argument("--overwrite", dest="replace", action="store_true", help="replace --out")
    parser.add_argument(
        "--yaml", type=Path, metavar="YAML", help="add the file to this model YAML, or write it"
    )
    _add_calibration(parser)
    _add_exclusion(parser)
    _add_model(parser)
    parser.set_defaults(run=run)


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("calibration")
    data.add_argument(
        "--calibration",
        type=Path,
        metavar="DATA",
        help="an IJB release, a .bin, a WIDER FACE folder, or a folder of images (the embedded "
        "sample)",
    )
    data.add_argument(
        "--evaluated",
        type=Path,
        metavar="DATA",
        help="what it will be judged on: none of its identities and images are drawn",
    )
    data.add_argument("--samples", type=int, metavar="N", help="images to calibrate with (256)")
    data.add_argument("--held-out", type=int, metavar="N", help="images to compare with (128)")
    data.add_argument("--seed", type=int, metavar="N", help="of the draw (0)")
    data.add_argument(
        "--method", choices=["minmax", "entropy", "percentile"], help="the toolchain's first"
    )
    boolean = argparse.BooleanOptionalAction
    data.add_argument("--per-channel", action=boolean, help="a scale for each channel (on)")
    data.add_argument("--symmetric", action=boolean, help="ranges centred on zero (on)")
    data.add_argument(
        "--least-cosine", type=float, metavar="X", help="below it nothing is written (0.9)"
    )


def _add_exclusion(parser: argparse.ArgumentParser) -> None:
    layers = parser.add_argument_group("layers")
    layers.add_argument(
        "--exclude", action="append", metavar="NAME", help="keep these in fp32; globs, repeatable"
    )
    layers.add_argument(
        "--auto-exclude", action="store_true", help="exclude the worst layers until the goal is met"
    )
    layers.add_argument("--until-cosine", type=float, metavar="X", help="mean, to fp32 (0.999)")
    layers.add_argument(
        "--until-accuracy", type=float, metavar="X", help="of verifying held-out pairs of a .bin"
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument("--architecture", metavar="NAME", help="for files of weights alone")
    model.add_argument("--color", choices=["rgb", "bgr"], help="channel order (rgb)")
    model.add_argument("--layout", choices=["nchw", "nhwc"], help="tensor layout (nchw)")
    for option, does in (("--mean", "subtracted"), ("--std", "divided by")):
        model.add_argument(
            option, type=scale, metavar="X[,X,X]", help=f"{does}, in pixel units (127.5)"
        )
    model.add_argument("--device", metavar="DEVICE", help="that builds and compares (cpu)")
    model.add_argument("--threads", type=int, metavar="N", help="of toolchain and runtime (cores)")
    model.add_argument(
        "--python", type=Path, metavar="EXE", help="interpreter that has the toolchain"
    )
    model.add_argument(
        "--worker-timeout",
        type=float,
        metavar="S",
        help="seconds that a worker may take to open the model, and for a batch (600)",
    )
    model.add_argument("--quiet", action="store_true", help="no progress, only the table")
    model.add_argument("--config", type=Path, metavar="YAML", help="settings from a file")


def run(arguments: argparse.Namespace) -> int:
    """Convert, print what came of it; 1 if the model came out wrong."""
    import sys

    from evalkit.convert.convert import ConversionSettings, convert
    from evalkit.core.errors import EXIT_FAILED, EXIT_OK
    from evalkit.core.progress import Progress
    from evalkit.report.convert import describe

    config = resolve(arguments, ConversionSettings)
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    found = convert(config, progress, command=command_line(arguments))
    print(describe(found))
    if found.failure is None:
        return EXIT_OK
    print(f"evalkit convert: FAILED: {found.failure}", file=sys.stderr)
    return EXIT_FAILED
