"""WIDER FACE as a task."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.progress import Progress
from evalkit.core.results import Failure, Result
from evalkit.run.detecting import rows_of
from evalkit.run.inference import Inferred
from evalkit.stats.evidence import Array, Evidence
from evalkit.stats.matches import image_counts
from evalkit.tasks.base import Evaluation, Ready, Samples, Task, Work
from evalkit.tasks.panels import Gallery, Runs
from evalkit.tasks.tables import Summary
from evalkit.tasks.widerface import evidence, pictures, tables
from evalkit.tasks.widerface.figures import intervals_of, metrics_of
from evalkit.tasks.widerface.samples import (
    ANNOTATIONS,
    Data,
    list_photographs,
    load_samples,
    truth_folder,
)
from evalkit.tasks.widerface.scenes import scene_arrays
from evalkit.tasks.widerface.settings import WiderFaceSettings
from evalkit.widerface_eval import (
    Detections,
    GroundTruth,
    IncompleteError,
    Settings,
    WiderFaceError,
    read_predictions,
    write_predictions,
)
from evalkit.widerface_eval import Evaluation as Scored
from evalkit.widerface_eval import evaluate as score


class WiderFaceTask(Task[WiderFaceSettings]):
    """Average precision of a detector on the Easy, Medium and Hard faces of the validation set."""

    name = "widerface"
    title = "WIDER FACE"
    head = "detection"
    Settings = WiderFaceSettings
    sample = "widerface"
    reading = "figures in %, differences in points; intervals two-sided, over images"
    hidden_parts = frozenset({"event"})
    probe_images = 4

    def open(self, settings: WiderFaceSettings, progress: Progress) -> Iterator[Samples]:
        """See `Task.open`: predictions and their ground truth need no other data."""
        named = settings.data or os.environ.get("EVALKIT_DATA")
        if not named and settings.predictions is not None and settings.ground_truth is not None:
            root = settings.ground_truth
        else:
            root = self.root(settings, progress)
        yield load_samples(root, truth_folder(root, settings), settings)

    def ready(self, settings: WiderFaceSettings, samples: Samples, work: Work) -> Ready | None:
        """See `Task.ready`: ``--predictions``."""
        if settings.predictions is None:
            return None
        data: Data = samples.data
        try:
            reading = read_predictions(
                settings.predictions,
                data.truth.images,
                known=data.known,
                allow_missing=settings.allow_missing,
            )
        except IncompleteError as error:
            raise CannotJudgeError(str(error)) from error
        except WiderFaceError as error:
            raise InputError(str(error)) from error
        partial = bool(reading.missing or reading.empty or reading.malformed)
        return Ready(settings.predictions, reading, partial)

    def evaluate(
        self,
        outputs: Inferred | Ready,
        samples: Samples,
        settings: WiderFaceSettings,
        work: Work,
    ) -> Evaluation:
        """See `Task.evaluate`; the arrays are those of `ImageCounts`, and scenes for pictures."""
        truth: GroundTruth = samples.data.truth
        applied = settings.model_dump(
            mode="json", include={"rule", "iou", "steps", "events", "limit"}
        )
        failures: tuple[Failure, ...] = ()
        warnings: tuple[str, ...] = ()
        if isinstance(outputs, Ready):
            reading = outputs.data
            detections, warnings = reading.detections, reading.warnings()
            lost = (*reading.missing, *reading.empty, *reading.malformed)
            applied["images_without_predictions"] = len(lost)
        else:
            detections, failures = _stored(outputs, truth), outputs.failures
            lost = tuple(failure.name for failure in failures)
            applied |= outputs.settings
        with work.clock.stage("scoring"):
            scored = _score(truth, detections, settings)
        counts = image_counts(scored)
        with work.clock.stage("intervals"):
            intervals = intervals_of(counts)
        return Evaluation(
            metrics=metrics_of(scored, intervals),
            arrays={**counts.arrays(), **scene_arrays(scored)},
            applied={**applied, "normalisation": scored.settings.normalisation},
            failures=failures,
            warnings=(*warnings, *scored.warnings),
            data=(scored, _without(detections, lost)),
        )

    def summary(self, result: Result) -> Summary:
        """See `Task.summary`."""
        return tables.summary(result)

    def write(
        self,
        result: Result,
        evaluation: Evaluation,
        samples: Samples,
        settings: WiderFaceSettings,
    ) -> Iterator[str]:
        """See `Task.write`: the predictions, the curves, and pictures of the worst images."""
        scored, predicted = evaluation.data
        if settings.write_predictions is not None:
            write_predictions(settings.write_predictions, predicted)
            lost = len(scored.detections.images) - len(predicted.images)
            if lost:
                yield f"{settings.write_predictions}: without {lost} images that have no outcome"
        if settings.save_images is not None:
            from evalkit.tasks.widerface.curves import write_pr_curves  # noqa: PLC0415 - matplotlib

            written = write_pr_curves(settings.save_images, result.model.name, scored.curves)
            if samples.data.images is None:
                yield "There is no image to draw on: only the curves are written."
            else:
                written += pictures.write_detection_pictures(
                    settings.save_images, samples.data.images, scored
                )
            yield f"pictures: {len(written)} files in {settings.save_images}"

    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        """See `Task.read`."""
        return evidence.read(arrays, result)

    def pictures(self, runs: Runs) -> tuple[Gallery, ...]:
        """See `Task.pictures`."""
        return pictures.pictures(runs)

    def primaries(self, settings: WiderFaceSettings) -> tuple[str, ...]:
        """See `Task.primaries`."""
        return ("ap/easy", "ap/medium", "ap/hard")

    def finds(self, path: Path) -> bool:
        """See `Task.finds`: annotations of either split."""
        return any(path.rglob(ANNOTATIONS))

    def listing(self, path: Path, progress: Progress) -> Iterator[Samples]:
        """See `Task.listing`: images of the training split too."""
        yield list_photographs(path)


def _stored(inferred: Inferred, truth: GroundTruth) -> Detections:
    """Read the detections of a store; an image that failed has none."""
    rows: list[NDArray[np.float64]] = []
    for _, shard in inferred.store.shards():
        for faces in rows_of(shard):
            table = np.empty((0, 5)) if faces is None else faces[:, :5].astype(np.float64)
            table[:, 2:4] -= table[:, :2]
            rows.append(table)
    try:
        return Detections.from_rows(truth.images, rows)
    except WiderFaceError as error:
        raise InputError(
            f"{error} The outputs in {inferred.store.folder} are no detections; run again with "
            "--overwrite always."
        ) from error


def _score(truth: GroundTruth, detections: Detections, settings: WiderFaceSettings) -> Scored:
    rules = Settings(settings.rule, settings.iou, settings.steps)
    try:
        return score(truth, detections, rules, threads=settings.threads)
    except ValueError as error:
        raise InputError(str(error)) from error


def _without(detections: Detections, lost: Sequence[str]) -> Detections:
    """Leave out images, so that what is written of the others says nothing of them."""
    if not lost:
        return detections
    spans = zip(detections.offsets[:-1], detections.offsets[1:], strict=True)
    table = np.column_stack([detections.boxes, detections.scores])
    left_out = set(lost)
    kept = {
        image: table[first:end]
        for image, (first, end) in zip(detections.images, spans, strict=True)
        if image not in left_out
    }
    return Detections.from_rows(tuple(kept), list(kept.values()))
