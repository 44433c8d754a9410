"""From features, templates or scores to the scores of all pairs; and identification."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core.progress import Progress
from evalkit.core.results import Failure
from evalkit.datasets.ijb import IjbRelease
from evalkit.protocols.fusion import FusionSwitches, Templates, fuse_templates
from evalkit.protocols.identification import Gallery, Identification, evaluate_identification
from evalkit.protocols.templates import score_pairs
from evalkit.run.clock import scorable
from evalkit.run.inference import Inferred, embeddings
from evalkit.tasks.base import Ready, Work
from evalkit.tasks.ijb.ready import Features, flip_of
from evalkit.tasks.ijb.settings import IjbSettings


@dataclass(frozen=True, slots=True)
class Scored:
    """Pair scores, and where they came from.

    Attributes
    ----------
    scores : ndarray of float, shape (pairs,)
        NaN where a template failed to enrol.
    templates : Templates or None
        None where the scores were computed elsewhere.
    failures : tuple of Failure
    warnings : tuple of str
    """

    scores: NDArray[np.floating[Any]]
    templates: Templates | None
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...] = ()


def score(
    outputs: Inferred | Ready, release: IjbRelease, settings: IjbSettings, work: Work
) -> Scored:
    """Score all pairs of a release."""
    ready = outputs.data if isinstance(outputs, Ready) else None
    if isinstance(ready, np.ndarray):
        return Scored(ready, None, _failed_scores(ready))
    failures: tuple[Failure, ...] = ()
    if isinstance(ready, Templates):
        templates = ready
        failed = named = np.intersect1d(templates.ids[templates.failed], release.template_id)
    else:
        if isinstance(outputs, Inferred):
            features = Features(*embeddings(outputs, flip=settings.flip != "none"))
            failures = outputs.failures
        else:
            features = outputs.data
        with work.clock.stage("fusion") as items, scorable():
            templates = _fuse(release, settings, features)
            items.count = len(templates.ids)
        del features
        failures += _failed_faces(release, templates, failures)
        failed = np.intersect1d(templates.ids[templates.failed], release.template_id)
        named = np.setdiff1d(failed, release.template_id[templates.failed_faces])
    failures += tuple(
        Failure(name=f"template {name}", reason="its feature is zero or not finite.")
        for name in named.tolist()
    )
    pairs = release.pairs
    with (
        work.progress.stage("scoring", len(pairs), "pairs") as advance,
        work.clock.stage("pair scores") as items,
        scorable(),
    ):
        scores = score_pairs(templates, pairs, progress=advance)
        items.count = len(scores)
    return Scored(scores, templates, failures, _refused(failed))


def _fuse(release: IjbRelease, settings: IjbSettings, features: Features) -> Templates:
    return fuse_templates(
        features.plain,
        release.template_id,
        release.media_id,
        features_flip=features.flipped,
        detector_scores=release.detector_score,
        switches=FusionSwitches(settings.keep_norm, settings.detector_score, flip_of(settings)),
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


def identify(
    release: IjbRelease, templates: Templates | None, settings: IjbSettings, progress: Progress
) -> Identification:
    """Search the probes in the galleries."""
    probes = release.probes
    if templates is None or release.galleries is None or probes is None:
        raise AssertionError("1:N without its input is refused before inference")
    galleries = [Gallery(name, *enrolled) for name, enrolled in release.galleries.items()]
    searched = 1 if settings.identification_rule == "insightface_closed" else len(galleries)
    searches = len(np.unique(probes.template_id)) * searched
    with progress.stage("1:N", searches, "searches") as advance, scorable():
        return evaluate_identification(
            templates,
            galleries,
            probes.template_id,
            probes.subject_id,
            rule=settings.identification_rule,
            progress=advance,
        )
