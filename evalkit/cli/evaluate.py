"""The command of every task: ``evalkit ijbc``, ``evalkit lfw``, ..."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from evalkit.cli.options import add_run_options, command_line, resolve
from evalkit.tasks import TASKS, settings_of

if TYPE_CHECKING:
    from evalkit.core.progress import Progress
    from evalkit.core.results import Result
    from evalkit.core.settings import RunSettings
    from evalkit.tasks.base import Task
    from evalkit.tasks.run import Outcome


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options that the task's settings declare."""
    kind = settings_of(name)
    parser.epilog = kind.examples.replace("{name}", name)
    add_run_options(parser, kind)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate every data set of the run, show the tables, write what the settings name."""
    from evalkit.core.progress import Progress
    from evalkit.core.validation import check_written

    settings = resolve(arguments, settings_of(arguments.command))
    check_written(settings)
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    evaluate(TASKS.get(arguments.command)(), settings, progress, command_line(arguments))
    return 0


def evaluate(task: Task[Any], settings: RunSettings, progress: Progress, command: str) -> None:
    """Evaluate every data set of a run; show the tables, write the files."""
    from evalkit.report.terminal import describe, describe_all
    from evalkit.tasks.run import run

    results: list[Result] = []
    several = False
    try:
        for outcome in run(task, settings, progress, command=command):
            several = bool(outcome.samples.key)
            results.append(outcome.result)
            if not several:
                print(describe(task, outcome.result))
            _write(task, outcome, settings, progress)
    finally:
        # Results are shown even if a file cannot be written, or a later set is bad.
        if several:
            print(describe_all(task, results))


def _write(task: Task[Any], outcome: Outcome, settings: RunSettings, progress: Progress) -> None:
    key, path = outcome.samples.key, settings.output
    if path is not None and key:
        path = path.with_name(f"{path.stem}.{key}{path.suffix}")
        outcome.save(path)
        progress.say(f"result: {path}")
    elif path is not None:
        outcome.save(path)
        print(f"\nresult: {path}")
    for line in task.write(outcome.result, outcome.evaluation, outcome.samples, settings):
        progress.say(line)
