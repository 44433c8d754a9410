"""``evalkit compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

_EPILOG = """\
Both results must be of the same data by the same rules (else exit code 3), with the scores that
--output wrote beside them. Differences are candidate minus baseline.

examples:
  evalkit compare fp32.json int8.json
  evalkit compare fp32.json fp16.json --output difference.json
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.epilog = _EPILOG
    parser.add_argument("baseline", type=Path, metavar="A.json", help="the result to start from")
    parser.add_argument("candidate", type=Path, metavar="B.json", help="the result to judge")
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the comparison there")
    parser.add_argument("--all", action="store_true", help="show figures by event too")
    parser.set_defaults(run=run)


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
