"""``evalkit inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """\
example:
  evalkit inspect lfw.bin
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.add_argument("file", type=Path, metavar="FILE", help=".bin file of the LFW family")


def run(arguments: argparse.Namespace) -> int:
    """Say what the set holds; nothing in it is executed."""
    from evalkit.datasets.lfw import inspect_bin
    from evalkit.report.inspect import describe

    print(describe(inspect_bin(arguments.file)))
    return 0
