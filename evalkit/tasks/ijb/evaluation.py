"""IJB-B and IJB-C: from a release folder to a result."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.core.files import cache_dir, sha256_json
from evalkit.core.progress import Progress
from evalkit.core.results import DatasetInfo, Failure, Interval, Metric, Result
from evalkit.datasets.ijb import IjbRelease, load_ijb, subset
from evalkit.datasets.sample import sample_path
from evalkit.protocols.fusion import FusionSwitches, Templates, fuse_templates
from evalkit.protocols.identification import (
    Gallery,
    GalleryResult,
    Identification,
    evaluate_identification,
)
from evalkit.protocols.roc import OperatingPoint
from evalkit.protocols.templates import score_pairs, verification_points
from evalkit.run.filling import check_failures
from evalkit.run.frame import Clock, assemble, require_model, scorable
from evalkit.run.inference import SAMPLE_MODEL, Inferred, OpenImages, embeddings, infer
from evalkit.run.overlap import People
from evalkit.tasks.figures import rate_name
from evalkit.tasks.ijb.intervals import intervals_of_points
from evalkit.tasks.ijb.settings import IjbSettings
from evalkit.tasks.ready import flip_of, read_features, read_scores, read_templates

ProtocolName = Literal["IJBB", "IJBC"]
Scores = dict[str, NDArray[Any]]

_HEADLINES = (1e-4, 1e-3, 1e-2)


def evaluate(
    protocol: ProtocolName, config: IjbSettings, progress: Progress, *, command: str = ""
) -> tuple[Result, Scores]:
    """Run the protocol.

    Parameters
    ----------
    protocol : {"IJBB", "IJBC"}
    config : IjbSettings
    progress : Progress
    command : str
        What the user typed, for the result.

    Returns
    -------
    result : Result
    scores : dict of str to ndarray
        ``scores`` (float32, NaN where a template failed to enrol) and ``pairs``, in the order of
        the pair file, and ``genuine``; ``template_id`` and ``subject_id`` say who is who.

    Raises
    ------
    evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        The input is wrong, or cannot be judged.
    """
    clock = Clock()
    whole = clock.run("load", lambda: _load(protocol, config, progress))
    limited = config.limit is not None and config.limit < len(whole.images)
    release = subset(whole, config.limit) if limited and config.limit is not None else whole
    _check_meta(release, config)
    scored = _score(release, config, progress, clock)
    check_failures(scored.failures, config.max_failures)
    points = clock.run(
        "scoring",
        lambda: scorable(
            lambda: verification_points(scored.scores, release.genuine, config.far, config.rule)
        ),
    )
    subjects = release.subjects()
    intervals: Sequence[Interval | None] = [None] * len(points)
    if config.intervals and config.rule == "at_most":
        intervals = clock.run(
            "intervals", lambda: intervals_of_points(release, subjects, scored.scores, points)
        )
    first = _headline(points)
    metrics = [
        _tar_metric(point, interval, headline=point is first)
        for point, interval in zip(points, intervals, strict=True)
    ]
    if config.one_to_n:
        found = clock.run("1:N", lambda: _identify(release, scored, config, progress))
        metrics += _identification_metrics(found)
    scores: Scores = {
        "scores": scored.scores,
        "pairs": release.pairs,
        "genuine": release.genuine,
        "template_id": subjects.template_id,
        "subject_id": subjects.subject_id,
    }
    result = assemble(
        config,
        task=release.protocol.lower(),
        dataset=_dataset_info(release, scored.embedded),
        partial=release is not whole,
        embedded=scored.embedded,
        ready_file=scored.ready_file,
        settings=_settings(config, intervals=any(intervals)),
        metrics=metrics,
        failures=scored.failures,
        warnings=(*release.warnings, *scored.warnings),
        clock=clock,
        command=command,
        people=lambda: People.of(whole, release.template_id),
    )
    return result, scores


def open_images(protocol: ProtocolName, config: IjbSettings, progress: Progress) -> OpenImages:
    """Return the faces of a release, those that ``--limit`` leaves."""
    release = _load(protocol, config, progress)
    if config.limit is not None and config.limit < len(release.images):
        release = subset(release, config.limit)
    return OpenImages(release.faces, release.name, _identity(release), release.root)


@dataclass(frozen=True, slots=True)
class _Scored:
    """Pair scores, and where they came from."""

    scores: NDArray[np.floating[Any]]
    templates: Templates | None
    embedded: Inferred | None
    failures: tuple[Failure, ...]
    ready_file: Path | None = None
    warnings: tuple[str, ...] = ()


def _load(protocol: ProtocolName, config: IjbSettings, progress: Progress) -> IjbRelease:
    named = config.data
    if named is None and os.environ.get("EVALKIT_DATA"):
        named = Path(os.environ["EVALKIT_DATA"])
    if named is None:
        progress.say(
            f"no --data and no EVALKIT_DATA: running on the embedded sample, not on {protocol}"
        )
        named = sample_path("ijbb" if protocol == "IJBB" else "ijbc")
    release = load_ijb(
        named,
        protocol,
        cache_dir=cache_dir() / "tables",
        need_images=not (config.features or config.templates or config.scores),
    )
    for warning in release.warnings:
        progress.say(f"warning: {warning}")
    return release


def _check_meta(release: IjbRelease, config: IjbSettings) -> None:
    """Refuse what the meta files alone show to be in vain, before hours of inference."""
    if release.genuine.all() or not release.genuine.any():
        kind = "impostor" if release.genuine.any() else "genuine"
        raise InputError(
            f"These data cannot be scored: the pair file in {release.root / 'meta'} has no {kind} "
            f"pairs{' among those that --limit left' if config.limit else ''}."
        )
    if config.one_to_n and (release.galleries is None or release.probes is None):
        raise InputError(
            f"1:N needs the gallery and probe files in {release.root / 'meta'}; they are not "
            "there. Leave out --one-to-n."
        )
    if not (config.features or config.templates or config.scores):
        require_model(config, release.root, SAMPLE_MODEL)


def _score(release: IjbRelease, config: IjbSettings, progress: Progress, clock: Clock) -> _Scored:
    if config.scores is not None:
        scores = read_scores(config.scores, len(release.pairs))
        return _Scored(scores, None, None, _failed_scores(scores), config.scores)
    embedded: Inferred | None = None
    failures: tuple[Failure, ...] = ()
    if config.templates is not None:
        templates = read_templates(config.templates)
        _check_templates(config.templates, templates, release)
    else:
        if config.features is not None:
            features, flipped = read_features(config, len(release.images))
        else:
            views = ("plain",) if config.flip == "none" else ("plain", "flip")
            embedded = infer(
                release.faces,
                _identity(release),
                config,
                progress,
                head="embedding",
                views=views,
            )
            clock.stages += embedded.stages
            features, flipped = embeddings(embedded, flip=config.flip != "none")
            failures = embedded.failures
        templates = clock.run(
            "fusion", lambda: _fuse(release, config, features, flipped), lambda t: len(t.ids)
        )
        failures += _failed_faces(release, templates, failures)
        del features, flipped
    failed = np.intersect1d(templates.ids[templates.failed], release.template_id)
    failures += _failed_templates(release, templates, failed, config)
    with progress.stage("scoring", len(release.pairs), "pairs") as advance:
        scores = clock.run(
            "pair scores",
            lambda: scorable(lambda: score_pairs(templates, release.pairs, progress=advance)),
            len,
        )
    return _Scored(
        scores,
        templates,
        embedded,
        failures,
        config.features or config.templates,
        _refused(failed),
    )


def _check_templates(file: Path, templates: Templates, release: IjbRelease) -> None:
    """Refuse ready-made templates that lack one of a pair."""
    absent = np.setdiff1d(release.template_id, templates.ids)
    absent = absent[np.isin(absent, release.pairs)]
    if len(absent):
        more = f" and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        raise InputError(
            f"{file} lacks template {absent[0]}{more} of the pair file in {release.root / 'meta'}. "
            "Give a row for each template; one of zeros stands for a failure to enrol."
        )


def _identity(release: IjbRelease) -> str:
    """Hash what says which faces there are; the store checks the images themselves."""
    return sha256_json(
        [dict(release.meta_sha256), hashlib.sha256(release.images.tobytes()).hexdigest()]
    )


def _fuse(
    release: IjbRelease,
    config: IjbSettings,
    features: NDArray[np.float32],
    flipped: NDArray[np.float32] | None,
) -> Templates:
    return scorable(
        lambda: fuse_templates(
            features,
            release.template_id,
            release.media_id,
            features_flip=flipped,
            detector_scores=release.detector_score,
            switches=FusionSwitches(config.keep_norm, config.detector_score, flip_of(config)),
        )
    )


def _failed_faces(
    release: IjbRelease, templates: Templates, known: tuple[Failure, ...]
) -> tuple[Failure, ...]:
    """Faces that the fusion left out and the pipeline had not named: zero vectors, ready NaN."""
    names = {failure.name for failure in known}
    failed = (os.fsdecode(release.images[row]) for row in templates.failed_faces)
    return tuple(
        Failure(name=name, reason="the embedding is zero or not finite.")
        for name in failed
        if name not in names
    )


def _failed_templates(
    release: IjbRelease, templates: Templates, failed: NDArray[Any], config: IjbSettings
) -> tuple[Failure, ...]:
    """Templates that failed to enrol, save those of which a face is named already."""
    if config.templates is None:
        failed = np.setdiff1d(failed, release.template_id[templates.failed_faces])
    return tuple(
        Failure(name=f"template {name}", reason="its feature is zero or not finite.")
        for name in failed.tolist()
    )


def _refused(failed: NDArray[Any]) -> tuple[str, ...]:
    if not len(failed):
        return ()
    shown = 5
    named = ", ".join(map(str, failed[:shown])) + (", ..." if len(failed) > shown else "")
    return (
        f"Templates that failed to enrol, and are refused at every threshold: {len(failed):,} "
        f"({named}).",
    )


def _failed_scores(scores: NDArray[np.floating[Any]]) -> tuple[Failure, ...]:
    """Say how many ready-made scores are none; which template is to blame they do not tell."""
    failed = int(np.count_nonzero(~np.isfinite(scores)))
    if not failed:
        return ()
    name = f"{failed:,} of {len(scores):,} pairs"
    return (Failure(name=name, reason="the score is not finite."),)


def _headline(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """Choose the point to look at first: one that is usually published, with enough accepts."""
    known = [point for target in _HEADLINES for point in points if point.target == target]
    settled = [point for point in known if not point.too_few]
    return (settled or known or list(points))[0]


def _tar_metric(point: OperatingPoint, interval: Interval | None, *, headline: bool) -> Metric:
    return Metric(
        name=f"tar@far={rate_name(point.target)}",
        figure="tar",
        value=point.tar,
        rule=point.rule,
        interval=interval,
        counts={
            "true_accepts": point.true_accepts,
            "genuine": point.genuine,
            "false_accepts": point.false_accepts,
            "impostors": point.impostors,
        },
        share=("true_accepts", "genuine"),
        # A point between two of the curve has the target for its FAR; its threshold has not.
        at={
            "target": point.target,
            "achieved": point.false_accepts / point.impostors,
            "similarity": point.threshold,
        },
        headline=headline,
        flags=("too_few_false_accepts",) if point.too_few else (),
    )


def _identify(
    release: IjbRelease, scored: _Scored, config: IjbSettings, progress: Progress
) -> Identification:
    templates, probes = scored.templates, release.probes
    if templates is None or release.galleries is None or probes is None:
        raise AssertionError("1:N without its input is refused before inference")
    galleries = [Gallery(name, *enrolled) for name, enrolled in release.galleries.items()]
    searched = 1 if config.identification_rule == "insightface_closed" else len(galleries)
    searches = len(np.unique(probes.template_id)) * searched
    with progress.stage("1:N", searches, "searches") as advance:
        return scorable(
            lambda: evaluate_identification(
                templates,
                galleries,
                probes.template_id,
                probes.subject_id,
                rule=config.identification_rule,
                progress=advance,
            )
        )


def _identification_metrics(found: Identification) -> list[Metric]:
    metrics = []
    for place, (target, tpir) in enumerate(zip(found.targets, found.tpir, strict=True)):
        flags = [result.points[place].too_few for result in found.galleries]
        metrics.append(
            Metric(
                name=f"tpir@fpir={target:g}",
                figure="tpir",
                value=tpir,
                rule=found.rule,
                at={"target": target},
                flags=("too_few_false_accepts",) if any(flags) else (),
            )
        )
        metrics += [_gallery_metric(result, place, found.rule) for result in found.galleries]
    metrics += [
        Metric(
            name=f"rank-{rank.rank}",
            figure="rank",
            value=rank.rate,
            rule=found.rule,
            counts={"hits": rank.hits, "mated": rank.mated},
            share=("hits", "mated"),
        )
        for rank in found.ranks
    ]
    return metrics


def _gallery_metric(result: GalleryResult, place: int, rule: str) -> Metric:
    point = result.points[place]
    return Metric(
        name=f"tpir@fpir={point.target:g}/{result.name}",
        figure="tpir",
        value=point.tpir,
        rule=rule,
        counts={
            "true_positives": point.true_positives,
            "mated": point.mated,
            "false_positives": point.false_positives,
            "searches": point.searches,
            "gallery": result.templates,
        },
        share=("true_positives", "mated"),
        at={"target": point.target, "achieved": point.fpir, "similarity": point.threshold},
        subset=result.name,
        flags=("too_few_false_accepts",) if point.too_few else (),
    )


def _settings(config: IjbSettings, *, intervals: bool) -> dict[str, Any]:
    """Return what can move a figure; how templates made elsewhere were fused is not known."""
    settings = config.model_dump(mode="json", include={"rule", "far", "limit", "one_to_n"})
    fused = config.templates is None and config.scores is None
    settings |= {
        "keep_norm": config.keep_norm if fused else None,
        "detector_score": config.detector_score if fused else None,
        "flip": flip_of(config) if fused else None,
        "intervals": intervals,
    }
    if config.one_to_n:
        settings["identification_rule"] = config.identification_rule
    return settings


def _dataset_info(release: IjbRelease, embedded: Inferred | None) -> DatasetInfo:
    return DatasetInfo(
        name=release.name,
        sha256=release.fingerprint,
        content_sha256=embedded.content_sha256 if embedded else None,
        annotations_sha256=_identity(release),
        counts={
            "faces": len(release.images),
            "templates": len(np.unique(release.template_id)),
            "genuine": int(np.count_nonzero(release.genuine)),
            "impostors": int(np.count_nonzero(~release.genuine)),
        },
        path=str(release.root),
    )
