from __future__ import annotations

import math

import ijb_references as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.protocols import identification as protocol
from evalkit.protocols.fusion import Templates
from evalkit.protocols.identification import (
    RANKS,
    UNRANKED,
    Gallery,
    evaluate_identification,
)


def make_templates(ids, features):
    failed = np.isnan(features).any(axis=1)
    return Templates(np.asarray(ids), np.asarray(features), failed, np.zeros(0, np.intp))


def make_case(seed, dims=3, subjects=24, failures=True):
    """Two galleries of disjoint subjects (some twice), probes of all; coarse scores that tie."""
    rng = np.random.default_rng(seed)
    of_gallery = np.r_[np.arange(subjects), rng.integers(0, subjects, 6)]
    of_probe = np.r_[np.arange(subjects), rng.integers(0, subjects, 50)]
    subject = np.r_[of_gallery, of_probe]
    ids = np.sort(rng.choice(9000, subject.size, replace=False))
    centres = rng.integers(-3, 4, (subjects, dims))
    features = (centres[subject] + rng.integers(-1, 2, (subject.size, dims))).astype(np.float32)
    if failures:
        features[rng.choice(subject.size, 5, replace=False)] = np.nan
    order = rng.permutation(subject.size)
    subject, is_gallery = subject[order], (np.arange(subject.size) < of_gallery.size)[order]
    half = subject < subjects // 2
    names = np.array([f"s{s}" for s in subject])
    galleries = [
        Gallery(name, ids[is_gallery & part], names[is_gallery & part])
        for name, part in (("G1", half), ("G2", ~half))
    ]
    templates = make_templates(ids, features[order])
    return templates, galleries, ids[~is_gallery], names[~is_gallery]


def expected_rows(templates, gallery, probe_ids, probe_subjects):
    features = {
        int(i): None if np.isnan(f).any() else f.astype(np.float64)
        for i, f in zip(templates.ids, templates.features, strict=True)
    }
    enrolled = list(zip(gallery.template_ids.tolist(), gallery.subject_ids, strict=True))
    return reference.search(
        features, enrolled, list(zip(probe_ids.tolist(), probe_subjects, strict=True))
    )


@pytest.mark.parametrize("seed", range(12))
def test_open_set_equals_sorting_each_probe(monkeypatch, seed):
    monkeypatch.setattr(protocol, "SEARCH_BLOCK_CELLS", 100)
    templates, galleries, probe_ids, probe_subjects = make_case(seed)
    targets, done = (0.01, 0.1, 0.5), []
    result = evaluate_identification(
        templates, galleries, probe_ids, probe_subjects, targets=targets, progress=done.append
    )
    assert sum(done) == 2 * probe_ids.size
    tpirs, pooled_ranks = [], []
    for gallery, figures in zip(galleries, result.galleries, strict=True):
        rows = expected_rows(templates, gallery, probe_ids, probe_subjects)
        found = figures.searches
        assert found.mated.tolist() == [row[0] for row in rows]
        assert found.mate_scores.tolist() == [row[1] for row in rows]
        ranks = [UNRANKED if row[2] is None else row[2] for row in rows]
        assert found.mate_ranks.tolist() == ranks
        assert found.other_scores.tolist() == [row[3] for row in rows]
        first = [row[1] if row[2] == 1 else -math.inf for row in rows if row[0]]
        false = [row[3] for row in rows if not row[0]]
        for target, point in zip(targets, figures.points, strict=True):
            _, false_positives, true_positives = reference.at_most(first, false, target)
            counts = point.false_positives, point.searches, point.true_positives, point.mated
            assert counts == (false_positives, len(false), true_positives, len(first))
            assert point.fpir == false_positives / len(false) <= target
            assert reference.accepts(false, point.threshold) == false_positives
            assert reference.accepts(first, point.threshold) == true_positives
        tpirs.append([point.tpir for point in figures.points])
        pooled_ranks += [row[2] for row in rows if row[0]]
    assert result.tpir == pytest.approx(np.mean(tpirs, axis=0).tolist(), abs=1e-15)
    for rank, rate in zip(RANKS, result.ranks, strict=True):
        hits = sum(r is not None and r <= rank for r in pooled_ranks)
        assert (rate.rank, rate.hits, rate.mated) == (rank, hits, len(pooled_ranks))
        assert rate.rate == hits / len(pooled_ranks)


@pytest.mark.parametrize("seed", range(12))
def test_insightface_closed_equals_its_definition(monkeypatch, seed):
    monkeypatch.setattr(protocol, "SEARCH_BLOCK_CELLS", 100)
    templates, galleries, probe_ids, probe_subjects = make_case(seed)
    result = evaluate_identification(
        templates, galleries, probe_ids, probe_subjects, rule="insightface_closed"
    )
    (figures,) = result.galleries
    features = dict(zip(templates.ids.tolist(), templates.features, strict=True))
    mates, others = [], []
    for probe, subject in zip(probe_ids.tolist(), probe_subjects, strict=True):
        of_mate = [-math.inf]
        for gallery in galleries:
            rows = zip(gallery.template_ids.tolist(), gallery.subject_ids, strict=True)
            for template, enrolled in rows:
                score = float(features[probe] @ features[template])
                if not math.isnan(score):
                    (of_mate if enrolled == subject else others).append(score)
        mates.append(max(of_mate))
    others.sort(reverse=True)
    for target, point in zip((0.01, 0.1), figures.points, strict=True):
        threshold = others[math.ceil(len(mates) * target) - 1]
        assert point.tpir == sum(score > threshold for score in mates) / len(mates)
        assert point.false_positives == sum(score > threshold for score in others)
        assert point.threshold == np.nextafter(np.float32(threshold), np.float32(np.inf))
        assert point.searches == point.mated == len(mates)
    assert result.tpir == tuple(point.tpir for point in figures.points)
    assert figures.name == "G1+G2"
    assert figures.searches.mated.all()


@pytest.mark.parametrize("rule", protocol.IDENTIFICATION_RULES)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(rule, seed):
    templates, galleries, probe_ids, probe_subjects = make_case(5)
    rng = np.random.default_rng(seed)
    order = rng.permutation(probe_ids.size)
    # Rows of galleries also repeat: the published files have one a face.
    shuffled = []
    for gallery in galleries:
        rows = rng.permutation(np.r_[: gallery.template_ids.size, 0, 1])
        shuffled.append(
            Gallery(gallery.name, gallery.template_ids[rows], gallery.subject_ids[rows])
        )
    first = evaluate_identification(templates, galleries, probe_ids, probe_subjects, rule=rule)
    second = evaluate_identification(
        templates, shuffled, probe_ids[order], probe_subjects[order], rule=rule
    )
    assert first.tpir == second.tpir
    assert first.ranks == second.ranks
    assert [g.points for g in first.galleries] == [g.points for g in second.galleries]
    assert [g.templates for g in first.galleries] == [g.templates for g in second.galleries]


def one_hot_case(scores, mate):
    """Templates whose dot products with an orthonormal gallery are the given scores."""
    scores, size = np.asarray(scores), np.shape(scores)[1]
    features = np.vstack([np.eye(size), scores])
    templates = make_templates(np.arange(len(features)), features)
    gallery = Gallery("G", np.arange(size), np.arange(size))
    return templates, gallery, np.arange(size, len(features)), np.asarray(mate)


def test_a_mate_that_ties_is_ranked_after():
    scores = [[0.5, 0.5, 0.1], [0.9, 0.5, 0.1], [0.2, 0.3, 0.3], [0, 0, 0.1]]
    templates, gallery, probes, _ = one_hot_case(scores, None)
    result = evaluate_identification(templates, [gallery], probes, np.array([0, 0, 0, 99]))
    assert result.galleries[0].searches.mate_ranks[:3].tolist() == [2, 1, 3]
    assert [(r.rank, r.hits) for r in result.ranks] == [(1, 1), (5, 3), (10, 3)]


def test_a_failed_probe_never_hits_yet_counts():
    scores = [[np.nan] * 3, [0.9, 0.5, 0.1], [np.nan] * 3, [0.3, 0.2, 0.1]]
    templates, gallery, probes, _ = one_hot_case(scores, None)
    subjects = np.array([0, 0, 98, 99])
    result = evaluate_identification(templates, [gallery], probes, subjects, targets=[1.0])
    (point,) = result.galleries[0].points
    assert (point.true_positives, point.mated, point.false_positives, point.searches) == (
        1,
        2,
        1,
        2,
    )
    assert [(r.hits, r.mated) for r in result.ranks] == [(1, 2)] * 3
    assert result.galleries[0].searches.mate_ranks[0] == UNRANKED


def test_a_gallery_without_the_searches_it_needs_is_named():
    templates, gallery, probes, _ = one_hot_case([[0.5, 0.1], [0.2, 0.3]], None)
    for subjects, rule, message in (
        ([7, 8], "open_set", "no probe has a mate in gallery G"),
        ([0, 1], "open_set", "every probe has a mate in gallery G"),
        ([0, 9], "insightface_closed", "1 probes have no mate in gallery G: use rule open_set"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_identification(templates, [gallery], probes, np.array(subjects), rule=rule)


def test_bad_arguments_are_named():
    templates, gallery, probes, subjects = one_hot_case([[0.5, 0.1], [0.2, 0.3]], [0, 9])
    for change, message in (
        ({"rule": "closed"}, "unknown identification rule 'closed'"),
        ({"targets": [0.0]}, "above 0 and up to 1"),
        ({"galleries": []}, "at least one gallery"),
        ({"probe_template_ids": probes[:1]}, "probes: template ids"),
        ({"probe_template_ids": probes[[0, 0]]}, "probes: template 2 has more than one subject"),
        ({"probe_template_ids": probes + 1}, "no face belongs to template 4"),
    ):
        arguments = {
            "galleries": [gallery],
            "probe_template_ids": probes,
            "probe_subject_ids": subjects,
            **change,
        }
        with pytest.raises(ValueError, match=message):
            evaluate_identification(templates, **arguments)


def test_bob_measures_ranks(shared_data):
    """Cumulative match characteristic of bob.measure's own test."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(shared_data / "reference" / "bob_measure" / "test-cmc.hdf5") as file:
        mates, others = file["data-pos"][()], file["data-neg"][()]
    scores = np.hstack([mates, others])
    # One more probe, without mate, so that the open set has a false positive rate.
    scores = np.vstack([scores, np.zeros(scores.shape[1])])
    templates, gallery, probes, subjects = one_hot_case(scores, [0] * len(mates) + [999])
    result = evaluate_identification(templates, [gallery], probes, subjects, ranks=range(1, 6))
    assert [rate.rate for rate in result.ranks] == [0.76, 0.89, 0.96, 0.98, 1.0]
