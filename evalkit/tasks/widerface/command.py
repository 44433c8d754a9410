"""``evalkit widerface``."""

from __future__ import annotations

from evalkit.core.progress import Progress
from evalkit.tasks.commands import Show
from evalkit.tasks.widerface.settings import WiderFaceSettings


def run(
    name: str, settings: WiderFaceSettings, progress: Progress, show: Show, *, command: str
) -> None:
    """Evaluate, show the table, write the files that the settings name."""
    from evalkit.report.detection import describe  # noqa: PLC0415 - the report is above
    from evalkit.tasks.widerface.curves import write_pr_curves  # noqa: PLC0415 - matplotlib
    from evalkit.tasks.widerface.evaluation import evaluate  # noqa: PLC0415
    from evalkit.tasks.widerface.pictures import write_detection_pictures  # noqa: PLC0415
    from evalkit.widerface_eval import write_predictions  # noqa: PLC0415

    done = evaluate(settings, progress, command=command)
    result = done.result
    show(describe(result))
    if settings.output is not None:
        result.save(settings.output, done.counts.arrays())
        show(f"\nresult: {settings.output}")
    if settings.write_predictions is not None:
        write_predictions(settings.write_predictions, done.predicted)
        lost = len(done.evaluation.detections.images) - len(done.predicted.images)
        if lost:
            progress.say(
                f"{settings.write_predictions}: without {lost} images that have no outcome"
            )
    if settings.save_images is not None:
        written = write_pr_curves(settings.save_images, result.model.name, done.evaluation.curves)
        if done.images is None:
            progress.say("There is no image to draw on: only the curves are written.")
        else:
            written += write_detection_pictures(settings.save_images, done.images, done.evaluation)
        progress.say(f"pictures: {len(written)} files in {settings.save_images}")
