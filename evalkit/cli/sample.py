"""``evalkit sample``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.datasets.sample import KINDS, SIZES, write_sample

EPILOG = """\
example:
  evalkit sample --kind ijbc --out sample --size tiny

Samples of any size and of other people: tools/paint_sample.py in evalkit's repository.
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.add_argument("--kind", choices=KINDS, required=True, help="format")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder to write"
    )
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="(default)")


def run(arguments: argparse.Namespace) -> int:
    """Write the sample."""
    print(write_sample(arguments.kind, arguments.out, size=arguments.size))
    return 0
