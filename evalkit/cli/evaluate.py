"""The command of every task: ``evalkit ijbc``, ``evalkit lfw``, ..."""

from __future__ import annotations

import argparse

from evalkit.cli.options import add_run_options, command_line, resolve
from evalkit.tasks import settings_of


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options that the task's settings declare."""
    kind = settings_of(name)
    parser.epilog = kind.examples.replace("{name}", name)
    add_run_options(parser, kind)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print the table, write what the settings name."""
    from evalkit.core.progress import Progress
    from evalkit.core.validation import check_written
    from evalkit.tasks.commands import command_of

    settings = resolve(arguments, settings_of(arguments.command))
    check_written(settings)
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    evaluate = command_of(arguments.command)
    evaluate(arguments.command, settings, progress, print, command=command_line(arguments))
    return 0
