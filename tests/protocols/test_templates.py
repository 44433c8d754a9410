from __future__ import annotations

import itertools
import json

import ijb_references as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.protocols import fusion
from evalkit.protocols import templates as protocol
from evalkit.protocols.fusion import FusionSwitches, fuse_templates
from evalkit.protocols.templates import score_pairs, verification_points

SWITCHES = [
    FusionSwitches(*choice)
    for choice in itertools.product([False, True], [False, True], ["none", "sum", "concat"])
]


def make_faces(seed=0, faces=400, templates=60, dims=16, dtype=np.float32):
    """Random faces with ids that are neither contiguous nor sorted, and shared media ids."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(10_000, templates, replace=False).astype(np.int32)
    return {
        "features": rng.normal(size=(faces, dims)).astype(dtype),
        "features_flip": rng.normal(size=(faces, dims)).astype(dtype),
        "template_ids": np.concatenate([ids, rng.choice(ids, faces - templates)]),
        "media_ids": rng.integers(0, 40, faces).astype(np.int32),
        "detector_scores": rng.uniform(0.3, 1, faces),
    }


def fuse(faces, switches):
    return fuse_templates(**faces, switches=switches)


def assert_templates_equal(templates, expected, tolerance):
    assert templates.ids.tolist() == list(expected)
    for row, feature in zip(templates.features, expected.values(), strict=True):
        if feature is None:
            assert np.isnan(row).all()
        else:
            np.testing.assert_allclose(row, feature, atol=tolerance, rtol=0)
    assert templates.failed.tolist() == [f is None for f in expected.values()]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "result", "tolerance"),
    [
        (np.float64, np.float64, 1e-12),
        (np.float32, np.float32, 1e-6),
        (np.float16, np.float32, 1e-6),
    ],
)
def test_fusion_equals_a_loop_over_templates(monkeypatch, switches, dtype, result, tolerance):
    monkeypatch.setattr(fusion, "FACE_BLOCK", 64)  # so that templates straddle blocks
    faces = make_faces(dtype=dtype)
    templates = fuse(faces, switches)
    assert templates.features.dtype == result
    assert_templates_equal(templates, reference.fuse(faces, switches), tolerance)
    assert templates.failed_faces.size == 0


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_failures_to_enrol_are_left_out_and_named(switches):
    faces = make_faces(seed=1)
    lonely = int(faces["template_ids"][0])
    alone = np.flatnonzero(faces["template_ids"] == lonely)
    with_others = np.flatnonzero(faces["template_ids"] == faces["template_ids"][1])[:1]
    faces["features"][alone] = np.nan
    faces["features"][with_others, 3] = np.inf
    faces["features"][2] = faces["features_flip"][2] = 0
    templates = fuse(faces, switches)
    assert_templates_equal(templates, reference.fuse(faces, switches), 1e-6)
    assert templates.failed_faces.tolist() == sorted({*alone, *with_others, 2})
    assert templates.ids[templates.failed].tolist() == [lonely]


def test_a_failed_face_does_not_thin_its_medium():
    features = np.array([[2, 0], [np.nan, 0], [0, 2]], np.float32)
    switches = FusionSwitches(detector_score=False, flip="none")
    templates = fuse_templates(features, np.ones(3, int), np.array([7, 7, 8]), switches=switches)
    np.testing.assert_allclose(templates.features, [[np.sqrt(0.5), np.sqrt(0.5)]], rtol=1e-6)


def test_a_failed_mirrored_face_fails_only_where_it_is_used():
    faces = make_faces(seed=2)
    faces["features_flip"][5, 0] = np.nan
    for flip, failed in (("none", []), ("sum", [5]), ("concat", [5])):
        assert fuse(faces, FusionSwitches(flip=flip)).failed_faces.tolist() == failed


@pytest.mark.parametrize("size", [1e-30, 1e25])
@pytest.mark.parametrize("keep_norm", [False, True])
def test_tiny_and_huge_embeddings_are_no_failures(size, keep_norm):
    features = np.full((2, 4), size, np.float32)
    switches = FusionSwitches(keep_norm=keep_norm, detector_score=False, flip="none")
    templates = fuse_templates(features, np.array([1, 1]), np.array([1, 2]), switches=switches)
    np.testing.assert_allclose(templates.features, 0.5, rtol=1e-6)
    assert not templates.failed.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_infinities_and_overflow_fail_without_a_warning(switches):
    faces = make_faces(seed=7, dtype=np.float32)
    faces["features"][0], faces["features_flip"][0] = np.inf, -np.inf
    faces["features"][1] = faces["features_flip"][1] = 3.4e38
    templates = fuse(faces, switches)
    overflows = switches.flip == "sum"
    assert templates.failed_faces.tolist() == ([0, 1] if overflows else [0])
    assert (np.isnan(templates.features).any(axis=1) == templates.failed).all()


def test_faces_that_cancel_leave_a_template_without_direction():
    features = np.array([[1, 2], [-1, -2], [3, 4]], np.float32)
    switches = FusionSwitches(detector_score=False, flip="none")
    templates = fuse_templates(features, np.array([5, 5, 6]), np.arange(3), switches=switches)
    assert templates.failed.tolist() == [True, False]
    assert templates.failed_faces.size == 0


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), switches=st.sampled_from(SWITCHES))
def test_the_order_of_faces_does_not_matter(seed, switches):
    faces = make_faces(seed=3)
    order = np.random.default_rng(seed).permutation(len(faces["features"]))
    shuffled = {name: array[order] for name, array in faces.items()}
    np.testing.assert_allclose(
        fuse(faces, switches).features, fuse(shuffled, switches).features, atol=2e-7, rtol=0
    )


def loop_scores(templates, pairs):
    row = {int(template): i for i, template in enumerate(templates.ids)}
    features = templates.features.astype(np.float64)
    return np.array([features[row[a]] @ features[row[b]] for a, b in pairs.tolist()])


def make_pairs(templates, count=3000, seed=0):
    return np.random.default_rng(seed).choice(templates.ids, (count, 2))


@pytest.mark.parametrize("gather_cost", [0, 10**9], ids=["gathered", "dense"])
def test_both_ways_of_scoring_equal_a_loop(monkeypatch, gather_cost):
    for name, small in (
        ("GATHER_COST", gather_cost),
        ("PAIR_BLOCK", 700),
        ("DENSE_BLOCK_CELLS", 500),
        ("GATHER_BLOCK_VALUES", 900),
    ):
        monkeypatch.setattr(protocol, name, small)
    monkeypatch.setattr(fusion, "ID_BLOCK", 800)
    faces = make_faces(seed=4)
    faces["features"][faces["template_ids"] == faces["template_ids"][0]] = np.nan
    templates = fuse(faces, FusionSwitches())
    pairs, done = make_pairs(templates), []
    scores = score_pairs(templates, pairs, progress=done.append)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, loop_scores(templates, pairs), atol=1e-6, rtol=0)
    assert np.isnan(scores).any()
    assert sum(done) == len(pairs)
    assert len(done) > 2


@pytest.mark.parametrize("count", [50, 9000])
def test_the_cheaper_way_of_scoring_is_chosen(monkeypatch, count):
    def refuse(*_):
        raise AssertionError("the dearer way was chosen")

    dearer = "_score_dense" if count == 50 else "_score_gathered"
    monkeypatch.setattr(protocol, dearer, refuse)
    templates = fuse(make_faces(faces=900, templates=500), FusionSwitches())
    pairs = make_pairs(templates, count)
    assert score_pairs(templates, pairs).shape == (count,)


def test_no_pairs_have_no_scores():
    templates = fuse(make_faces(), FusionSwitches())
    assert score_pairs(templates, np.zeros((0, 2), int)).shape == (0,)


@pytest.mark.parametrize("unknown", [-5, 123_456, 10**12])
@pytest.mark.parametrize("spread", [1, 10**9], ids=["near", "far"])
def test_an_unknown_template_is_named(unknown, spread):
    faces = make_faces()
    faces["template_ids"] = faces["template_ids"].astype(np.int64) * spread
    templates = fuse(faces, FusionSwitches())
    pairs = make_pairs(templates)
    np.testing.assert_allclose(
        score_pairs(templates, pairs), loop_scores(templates, pairs), atol=1e-6
    )
    pairs[1234, 1] = unknown
    with pytest.raises(ValueError, match=f"no face belongs to template {unknown}$"):
        score_pairs(templates, pairs)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rule", ["at_most", "insightface_nearest"])
def test_figures_of_the_public_functions(shared_data, dtype, rule):
    """All eight switches; to every digit in float64, and in float32 the same TAR."""
    folder = shared_data / "reference"
    expected = json.loads((folder / "expected.json").read_text())["ijb"]
    data = np.load(folder / "ijb_features.npz", allow_pickle=False)
    assert len(expected) == 8
    for switches, figures in expected.items():
        norm, detector, flip = (part.endswith("1") for part in switches.split())
        templates = fuse_templates(
            data["features"].astype(dtype),
            data["template_id"],
            data["media_id"],
            features_flip=data["features_flip"].astype(dtype),
            detector_scores=data["detector_score"],
            switches=FusionSwitches(norm, detector, "sum" if flip else "none"),
        )
        scores = score_pairs(templates, data["pairs"])
        points = verification_points(scores, data["genuine"], figures["far"], rule)
        assert scores.dtype == dtype
        assert [point.tar for point in points] == figures[rule], switches
        if rule == "insightface_nearest" and dtype is np.float64:
            assert [point.far for point in points] == figures["nearest_achieved_far"]


def test_pairs_of_a_failed_template_are_never_accepted():
    faces = make_faces(seed=6)
    failed = faces["template_ids"][0]
    faces["features"][faces["template_ids"] == failed] = np.inf
    templates = fuse(faces, FusionSwitches())
    pairs = make_pairs(templates)
    genuine = np.arange(len(pairs)) % 7 == 0
    scores = score_pairs(templates, pairs)
    touched = (pairs == failed).any(axis=1)
    assert touched.any()
    np.testing.assert_array_equal(np.isnan(scores), touched)
    (point,) = verification_points(scores, genuine, [1.0])
    assert point.false_accepts == (~genuine & ~touched).sum()
    assert point.impostors == (~genuine).sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((0, 16))}, "faces, dims"),
        ({"features": np.zeros(7)}, "faces, dims"),
        ({"features_flip": None}, "no features of mirrored faces"),
        ({"features_flip": np.zeros((400, 8))}, "differ"),
        ({"template_ids": np.zeros(3, int)}, "template ids of shape .3,. do not fit 400 faces"),
        ({"media_ids": np.zeros(3, int)}, "media ids of shape .3,. do not fit 400 faces"),
        ({"detector_scores": None}, "there are no detector scores"),
        ({"detector_scores": np.ones(3)}, "detector scores of shape .3,. do not fit 400 faces"),
        ({"detector_scores": np.r_[np.ones(399), np.nan]}, "face 399 .* not finite"),
    ],
)
def test_faces_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        fuse({**make_faces(), **change}, FusionSwitches())


def test_pairs_and_labels_that_do_not_fit_are_named():
    templates = fuse(make_faces(), FusionSwitches())
    with pytest.raises(ValueError, match="pairs must have the shape"):
        score_pairs(templates, templates.ids)
    with pytest.raises(ValueError, match="do not fit"):
        verification_points([0.1, 0.2], [1])
    with pytest.raises(ValueError, match="must be 0 or 1"):
        verification_points([0.1, 0.2], [-1, 1])
    with pytest.raises(ValueError, match="no impostor scores"):
        verification_points([0.1, 0.2], [1, 1])
