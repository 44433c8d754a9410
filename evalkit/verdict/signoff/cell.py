"""The process of one cell of a sign-off: an evaluation that says in a file how it ended.

``python -m evalkit.verdict.signoff.cell TASK SETTINGS REASON``
"""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from evalkit.core.errors import EXIT_INTERNAL, EXIT_OK, InputError, explain
from evalkit.core.files import atomic_write
from evalkit.core.progress import Progress
from evalkit.core.records import Record
from evalkit.core.results import Text
from evalkit.core.settings import RunSettings
from evalkit.core.validation import check_written, read_yaml, validate
from evalkit.tasks import TASKS, settings_of
from evalkit.tasks.run import run


class Reason(Record):
    """How an evaluation ended: its exit code, and why where that is not 0."""

    code: int
    message: Text = ""


def main(task: str, settings_file: str, reason_file: str) -> int:
    """Evaluate a task by a file of settings, write how that ended, and return the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    reason = Reason(code=EXIT_OK)
    try:
        path = Path(settings_file)
        settings = validate(settings_of(task), read_yaml(path), str(path))
        check_written(settings)
        _evaluate(task, settings, f"evalkit {task} --config {path}")
    except (Exception, KeyboardInterrupt) as error:
        message, code = explain(error)
        if code == EXIT_INTERNAL:
            traceback.print_exc()
            message = traceback.format_exception_only(error)[-1].strip()
        sys.stderr.write(f"evalkit {task}: {message}\n")
        reason = Reason(code=code, message=message)
    with atomic_write(Path(reason_file)) as file:
        file.write(reason.model_dump_json().encode() + b"\n")
    return reason.code


def _evaluate(name: str, settings: RunSettings, command: str) -> None:
    if settings.output is None:
        raise InputError("the settings name no output")
    for outcome in run(TASKS.get(name)(), settings, Progress(), command=command):
        outcome.save(settings.output)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
