"""``evalkit lfw``."""

from __future__ import annotations

from evalkit.core.progress import Progress
from evalkit.tasks.commands import Show
from evalkit.tasks.lfw.settings import LfwSettings


def run(name: str, settings: LfwSettings, progress: Progress, show: Show, *, command: str) -> None:
    """Evaluate every set, show the table, write the results."""
    from evalkit.report.lfw import describe, describe_all  # noqa: PLC0415 - the report is above
    from evalkit.report.sheets import write_error_sheets  # noqa: PLC0415
    from evalkit.tasks.lfw.evaluation import evaluate, find_sets  # noqa: PLC0415

    paths = find_sets(settings, progress)
    results = []
    try:
        for path in paths:
            result, scores, pairs = evaluate(path, settings, progress, command=command)
            results.append(result)
            if settings.output is not None:
                target = settings.output
                if len(paths) > 1:
                    target = target.with_name(f"{target.stem}.{path.stem}{target.suffix}")
                result.save(target, scores)
                progress.say(f"result: {target}")
            if settings.errors is not None:
                for sheet in write_error_sheets(settings.errors, pairs, result, scores):
                    progress.say(f"errors: {sheet}")
    finally:
        # Results are shown even if a file cannot be written, or a later set is bad.
        if results:
            show(describe(results[0]) if len(paths) == 1 else describe_all(results))
