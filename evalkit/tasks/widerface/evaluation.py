"""WIDER FACE: from images, or ready-made predictions, to Easy, Medium and Hard AP."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.files import cache_dir, sha256_file
from evalkit.core.progress import Progress
from evalkit.core.results import DatasetInfo, Interval, Metric, Result
from evalkit.datasets.ijb import MARKER
from evalkit.datasets.widerface import WiderFace, WiderImages, image_folder, load_widerface
from evalkit.run.detecting import rows_of
from evalkit.run.detector import SAMPLE_MODEL
from evalkit.run.frame import Clock, assemble, require_model
from evalkit.run.inference import Inferred, OpenImages, infer
from evalkit.stats.ap import ImageBootstrap, ImageCounts, image_counts
from evalkit.stats.subjects import percentile_interval
from evalkit.tasks.widerface.settings import WiderFaceSettings
from evalkit.widerface_eval import (
    Detections,
    Evaluation,
    GroundTruth,
    IncompleteError,
    Reading,
    Settings,
    Slice,
    WiderFaceError,
    by_event,
    by_height,
    read_ground_truth,
    read_predictions,
)
from evalkit.widerface_eval import evaluate as score

FEW_FACES = 30
"""A figure over fewer faces is too coarse to judge a model by: one face is over 3 points."""
TOO_FEW = "too_few_faces"

_TRUTH_FOLDERS = ("ground_truth", "wider_face_split", "eval_tools/ground_truth", ".")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What pictures and prediction folders are made from, beside the result.

    Attributes
    ----------
    result : Result
    counts : ImageCounts
        The scores to keep beside the result: other runs are compared by them.
    evaluation : Evaluation
    predicted : Detections
        Of the images that did not fail, and of which predictions were there.
    images : WiderFace or None
        None where the images were not there: ready-made predictions need none.
    """

    result: Result
    counts: ImageCounts
    evaluation: Evaluation
    predicted: Detections
    images: WiderFace | None


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """What is asked for of the ground truth, the images, and what there is beside it."""

    truth: GroundTruth
    images: WiderFace | None
    known: tuple[str, ...]
    limited: bool


def evaluate(config: WiderFaceSettings, progress: Progress, *, command: str = "") -> Run:
    """Run the protocol.

    Raises
    ------
    evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        The input is wrong, or cannot be judged.
    """
    clock = Clock()
    root, name = _root(config, progress)
    truth_folder = _truth_folder(root, config)
    data = clock.run("load", lambda: _load(root, truth_folder, config))
    truth = data.truth
    inferred: Inferred | None = None
    settings: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    lost: tuple[str, ...]
    if config.predictions is not None:
        reading = _read(config, data)
        detections, warnings = reading.detections, reading.warnings()
        lost = (*reading.missing, *reading.empty, *reading.malformed)
        settings = {"images_without_predictions": len(lost)}
    else:
        require_model(config, root, SAMPLE_MODEL)
        images = _images(data.images, root)
        inferred = infer(
            lambda _: images,
            _fingerprint(truth_folder, images),
            config,
            progress,
            head="detection",
        )
        settings = dict(inferred.settings)
        clock.stages += inferred.stages
        detections = _stored(inferred, truth)
        lost = tuple(failure.name for failure in inferred.failures)
    evaluation = clock.run("scoring", lambda: _score(truth, detections, config))
    counts = image_counts(evaluation)
    intervals = clock.run("intervals", lambda: _intervals(counts))
    result = assemble(
        config,
        task="widerface",
        dataset=_dataset_info(name, root, truth_folder, truth, inferred),
        partial=data.limited or (inferred is None and bool(lost)),
        embedded=inferred,
        ready_file=config.predictions,
        settings={**_settings(config, evaluation), **settings},
        metrics=_metrics(evaluation, intervals),
        failures=inferred.failures if inferred else (),
        warnings=(*warnings, *evaluation.warnings),
        clock=clock,
        command=command,
    )
    return Run(result, counts, evaluation, _without(detections, lost), data.images)


def open_images(config: WiderFaceSettings, progress: Progress) -> OpenImages:
    """Return the images, those that ``--limit`` and ``--events`` leave."""
    root, name = _root(config, progress)
    truth_folder = _truth_folder(root, config)
    images = _images(_load(root, truth_folder, config).images, root)
    return OpenImages(lambda _: images, name, _fingerprint(truth_folder, images), root)


def _root(config: WiderFaceSettings, progress: Progress) -> tuple[Path, str]:
    """Return the data's folder and its name."""
    named = config.data
    if named is None and os.environ.get("EVALKIT_DATA"):
        named = Path(os.environ["EVALKIT_DATA"])
    if named is None and config.predictions is not None and config.ground_truth is not None:
        return config.ground_truth, f"widerface:{config.ground_truth.resolve().name}"
    if named is not None:
        marked = (named / MARKER).is_file()
        return named, "evalkit-sample-widerface" if marked else f"widerface:{named.resolve().name}"
    from evalkit.datasets.sample import sample_path  # noqa: PLC0415 - heavy

    progress.say("no --data and no EVALKIT_DATA: running on the embedded sample, not on WIDER FACE")
    with progress.counting("rendering the sample", "images") as report:
        return sample_path("widerface", cache_dir(), progress=report), "evalkit-sample-widerface"


def _truth_folder(root: Path, config: WiderFaceSettings) -> Path:
    if config.ground_truth is not None:
        return config.ground_truth
    for name in _TRUTH_FOLDERS:
        if any((root / name).glob("wider_hard_val.*")):
            return root / name
    raise InputError(
        f"{root} holds no ground truth (wider_face_val.mat, wider_easy_val.mat and so on). Name "
        "its folder with --ground-truth."
    )


def _load(root: Path, truth_folder: Path, config: WiderFaceSettings) -> _Data:
    try:
        whole = read_ground_truth(truth_folder)
        truth = whole.only(config.events) if config.events else whole
        limited = config.limit is not None and config.limit < len(truth.images)
        if config.limit is not None and limited:
            chosen = np.linspace(0, len(truth.images) - 1, config.limit).astype(int)
            truth = truth.take([truth.images[row] for row in chosen])
    except WiderFaceError as error:
        raise InputError(str(error)) from error
    there = any((image_folder(root) / event).is_dir() for event in truth.events)
    if config.predictions is not None and (config.save_images is None or not there):
        return _Data(truth, None, whole.images, limited)
    wider = load_widerface(root, annotations=_annotations(truth_folder), events=truth.events)
    return _Data(truth, _in_order(wider, truth), whole.images, limited)


def _annotations(truth_folder: Path) -> Path | None:
    return truth_folder if (truth_folder / "wider_face_val_bbx_gt.txt").is_file() else None


def _in_order(wider: WiderFace, truth: GroundTruth) -> WiderFace:
    """Put the images into the ground truth's order."""
    place = {name: row for row, name in enumerate(wider.images.names)}
    missing = [name for name in truth.images if name not in place]
    if missing:
        raise InputError(
            f"{wider.annotations} has no image {missing[0]}, which the ground truth has (and "
            f"{len(missing) - 1} more). They are of different releases."
        )
    return wider.take([place[name] for name in truth.images])


def _images(wider: WiderFace | None, root: Path) -> WiderImages:
    if wider is None:
        raise InputError(f"{root} holds no images.")
    return wider.images


def _read(config: WiderFaceSettings, data: _Data) -> Reading:
    if config.predictions is None:
        raise InputError("--predictions names nothing.")
    try:
        return read_predictions(
            config.predictions,
            data.truth.images,
            known=data.known,
            allow_missing=config.allow_missing,
        )
    except IncompleteError as error:
        raise CannotJudgeError(str(error)) from error
    except WiderFaceError as error:
        raise InputError(str(error)) from error


def _fingerprint(truth_folder: Path, images: WiderImages) -> str:
    """Hash the ground truth and the names of the images."""
    return hashlib.sha256(
        "\n".join([_truth_hash(truth_folder), *images.names]).encode()
    ).hexdigest()


def _truth_hash(folder: Path) -> str:
    files = sorted(path for path in folder.glob("wider_*_val*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _stored(inferred: Inferred, truth: GroundTruth) -> Detections:
    """Read the detections of a store; an image that failed has none."""
    rows: list[NDArray[np.float64]] = []
    for _, shard in inferred.store.shards():
        for found in rows_of(shard):
            table = np.empty((0, 5)) if found is None else found[:, :5].astype(np.float64)
            table[:, 2:4] -= table[:, :2]
            rows.append(table)
    try:
        return Detections.from_rows(truth.images, rows)
    except WiderFaceError as error:
        raise InputError(
            f"{error} The outputs in {inferred.store.folder} are no detections; run again with "
            "--overwrite always."
        ) from error


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


def _score(truth: GroundTruth, detections: Detections, config: WiderFaceSettings) -> Evaluation:
    settings = Settings(config.rule, config.iou, config.steps)
    try:
        return score(truth, detections, settings, threads=config.threads)
    except ValueError as error:
        raise InputError(str(error)) from error


def _intervals(counts: ImageCounts) -> dict[str, Interval | None]:
    """Return the interval of each subset's AP over images."""
    bootstrap = ImageBootstrap(counts.images)
    found = map(percentile_interval, bootstrap.ap(counts))
    return {
        subset: None
        if held is None
        else Interval(low=held.low, high=held.high, level=held.level, method=bootstrap.method)
        for subset, held in zip(counts.subsets, found, strict=True)
    }


def _settings(config: WiderFaceSettings, evaluation: Evaluation) -> dict[str, Any]:
    kept = config.model_dump(mode="json", include={"rule", "iou", "steps", "events", "limit"})
    return {**kept, "normalisation": evaluation.settings.normalisation}


def _dataset_info(
    name: str,
    root: Path,
    truth_folder: Path,
    truth: GroundTruth,
    inferred: Inferred | None,
) -> DatasetInfo:
    kept = {subset: int(np.count_nonzero(flags)) for subset, flags in truth.subsets.items()}
    official = (len(truth.images), *kept.values()) == (3226, 7211, 13319, 31958)
    return DatasetInfo(
        name="WIDER FACE val" if official else name,
        sha256=hashlib.sha256(
            f"{_truth_hash(truth_folder)} {' '.join(truth.images)}".encode()
        ).hexdigest(),
        content_sha256=inferred.content_sha256 if inferred else None,
        counts={"images": len(truth.images), **kept},
        path=str(root),
    )


def _metrics(evaluation: Evaluation, intervals: Mapping[str, Interval | None]) -> list[Metric]:
    metrics = [_ap_metric(evaluation, *entry) for entry in intervals.items()]
    for part in by_height(evaluation):
        metrics += _slice_metrics(part, "height", evaluation)
    for part in by_event(evaluation):
        metrics += _slice_metrics(part, "event", evaluation)
    return metrics


def _ap_metric(evaluation: Evaluation, subset: str, interval: Interval | None) -> Metric:
    summary = evaluation.curves[subset].summary()
    ap = summary.pop("ap")
    recall = summary.pop("recall")
    return Metric(
        name=f"ap/{subset}",
        figure="ap",
        kind="area",
        value=ap,
        rule=evaluation.settings.rule,
        interval=interval,
        counts=summary,
        at={"recall": recall},
        subset=subset,
        headline=subset == "hard",
        flags=_flags(summary["faces"]),
    )


def _slice_metrics(part: Slice, kind: str, evaluation: Evaluation) -> Sequence[Metric]:
    summary = part.curve.summary()
    values = {"ap": summary.pop("ap"), "recall": summary.pop("recall")}
    if values["ap"] is None:
        return []
    return [
        Metric(
            name=f"{figure}/{part.subset}/{kind}={part.name}",
            figure=figure,
            kind="area" if figure == "ap" else "rate",
            value=value,
            rule=evaluation.settings.rule,
            counts=summary,
            subset=part.subset,
            part={kind: part.name},
            flags=_flags(summary["faces"]),
        )
        for figure, value in values.items()
    ]


def _flags(faces: int) -> tuple[str, ...]:
    if not faces:
        return ("no_face_kept",)
    return (TOO_FEW,) if faces < FEW_FACES else ()
