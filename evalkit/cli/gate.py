"""``evalkit gate``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """\
exit codes: 0 no regression, 1 a figure regressed or too many images failed, 2 wrong use,
3 cannot be judged (other data, rules or sample counts, a partial run, no figure)

The baseline is a result file, or what --update makes from one: a file without scores, timings and
paths, small enough to commit. If $GITHUB_STEP_SUMMARY names a file, the verdict is appended to it.
If $GITHUB_ACTIONS is true, failures become annotations.

examples:
  evalkit gate result.json --baseline baseline.json --update
  evalkit gate result.json --baseline baseline.json
  evalkit gate result.json --baseline baseline.json --policy strict --junit gate.xml
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.add_argument(
        "result", type=Path, metavar="RESULT", help="result file that --output wrote"
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        required=True,
        metavar="JSON",
        help="result or baseline to compare with",
    )
    parser.add_argument(
        "--policy",
        metavar="YAML",
        default="default",
        help="margins: a file, or the name of a ready policy (default: default)",
    )
    parser.add_argument(
        "--update", action="store_true", help="make the result the baseline; nothing is judged"
    )
    parser.add_argument(
        "--output", type=Path, metavar="JSON", help="write the verdict to this file"
    )
    parser.add_argument(
        "--junit", type=Path, metavar="XML", help="write a test case for each check"
    )
    parser.add_argument("--markdown", type=Path, metavar="MD", help="write a summary to this file")


def run(arguments: argparse.Namespace) -> int:
    """Judge the result or update the baseline, and write the reports."""
    from evalkit.core.results import load_result
    from evalkit.report.verdict import publish
    from evalkit.verdict.gate import judge, load_policy, update_baseline

    result = load_result(arguments.result)
    if arguments.update:
        for line in update_baseline(result, arguments.baseline):
            print(line)
        return 0
    policy = load_policy(arguments.policy)
    verdict = judge(result, load_result(arguments.baseline), policy)
    publish(
        verdict,
        print,
        output=arguments.output,
        junit_file=arguments.junit,
        markdown_file=arguments.markdown,
    )
    return verdict.exit_code
