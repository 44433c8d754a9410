"""``evalkit convert``."""

from __future__ import annotations

import argparse

from evalkit.cli.options import add_run_options, command_line, resolve

EPILOG = """\
examples:
  evalkit convert sample-recognition --to int8 --out sample-int8.onnx
  evalkit convert r50.onnx --to int8 --calibration IJBC --out r50-int8.onnx --yaml r50.yaml
  evalkit convert r50.yaml --to int8 --calibration faces.bin --auto-exclude --until-cosine 0.999 \\
      --out r50-int8.onnx
  evalkit convert scrfd-500m.yaml --to fp16 --calibration WIDER --out scrfd-fp16.onnx

Half of the identities are for calibration, the other half for the cosines to fp32. Exit code 1: the
model is wrong and was not written.
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    from evalkit.convert.settings import ConversionSettings

    add_run_options(parser, ConversionSettings)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print the figures of the new model; return 1 if it is wrong."""
    import sys

    from evalkit.convert.convert import convert
    from evalkit.convert.settings import ConversionSettings
    from evalkit.core.errors import EXIT_FAILED, EXIT_OK
    from evalkit.core.progress import Progress
    from evalkit.report.convert import describe

    config = resolve(arguments, ConversionSettings)
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    conversion = convert(config, progress, command=command_line(arguments))
    print(describe(conversion))
    if conversion.failure is None:
        return EXIT_OK
    print(f"evalkit convert: FAILED: {conversion.failure}", file=sys.stderr)
    return EXIT_FAILED
