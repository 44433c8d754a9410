"""LFW and the sets of its family: from a ``.bin`` to a result."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.core.files import cache_dir
from evalkit.core.progress import Progress
from evalkit.core.results import DatasetInfo, Failure, Interval, Metric, Result
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.lfw import LfwImages, LfwPairs, load_bin
from evalkit.protocols.folds import TenFold, checked_labels
from evalkit.protocols.roc import MIN_EXPECTED_FALSE_ACCEPTS
from evalkit.protocols.verification import Verification
from evalkit.protocols.verification import evaluate as verify
from evalkit.run.filling import check_failures
from evalkit.run.frame import Clock, assemble, rate_name, require_model, scorable
from evalkit.run.inference import SAMPLE_MODEL, Inferred, OpenImages, embed, embeddings
from evalkit.tasks.lfw.settings import LfwSettings
from evalkit.tasks.ready import Floats, read_array

Scores = dict[str, NDArray[Any]]
T = TypeVar("T")


def find_sets(config: LfwSettings, progress: Progress) -> list[Path]:
    """Return the ``.bin`` files of a run: ``--data``, ``$EVALKIT_DATA``, else the sample.

    Raises
    ------
    evalkit.core.errors.InputError
        A folder holds none, or several where ``--embeddings`` are those of one.
    """
    named = config.data
    if named is None and os.environ.get("EVALKIT_DATA"):
        named = Path(os.environ["EVALKIT_DATA"])
    if named is None:
        from evalkit.datasets.sample import sample_path  # noqa: PLC0415 - heavy

        progress.say("no --data and no EVALKIT_DATA: running on the embedded sample, not on LFW")
        with progress.counting("rendering the sample", "images") as report:
            return [sample_path("lfw", cache_dir(), progress=report)]
    if not named.is_dir():
        return [named]
    found = sorted(named.glob("*.bin"))
    if not found:
        raise InputError(f"{named} holds no .bin file. Name the file, or the folder of several.")
    if len(found) > 1 and config.embeddings is not None:
        raise InputError(
            f"{named} holds {len(found)} sets, but --embeddings are those of one set. Name its "
            ".bin with --data."
        )
    return found


def evaluate(
    path: Path, config: LfwSettings, progress: Progress, *, command: str = ""
) -> tuple[Result, Scores, LfwPairs]:
    """Run the protocol on one set.

    Parameters
    ----------
    path : Path
        The ``.bin``.
    config : LfwSettings
    progress : Progress
    command : str
        What the user typed, for the result.

    Returns
    -------
    result : Result
    scores : dict of str to ndarray
        ``distances`` (float64, squared; infinite where a side failed) and ``issame``; and
        ``distances_no_flip`` where mirrored images were added.
    pairs : LfwPairs
        The set, for pictures of its errors.
    """
    clock = Clock()
    strict = config.max_failures == 0
    whole = clock.run("load", lambda: load_bin(path, check_images=strict))
    pairs = _limited(whole, config.limit)
    for warning in pairs.warnings:
        progress.say(f"warning: {warning}")
    _judged(pairs, lambda: checked_labels(pairs.issame))
    embedded: Inferred | None = None
    failures: tuple[Failure, ...] = ()
    if config.embeddings is not None:
        plain, mirrored = _read_embeddings(config, len(pairs))
    else:
        require_model(config, path.parent, SAMPLE_MODEL)
        embedded = embed(
            lambda side: LfwImages(pairs, side),
            _fingerprint(pairs),
            config,
            progress,
            flip=config.flip,
        )
        clock.stages += embedded.stages
        plain, mirrored = embeddings(embedded, flip=config.flip)
        failures = embedded.failures
    runs = clock.run("scoring", lambda: _verify(pairs, config, plain, mirrored))
    known = {failure.name for failure in failures}
    failures += tuple(
        Failure(name=pairs.image_name(index), reason="the embedding is zero or not finite.")
        for index in runs[0].failures
        if pairs.image_name(index) not in known
    )
    check_failures(failures, config.max_failures)
    result = assemble(
        config,
        task="lfw",
        dataset=_dataset_info(pairs, embedded),
        partial=pairs is not whole,
        embedded=embedded,
        ready_file=config.embeddings,
        settings={
            **config.model_dump(mode="json", include={"rules", "far", "limit"}),
            "flip": "sum" if runs[0].flip else "none",
            "folds": runs[0].layout,
        },
        metrics=_metrics(runs),
        failures=failures,
        warnings=(*pairs.warnings, *runs[0].warnings),
        clock=clock,
        command=command,
    )
    scores = {"distances": runs[0].distances.squared, "issame": np.array(pairs.issame)}
    if runs[0].flip:
        scores["distances_no_flip"] = runs[-1].distances.squared
    return result, scores, pairs


def open_images(path: Path, config: LfwSettings) -> OpenImages:
    """Return the images of a set, those that ``--limit`` leaves."""
    pairs = _limited(load_bin(path), config.limit)
    return OpenImages(
        lambda side: LfwImages(pairs, side), pairs.name, _fingerprint(pairs), path.parent
    )


def _limited(pairs: LfwPairs, limit: int | None) -> LfwPairs:
    """Take pairs from all over the set, so that both kinds and all folds are in."""
    from dataclasses import replace  # noqa: PLC0415 - only for a quick look

    wanted = len(pairs) if limit is None else max(limit // 2, 10)
    if wanted >= len(pairs):
        return pairs
    rows = np.linspace(0, len(pairs) - 1, wanted).astype(int)
    images = [pairs.images[2 * row + side] for row in rows for side in (0, 1)]
    return replace(
        pairs, name=f"{pairs.name}:{wanted}-pairs", images=images, issame=pairs.issame[rows]
    )


def _fingerprint(pairs: LfwPairs) -> str:
    return pairs.sha256 if ":" not in pairs.name else f"{pairs.sha256}:{pairs.name}"


def _read_embeddings(config: LfwSettings, pairs: int) -> tuple[Floats, Floats | None]:
    if config.embeddings is None:
        raise InputError("--embeddings names no file.")
    plain = read_array(config.embeddings, 2 * pairs, what="images in the set")
    if config.embeddings_flip is None or not config.flip:
        return plain, None
    return plain, read_array(config.embeddings_flip, 2 * pairs, what="images in the set")


def _verify(
    pairs: LfwPairs, config: LfwSettings, plain: Floats, mirrored: Floats | None
) -> list[Verification]:
    """Return the figures with mirrored images where there are some, then those without."""
    flips = [mirrored, None] if mirrored is not None else [None]
    return _judged(
        pairs,
        lambda: [
            verify(
                plain,
                pairs.issame,
                flipped,
                rules=config.rules,
                fars=config.far,
                layout=config.folds,
            )
            for flipped in flips
        ],
    )


def _judged(pairs: LfwPairs, work: Callable[[], T]) -> T:
    """Do numerics on a set; what they refuse is laid to its file."""
    try:
        return scorable(work)
    except InputError as error:
        raise DatasetError(str(error).rstrip("."), path=pairs.path) from error


def _dataset_info(pairs: LfwPairs, embedded: Inferred | None) -> DatasetInfo:
    same = int(np.count_nonzero(pairs.issame))
    return DatasetInfo(
        name=pairs.name,
        sha256=pairs.sha256,
        content_sha256=embedded.content_sha256 if embedded else None,
        counts={"pairs": len(pairs), "genuine": same, "impostors": len(pairs) - same},
        path=str(pairs.path),
    )


def _metrics(runs: Sequence[Verification]) -> list[Metric]:
    """Return the figures of both views; the headline is the first rule's accuracy, with flips."""
    metrics = []
    for run in runs:
        accuracies = [_accuracy(fold) for fold in run.accuracy]
        found = [*accuracies, *_rates(run), *_scalars(run)]
        view = "flip" if run.flip else "no flip"
        mark = "" if run is runs[0] else "/no-flip"
        metrics += [
            metric.model_copy(update={"name": metric.name + mark, "view": view}) for metric in found
        ]
    first = next((n for n in ("insightface", "exact") if f"accuracy/{n}" in _names(metrics)), None)
    headline = f"accuracy/{first}" if first else metrics[0].name
    return [
        metric.model_copy(update={"headline": True}) if metric.name == headline else metric
        for metric in metrics
    ]


def _names(metrics: Sequence[Metric]) -> set[str]:
    return {metric.name for metric in metrics}


def _rates(run: Verification) -> list[Metric]:
    """Return VAL and TAR at each target."""
    val = [
        Metric(
            name=f"val@far={rate_name(point.target)}",
            figure="val",
            value=point.val,
            rule="insightface",
            counts=_counts(point.true_accepts, point.same, point.false_accepts, point.different),
            share=("true_accepts", "genuine"),
            at={"target": point.target, "achieved": point.far, "std": point.std},
            flags=_few(point.target, point.different),
            series={"fold_val": point.fold_val, "fold_distance": point.fold_threshold},
        )
        for point in run.val
    ]
    tar = [
        Metric(
            name=f"tar@far={rate_name(point.target)}",
            figure="tar",
            value=point.tar,
            rule=point.rule,
            counts=_counts(point.true_accepts, point.genuine, point.false_accepts, point.impostors),
            share=("true_accepts", "genuine"),
            at={
                "target": point.target,
                "achieved": point.far,
                "similarity": point.threshold,
                "distance": 2 - 2 * point.threshold,
            },
            flags=_few(point.target, point.impostors),
        )
        for point in run.tar
    ]
    return [*val, *tar]


def _counts(true_accepts: int, genuine: int, false_accepts: int, impostors: int) -> dict[str, int]:
    return {
        "true_accepts": true_accepts,
        "genuine": genuine,
        "false_accepts": false_accepts,
        "impostors": impostors,
    }


def _scalars(run: Verification) -> list[Metric]:
    """Return the figures that need no target."""
    equal = run.eer
    return [
        Metric(name="auc", figure="auc", kind="area", value=run.auc, rule="mann_whitney"),
        Metric(
            name="eer",
            figure="eer",
            direction="lower",
            value=equal.eer,
            rule="nearest_rates",
            at={"similarity": equal.threshold, "far": equal.far, "frr": equal.frr},
        ),
        Metric(
            name="xnorm",
            figure="xnorm",
            kind="norm",
            direction=None,
            unit="length of the embedding",
            value=run.distances.xnorm,
            rule="mean_norm",
        ),
    ]


def _few(target: float, impostors: int) -> tuple[str, ...]:
    few = target * impostors < MIN_EXPECTED_FALSE_ACCEPTS
    return ("too_few_false_accepts",) if few else ()


def _accuracy(fold: TenFold) -> Metric:
    low, high = fold.interval
    return Metric(
        name=f"accuracy/{fold.rule}",
        figure="accuracy",
        value=fold.accuracy,
        rule=fold.rule,
        interval=Interval(low=low, high=high, level=0.95, method="wilson, pair-level"),
        counts={"correct": fold.correct, "pairs": fold.pairs},
        share=("correct", "pairs"),
        at={
            fold.spread_is: fold.spread,
            "similarity": fold.cosine_threshold,
            "distance": fold.threshold,
        },
        series={"fold_accuracy": fold.fold_accuracy, "fold_distance": fold.fold_threshold},
    )
