"""``evalkit env``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """\
examples:
  evalkit env create mxnet
  evalkit env list
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    from evalkit.backends.environments import ENVIRONMENTS

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = actions.add_parser("create", help="build an environment, or resume one")
    make.add_argument("name", choices=sorted(ENVIRONMENTS), help="its backend")
    make.add_argument(
        "--path", type=Path, metavar="DIR", help="folder (default: in the cache, $EVALKIT_CACHE)"
    )
    make.add_argument(
        "--base",
        metavar="PYTHON",
        help="interpreter to build it from (default: the first that fits)",
    )
    make.set_defaults(run=create)
    actions.add_parser("list", help="list the environments and their folders").set_defaults(
        run=show
    )


def create(arguments: argparse.Namespace) -> int:
    """Build an environment, see that its backend runs there, say how to use it."""
    from evalkit.backends import environments
    from evalkit.backends.worker.session import probe_in
    from evalkit.core.errors import UnavailableError
    from evalkit.core.progress import Progress

    name = arguments.name
    usual = environments.folder_of(name)
    folder = (arguments.path or usual).expanduser().absolute()
    python = environments.create(name, folder, arguments.base, Progress().say)
    probe = probe_in(python, name)
    if not probe.available:
        raise UnavailableError(
            f"{folder} is made, but {name} does not run there: {probe.reason} {probe.remedy}"
        )
    print(f"{name} {probe.version} runs: {', '.join(probe.devices)}, {', '.join(probe.precisions)}")
    if folder == usual.absolute():
        print(f"--backend {name} finds it by itself; to name it:")
    print(f"--backend {name} --python {python}")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print a table of the environments."""
    from evalkit.backends.environments import ENVIRONMENTS, folder_of, state
    from evalkit.report.table import text_table

    rows = []
    for name, pins in sorted(ENVIRONMENTS.items()):
        folder = folder_of(name)
        rows.append([name, state(name, folder), str(folder), " ".join(pins.packages)])
    print(text_table(["name", "state", "folder", "packages"], rows, left=4))
    return 0
