"""``evalkit sample``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

_EPILOG = """\
example:
  evalkit sample --kind ijbc --out sample --size tiny
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    from evalkit.datasets.sample import Kind

    parser.epilog = _EPILOG
    parser.add_argument("--kind", choices=get_args(Kind), required=True, help="format")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder to write"
    )
    parser.add_argument(
        "--size", choices=["tiny", "default", "large"], default="default", help="(default)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other faces (0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the sample."""
    from evalkit.core.progress import Progress
    from evalkit.datasets.sample import write_sample

    progress = Progress()
    with progress.counting("rendering", "images") as report:
        path = write_sample(
            arguments.kind,
            arguments.out,
            size=arguments.size,
            seed=arguments.seed,
            progress=report,
        )
    print(path)
    return 0
