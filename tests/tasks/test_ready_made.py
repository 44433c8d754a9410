"""Input computed elsewhere: what is said of wrong files, and comparison with runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import Command

from evalkit.core.results import Result, load_result
from evalkit.datasets.ijb import load_ijb
from evalkit.tasks.figures import all_alike_interval
from evalkit.verdict.comparable import mismatches

pytest.importorskip("onnxruntime", reason="needs the cpu extra")


@pytest.fixture
def ran(evalkit: Command, tiny_ijbc: Path, tmp_path: Path) -> Result:
    """A run of the packaged network, kept as ``run.json`` with its scores."""
    assert evalkit("ijbc", "--data", tiny_ijbc, "--output", tmp_path / "run.json") == 0
    return load_result(tmp_path / "run.json")


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "objects", "cut", "zip"])
def test_what_is_wrong_with_an_array_is_told(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / "f.npy"
    if kind == "folder":
        path.mkdir()
    elif kind == "objects":
        np.save(path, np.array([{}, 1], object), allow_pickle=True)
    elif kind == "cut":
        np.save(path, np.zeros((9, 9)))
        path.write_bytes(path.read_bytes()[:-1])
    elif kind != "missing":
        path.write_bytes({"text": b"1 2 3\n", "empty": b"", "zip": b"PK\x03\x04..."}[kind])
    message = {
        "missing": "cannot be read: No such file",
        "folder": "cannot be read: Is a directory",
        "objects": "holds Python objects",
        "cut": "is a damaged .npy file",
    }.get(kind, "is not a .npy file")
    assert evalkit("ijbc", "--data", tiny_ijbc, "--features", path) == 2
    shown = capsys.readouterr().err
    assert f"f.npy {message}" in shown
    assert "allow_pickle" not in shown


def test_what_is_wrong_with_an_archive_is_told(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("ijbc", "--data", tiny_ijbc, "--templates", tmp_path / "t.npz")
    assert evalkit(*words) == 2
    assert "t.npz cannot be read: No such file" in capsys.readouterr().err
    np.savez(tmp_path / "t.npz", template_id=np.array([{}]), features=np.array([{}]))
    assert evalkit(*words) == 2
    shown = capsys.readouterr().err
    assert "t.npz is not an .npz archive of plain arrays: it holds Python objects" in shown
    assert "allow_pickle" not in shown


@pytest.mark.parametrize(("absent", "more"), [(1, ""), (3, " and 2 more")])
def test_a_file_that_lacks_templates_is_named(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    absent: int, more: str,
) -> None:  # fmt: skip
    ids = np.unique(load_ijb(tiny_ijbc).pairs)
    features = np.random.default_rng(0).normal(size=(len(ids), 8))
    np.savez(tmp_path / "t.npz", template_id=ids[:-absent], features=features[:-absent])
    assert evalkit("ijbc", "--data", tiny_ijbc, "--templates", tmp_path / "t.npz") == 2
    assert f"t.npz lacks template {ids[-absent]}{more} of the pair file" in capsys.readouterr().err


def test_ready_made_scores_compare_with_the_run_of_the_same_release(
    evalkit: Command, ran: Result, tiny_ijbc: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("--scores", tmp_path / "run.scores.npz", "--output", tmp_path / "ready.json")
    assert evalkit("ijbc", "--data", tiny_ijbc, *words) == 0
    shown = capsys.readouterr().out
    assert "\nrun.scores: ready-made, evalkit ran no model\n" in shown
    assert evalkit("compare", tmp_path / "run.json", tmp_path / "ready.json") == 0
    assert "candidate  ready.json: run.scores, ready-made\n" in capsys.readouterr().out
    assert evalkit("compare", tmp_path / "ready.json", tmp_path / "run.json") == 0
    ready = load_result(tmp_path / "ready.json")

    def changed(**fields: str) -> Result:
        return ready.model_copy(update={"dataset": ready.dataset.model_copy(update=fields)})

    assert [found.what for found in mismatches(ran, changed(annotations_sha256="0"))] == ["data"]
    assert not mismatches(ran, changed(sha256="0"))
    older = changed(annotations_sha256=None)  # type: ignore[arg-type]
    assert [found.what for found in mismatches(ran, older)] == ["data"]


def test_switches_that_are_known_must_agree(
    evalkit: Command, ran: Result, tiny_ijbc: Path, tmp_path: Path
) -> None:
    rows = len(load_ijb(tiny_ijbc).images)
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(rows, 8)))
    words = ("--features", tmp_path / "f.npy", "--output", tmp_path / "ready.json")
    assert evalkit("ijbc", "--data", tiny_ijbc, *words, "--no-detector-score") == 0
    found = mismatches(ran, load_result(tmp_path / "ready.json"))
    assert {mismatch.what for mismatch in found} == {"rules"}
    assert ["detector_score" in found[0].message, "flip" in found[1].message] == [True, True]
    # A run of evalkit always knows its switches: one without them fits none that has them.
    unknown = ran.model_copy(update={"settings": {**ran.settings, "flip": None}})
    assert [mismatch.what for mismatch in mismatches(ran, unknown)] == ["rules"]


def test_the_far_of_an_interpolated_point_is_that_of_its_threshold(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = load_ijb(tiny_ijbc)
    scores = np.random.default_rng(0).normal(size=len(release.pairs)) + release.genuine
    np.save(tmp_path / "s.npy", scores)
    words = ("--scores", tmp_path / "s.npy", "--rule", "interpolated", "--far", "0.0123,0.31")
    assert evalkit("ijbc", "--data", tiny_ijbc, *words, "--output", tmp_path / "r.json") == 0
    for metric in load_result(tmp_path / "r.json").metrics:
        threshold = metric.at["similarity"]
        assert threshold is not None
        assert metric.at["achieved"] == np.mean(scores[~release.genuine] >= threshold)
        assert metric.at["achieved"] != metric.at["target"]
    assert "achieved and accepted are of the threshold" in capsys.readouterr().out


def test_rates_of_all_or_none_have_intervals_with_a_width(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path
) -> None:
    release = load_ijb(tiny_ijbc)
    subjects = len(np.unique(release.subjects().subject_of(release.pairs[release.genuine, 0])))
    out = tmp_path / "r.json"
    for scores, tar in ((release.genuine, 1.0), (~release.genuine, 0.0)):
        np.save(tmp_path / "s.npy", scores.astype(float))
        words = ("--scores", tmp_path / "s.npy", "--far", "0.01", "--output", out)
        assert evalkit("ijbc", "--data", tiny_ijbc, *words) == 0
        (metric,) = load_result(out).metrics
        held = metric.interval
        assert metric.value == tar
        assert held is not None
        assert held.method == f"Clopper-Pearson, {subjects} subjects all alike"
        # At the far bound, all subjects end alike in 2.5 % of all cases.
        chance = held.low if tar else 1 - held.high
        assert chance**subjects == pytest.approx(0.025)
        assert (held.high if tar else held.low) == tar


@pytest.mark.parametrize("trials", [1, 7, 3531])
def test_the_interval_of_all_alike_is_that_of_the_beta_distribution(trials: int) -> None:
    from scipy.stats import binomtest

    for success in (True, False):
        wanted = binomtest(trials * success, trials).proportion_ci(0.95, "exact")
        found = all_alike_interval(trials, 0.95, success=success)
        assert found == pytest.approx((wanted.low, wanted.high), rel=1e-9)


def test_stages_that_are_reused_are_marked(
    capsys: pytest.CaptureFixture[str], evalkit: Command, ran: Result, tiny_ijbc: Path
) -> None:
    first = capsys.readouterr().out
    assert " reused\n" not in first
    assert "reused: " not in first
    assert "images/s, wall" in first
    assert evalkit("ijbc", "--data", tiny_ijbc) == 0
    shown = capsys.readouterr().out
    faces = ran.dataset.counts["faces"]
    rows = [line.split() for line in shown.splitlines() if line.endswith(f"{faces:,} reused")]
    assert [row[0] for row in rows] == ["decode", "inference"]
    assert "images/s when computed, wall" in shown
    assert "reused: from the store, with the seconds of the run that computed them" in shown
