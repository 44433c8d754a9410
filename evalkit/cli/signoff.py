"""``evalkit signoff``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.cli.options import command_line

EPILOG = """\
exit codes: 0 all cells passed, 1 a cell failed, 2 the plan is wrong, 3 cannot be judged: a cell is
inconclusive or could not run

Each cell of the plan's matrix is an ordinary evaluation, stored in DIR/cells. After an interruption
the same command resumes. DIR has report.html, signoff.json (the record), signoff.md, .csv and .xml
(JUnit).
A cell passes if the one-sided bound of its change is within the plan's margin. It fails if the
change is beyond the margin with the same confidence.

examples:
  evalkit signoff sample                    a ready plan on the embedded samples
  evalkit signoff plan.yaml --dry-run       the cells, what is there, and how long the rest takes
  evalkit signoff plan.yaml --out release-1.4
  evalkit signoff plan.yaml --out release-1.4 --only torch:int8
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.add_argument(
        "plan", metavar="PLAN", help="YAML file of a plan, or the name of a ready plan"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of cells and record (default: signoff-PLAN)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the cells; only short probes run"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CELL",
        help="run only these cells and their references: protocol, backend:precision, or "
        "protocol/backend:precision; repeatable",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(arguments: argparse.Namespace) -> int:
    """Preview, or run, judge and publish."""
    from evalkit.core.progress import Progress
    from evalkit.report.signoff import describe_preview, publish
    from evalkit.verdict.plan import find_plan
    from evalkit.verdict.signoff.preview import preview
    from evalkit.verdict.signoff.run import signoff

    plan, name = find_plan(arguments.plan)
    folder = arguments.out or Path(f"signoff-{name}")
    progress = Progress(quiet=arguments.quiet)
    if arguments.dry_run:
        print(describe_preview(preview(plan, folder, progress, only=arguments.only)))
        return 0
    command = command_line(arguments)
    record = signoff(plan, folder, progress, only=arguments.only, command=command)
    written = publish(record, folder, print)
    print("\n" + "\n".join(f"written: {path}" for path in written))
    return record.exit_code
