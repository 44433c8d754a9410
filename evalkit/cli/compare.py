"""``evalkit compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """\
Both results must have the same data and rules, else the exit code is 3. The scores files that
--output wrote must be beside them. A difference is candidate minus baseline.

examples:
  evalkit compare fp32.json int8.json
  evalkit compare fp32.json fp16.json --output difference.json
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.add_argument("baseline", type=Path, metavar="A.json", help="baseline")
    parser.add_argument("candidate", type=Path, metavar="B.json", help="candidate")
    parser.add_argument(
        "--output", type=Path, metavar="JSON", help="write the comparison to this file"
    )
    parser.add_argument(
        "--all", action="store_true", help="also show the figures that the tables leave out"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, print the tables, write the comparison."""
    from evalkit.core.files import atomic_write
    from evalkit.report.compare import describe
    from evalkit.verdict.compare import compare

    comparison = compare(arguments.baseline, arguments.candidate)
    if arguments.output is not None:
        with atomic_write(arguments.output) as file:
            file.write(comparison.model_dump_json(indent=2).encode() + b"\n")
    print(describe(comparison, everything=arguments.all))
    if arguments.output is not None:
        print(f"\ncomparison: {arguments.output}")
    return 0
