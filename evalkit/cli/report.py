"""``evalkit report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.cli.options import command_line

EPILOG = """\
The page is one file and needs no network. It shows figures with intervals, curves, a threshold to
move, drift, speed, the worst samples if the data are available, and all settings and hashes. Curves
need the scores files beside the results. Results of the same data and rules share a section.

examples:
  evalkit report fp32.json int8.json --baseline fp32.json --out report.html
  evalkit report fp32.json fp16.json --bench bench.json --out report.html
  evalkit report signoff.json --out report.html     a sign-off's record, once more
  evalkit report fp32.json int8.json --out tables.md      the tables alone, or .csv
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULT.json",
        help="result files, or one signoff.json",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="compare the other results on the same data with this one; repeatable",
    )
    parser.add_argument(
        "--bench",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="file that evalkit bench --output wrote; repeatable",
    )
    parser.add_argument(
        "--title", default="", help="title of the page (default: names of the data)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help=".html, .md or .csv file to write (default: report.html)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Put the report together and write it."""
    from evalkit.core.errors import InputError
    from evalkit.report.page import check_path, write_report
    from evalkit.report.page.gather import load_bench, of_results, of_signoff
    from evalkit.verdict.signoff.record import RECORD_NAME, load_signoff

    check_path(arguments.out)
    first = arguments.results[0]
    if first.name == RECORD_NAME:
        if len(arguments.results) > 1 or arguments.baseline:
            raise InputError(f"{first} is a sign-off: it stands alone, with its own reference.")
        benches = tuple(load_bench(path) for path in arguments.bench)
        report = of_signoff(load_signoff(first), first.parent, benches=benches)
    else:
        report = of_results(
            arguments.results,
            baselines=arguments.baseline,
            benches=arguments.bench,
            title=arguments.title,
            command=command_line(arguments),
        )
    print(f"report: {write_report(arguments.out, report)}")
    return 0
