"""Paint faces or scenes in the format of a benchmark, or the sample that comes with evalkit.

    python tools/paint_sample.py --kind ijb --size 600 --seed 7 --out big
    python tools/paint_sample.py --package --out datasets/sample/data    # an earlier one removed

Another seed gives other people. A folder of the kind `ijb` serves `evalkit ijbb` and `ijbc`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evalkit.datasets.errors import DatasetError
from sample_painter import KINDS, LIMITS, paint, paint_package


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kind", choices=KINDS, help="the format")
    what.add_argument("--package", action="store_true", help="all data files of the package")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    ranges = ", ".join(f"{kind} {low} to {high:,}" for kind, (low, high) in LIMITS.items())
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help=f"subjects (ijb), pairs (lfw) or images (widerface);\n{ranges}",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    options = parser.parse_args()
    if (options.size is None) != options.package:
        parser.error("--kind needs --size, and --package takes none")
    return options


def _report(done: int, total: int) -> None:
    if done == total or not done % 100:
        print(f"{done:,} of {total:,} images", file=sys.stderr)


def main() -> int:
    """Paint what the options say."""
    options = _options()
    try:
        if options.package:
            paint_package(options.out)
        else:
            paint(options.kind, options.out, size=options.size, seed=options.seed, progress=_report)
    except DatasetError as error:
        print(f"paint_sample: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
