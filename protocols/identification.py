"""The IJB 1:N protocol: probes searched in a gallery of enrolled templates.

A probe is mated where its subject is in the gallery. The score of a probe with its subject is the
highest over the subject's templates. Its rank is 1 + the number of other subjects' templates that
score at least as high. So a mate that ties with a non-mate is ranked after it: a model does not
gain by scores that saturate. A search whose probe or mate failed to enrol never hits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from evalkit.protocols.fusion import Ints, Templates
from evalkit.protocols.roc import MIN_EXPECTED_FALSE_ACCEPTS, tar_at_far
from evalkit.protocols.scores import Floats
from evalkit.protocols.templates import Progress

IdentificationRule: TypeAlias = Literal["open_set", "insightface_closed"]
IDENTIFICATION_RULES: tuple[IdentificationRule, ...] = get_args(IdentificationRule)
FPIR_TARGETS = (0.01, 0.1)
RANKS = (1, 5, 10)
UNRANKED = int(np.iinfo(np.int64).max)
"""The rank of a mate that cannot be found: the probe or the mate failed to enrol."""

SEARCH_BLOCK_CELLS = 1 << 22


@dataclass(frozen=True, slots=True)
class Gallery:
    """Enrolled templates.

    Attributes
    ----------
    name : str
        Such as ``G1``.
    template_ids : ndarray of int, shape (n_rows,)
        May repeat (the published files have one row a face).
    subject_ids : ndarray, shape (n_rows,)
        The subject of each row's template.
    """

    name: str
    template_ids: Ints
    subject_ids: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Searches:
    """Every probe searched in one gallery.

    Attributes
    ----------
    mated : ndarray of bool, shape (n_probes,)
        The probe's subject is in the gallery.
    mate_scores : ndarray of float, shape (n_probes,)
        Minus infinity where there is no mate, or it or the probe failed to enrol.
    mate_ranks : ndarray of int64, shape (n_probes,)
        From 1; ``UNRANKED`` where the mate's score is minus infinity.
    other_scores : ndarray of float, shape (n_probes,)
        The highest score with another subject.
    """

    mated: npt.NDArray[np.bool_]
    mate_scores: Floats
    mate_ranks: npt.NDArray[np.int64]
    other_scores: Floats


@dataclass(frozen=True, slots=True)
class IdentificationPoint:
    """The true positive identification rate at one false positive identification rate.

    Attributes
    ----------
    target, fpir : float
        The target FPIR and the achieved one.
    tpir : float
        Share of mated searches that return the mate.
    threshold : float
        A candidate is returned when ``score >= threshold``.
    false_positives, searches : int
        ``open_set``: searches without mate that return anybody, of all such searches;
        ``insightface_closed``: scores of non-mates that reach the threshold, against all searches.
    true_positives, mated : int
        Mated searches that return the mate, of all.
    too_few : bool
        Fewer than 30 false positives are expected at the target.
    """

    target: float
    fpir: float
    tpir: float
    threshold: float
    false_positives: int
    searches: int
    true_positives: int
    mated: int
    too_few: bool


@dataclass(frozen=True, slots=True)
class RankRate:
    """Share of mated searches whose mate is among the first `rank` candidates."""

    rank: int
    rate: float
    hits: int
    mated: int


@dataclass(frozen=True, slots=True)
class GalleryResult:
    """Figures of one gallery.

    Attributes
    ----------
    name : str
    templates : int
        Distinct templates enrolled.
    points : tuple of IdentificationPoint
        One for each target FPIR.
    ranks : tuple of RankRate
        Over the mated searches.
    searches : Searches
        What the figures were counted from, in the order of the probes.
    """

    name: str
    templates: int
    points: tuple[IdentificationPoint, ...]
    ranks: tuple[RankRate, ...]
    searches: Searches


@dataclass(frozen=True, slots=True)
class Identification:
    """The 1:N result.

    Attributes
    ----------
    rule : {'open_set', 'insightface_closed'}
    targets, tpir : tuple of float
        Target FPIRs, and the TPIR at each, averaged over the galleries.
    ranks : tuple of RankRate
        Over the mated searches of all galleries.
    galleries : tuple of GalleryResult
        Each gallery apart; under ``insightface_closed`` one that joins all.
    """

    rule: IdentificationRule
    targets: tuple[float, ...]
    tpir: tuple[float, ...]
    ranks: tuple[RankRate, ...]
    galleries: tuple[GalleryResult, ...]


def evaluate_identification(
    templates: Templates,
    galleries: Sequence[Gallery],
    probe_template_ids: Ints,
    probe_subject_ids: npt.NDArray[Any],
    *,
    rule: IdentificationRule = "open_set",
    targets: Sequence[float] = FPIR_TARGETS,
    ranks: Sequence[int] = RANKS,
    progress: Progress | None = None,
) -> Identification:
    """Search every probe in every gallery.

    Parameters
    ----------
    templates : Templates
        Must hold every template of galleries and probes.
    galleries : sequence of Gallery
    probe_template_ids : ndarray of int, shape (n_rows,)
        May repeat (one row a face); each distinct template is one probe, in ascending order.
    probe_subject_ids : ndarray, shape (n_rows,)
    rule : {'open_set', 'insightface_closed'}
        ``open_set``: galleries apart. The threshold is the lowest at which at most the target's
        share of the searches without mate return anybody. A mated search hits where the mate is
        ranked first and reaches the threshold. TPIR is averaged over the galleries.
        ``insightface_closed``: the galleries joined, every probe mated. The threshold lies just
        above the ``ceil(target * n_probes)``-th highest of all scores with non-mates. A search
        hits where its mate reaches that, whatever its rank (older scripts).
    targets : sequence of float
        Target FPIRs, above 0 and up to 1.
    ranks : sequence of int
    progress : callable, optional
        Called with the number of searches (a probe in a gallery) done since the last call.

    Raises
    ------
    ValueError
        If a template is unknown or has two subjects, or a gallery lacks searches that the rule
        needs.
    """
    _check_arguments(rule, galleries, targets)
    joined = [_joined(galleries)] if rule == "insightface_closed" else galleries
    distinct = [_one_row_a_template(gallery) for gallery in joined]
    probes = _one_row_a_template(Gallery("probes", probe_template_ids, probe_subject_ids))
    for gallery in distinct:
        _check_mates(rule, gallery, probes)
    most = math.ceil(probes.template_ids.size * max(targets)) if rule != "open_set" else 0
    results = []
    for gallery in distinct:
        searches, highest = _search(templates, gallery, probes, most, progress)
        points = _points(rule, searches, highest, targets)
        results.append(_gallery_result(gallery, searches, points, ranks))
    tpirs = [[point.tpir for point in result.points] for result in results]
    return Identification(
        rule=rule,
        targets=tuple(targets),
        tpir=tuple(math.fsum(column) / len(results) for column in zip(*tpirs, strict=True)),
        ranks=tuple(_pooled(rates) for rates in zip(*(r.ranks for r in results), strict=True)),
        galleries=tuple(results),
    )


def _check_arguments(
    rule: IdentificationRule, galleries: Sequence[Gallery], targets: Sequence[float]
) -> None:
    if rule not in IDENTIFICATION_RULES:
        known = ", ".join(IDENTIFICATION_RULES)
        raise ValueError(f"unknown identification rule {rule!r}; known are {known}")
    if not galleries:
        raise ValueError("identification needs at least one gallery")
    if not all(0 < target <= 1 for target in targets):
        raise ValueError(f"target FPIRs must lie above 0 and up to 1, not {list(targets)}")


def _one_row_a_template(gallery: Gallery) -> Gallery:
    ids, subjects = np.asarray(gallery.template_ids), np.asarray(gallery.subject_ids)
    if ids.ndim != 1 or ids.shape != subjects.shape or not ids.size:
        raise ValueError(
            f"{gallery.name}: template ids {ids.shape} and subject ids {subjects.shape} must have "
            "one equal dimension, not empty"
        )
    distinct, first, rows = np.unique(ids, return_index=True, return_inverse=True)
    conflict = subjects != subjects[first][rows]
    if conflict.any():
        raise ValueError(f"{gallery.name}: template {ids[conflict][0]} has more than one subject")
    return Gallery(gallery.name, distinct, subjects[first])


def _joined(galleries: Sequence[Gallery]) -> Gallery:
    return Gallery(
        "+".join(gallery.name for gallery in galleries),
        np.concatenate([gallery.template_ids for gallery in galleries]),
        np.concatenate([gallery.subject_ids for gallery in galleries]),
    )


def _check_mates(rule: IdentificationRule, gallery: Gallery, probes: Gallery) -> None:
    mated = np.isin(probes.subject_ids, gallery.subject_ids)
    if not mated.any():
        raise ValueError(f"no probe has a mate in gallery {gallery.name}")
    if rule == "open_set" and mated.all():
        raise ValueError(f"every probe has a mate in gallery {gallery.name}: FPIR needs others")
    if rule == "insightface_closed" and not mated.all():
        lacking = int(np.count_nonzero(~mated))
        raise ValueError(
            f"{lacking:,} probes have no mate in gallery {gallery.name}: use rule open_set"
        )


def _search(
    templates: Templates,
    gallery: Gallery,
    probes: Gallery,
    most: int,
    progress: Progress | None,
) -> tuple[Searches, Floats]:
    """Search all probes; return also the `most` highest scores with non-mates, ascending."""
    mated = np.isin(probes.subject_ids, gallery.subject_ids)
    count, dtype = mated.size, templates.features.dtype
    mate_scores, other_scores = np.empty(count, dtype), np.empty(count, dtype)
    mate_ranks = np.full(count, UNRANKED, np.int64)
    highest = np.empty(0, dtype)
    for part, scores, mates in _blocks(templates, gallery, probes):
        mate_scores[part] = best = np.where(mates, scores, -np.inf).max(axis=1)
        scores[mates] = -np.inf
        other_scores[part] = scores.max(axis=1)
        ranks = 1 + np.count_nonzero(scores >= best[:, None], axis=1)
        mate_ranks[part] = np.where(best > -np.inf, ranks, UNRANKED)
        if most:
            pooled = np.concatenate([highest, scores[scores > -np.inf]])
            cut = max(0, pooled.size - most)
            highest = np.partition(pooled, cut)[cut:] if cut else pooled
        if progress is not None:
            progress(len(scores))
    return Searches(mated, mate_scores, mate_ranks, other_scores), np.sort(highest)


def _blocks(
    templates: Templates, gallery: Gallery, probes: Gallery
) -> Iterator[tuple[slice, Floats, npt.NDArray[np.bool_]]]:
    """Yield the scores of a block of probes with the whole gallery, and which are of mates."""
    enrolled = templates.features[templates.rows(gallery.template_ids)].T
    rows = templates.rows(probes.template_ids)
    subjects = np.concatenate([gallery.subject_ids, probes.subject_ids])
    codes = np.unique(subjects, return_inverse=True)[1]
    enrolled_codes, probe_codes = np.split(codes, [gallery.template_ids.size])
    height = max(1, SEARCH_BLOCK_CELLS // enrolled_codes.size)
    for start in range(0, rows.size, height):
        part = slice(start, start + height)
        scores = templates.features[rows[part]] @ enrolled
        scores[np.isnan(scores)] = -np.inf
        yield part, scores, probe_codes[part, None] == enrolled_codes


def _points(
    rule: IdentificationRule, searches: Searches, highest: Floats, targets: Sequence[float]
) -> tuple[IdentificationPoint, ...]:
    if rule == "insightface_closed":
        return tuple(_closed_point(searches, highest, target) for target in targets)
    mated = searches.mated
    first = np.where(searches.mate_ranks == 1, searches.mate_scores, -np.inf)
    points = tar_at_far(first[mated], searches.other_scores[~mated], targets)
    return tuple(
        IdentificationPoint(
            target=point.target,
            fpir=point.far,
            tpir=point.tar,
            threshold=point.threshold,
            false_positives=point.false_accepts,
            searches=point.impostors,
            true_positives=point.true_accepts,
            mated=point.genuine,
            too_few=point.too_few,
        )
        for point in points
    )


def _closed_point(searches: Searches, highest: Floats, target: float) -> IdentificationPoint:
    count = searches.mated.size
    place = math.ceil(count * target)
    barrier = highest[-place] if place <= highest.size else highest.dtype.type(-np.inf)
    false_positives = int(np.count_nonzero(highest > barrier))
    true_positives = int(np.count_nonzero(searches.mate_scores > barrier))
    return IdentificationPoint(
        target=target,
        fpir=false_positives / count,
        tpir=true_positives / count,
        threshold=float(np.nextafter(barrier, barrier.dtype.type(np.inf))),
        false_positives=false_positives,
        searches=count,
        true_positives=true_positives,
        mated=count,
        too_few=target * count < MIN_EXPECTED_FALSE_ACCEPTS,
    )


def _gallery_result(
    gallery: Gallery,
    searches: Searches,
    points: tuple[IdentificationPoint, ...],
    ranks: Sequence[int],
) -> GalleryResult:
    mate_ranks = searches.mate_ranks[searches.mated]
    hits = [int(np.count_nonzero(mate_ranks <= rank)) for rank in ranks]
    rates = tuple(
        RankRate(rank, hit / mate_ranks.size, hit, mate_ranks.size)
        for rank, hit in zip(ranks, hits, strict=True)
    )
    return GalleryResult(gallery.name, gallery.template_ids.size, points, rates, searches)


def _pooled(rates: Sequence[RankRate]) -> RankRate:
    hits, mated = (sum(values) for values in zip(*((r.hits, r.mated) for r in rates), strict=True))
    return RankRate(rates[0].rank, hits / mated, hits, mated)
