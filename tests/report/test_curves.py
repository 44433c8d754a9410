"""Curves as pictures and as data."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from xml.etree import ElementTree

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from evalkit.core.errors import InputError
from evalkit.protocols.roc import FAR_RULES, tar_at_far
from evalkit.report.curves import (
    ComparisonScores,
    write_pr_curves,
    write_roc_curves,
    write_score_histograms,
)
from evalkit.widerface_eval import Curve


def curve_of(recalled, proposals, faces=10.0):
    return Curve(np.array(proposals, float), np.array(recalled, float), faces)


PR = {
    "fp32": {
        "easy": curve_of([0, 4, 8], [0, 5, 20]),
        "hard": curve_of([0, 0, 0], [0, 1, 2], faces=0.0),
    },
    "int8 & <co>": {"easy": curve_of([0, 3, 7], [0, 5, 30])},
}


def scores_of(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    # Half precision, so that many scores tie.
    genuine = rng.normal(0.5 + shift, 0.15, 400).astype(np.float16)
    return ComparisonScores(genuine, rng.normal(0, 0.12, 3000).astype(np.float16))


def rows_of(paths):
    with paths[2].open(newline="") as file:
        return list(csv.DictReader(file))


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def check_files(paths, folder, name):
    """The four files: a picture with ink, a vector picture, and twice the same data."""
    assert paths == [folder / f"{name}.{suffix}" for suffix in ("png", "svg", "csv", "json")]
    assert set(folder.iterdir()) == set(paths)
    picture = cv2.imread(str(paths[0]))
    assert min(picture.shape[:2]) > 500
    assert picture.std() > 5
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    data = strict(paths[3].read_text())["data"]
    for index, row in enumerate(rows_of(paths)):
        for column, cell in row.items():
            value = data[column][index]
            assert cell == ("" if value is None else str(value))
    return data


def test_pr_data_are_the_curves(tmp_path):
    paths = write_pr_curves(tmp_path, PR)
    check_files(paths, tmp_path, "pr")
    easy = [row for row in rows_of(paths) if (row["run"], row["subset"]) == ("fp32", "easy")]
    assert [float(row["threshold"]) for row in easy] == pytest.approx([2 / 3, 1 / 3, 0])
    assert [float(row["recall"]) for row in easy] == [0, 0.4, 0.8]
    assert [float(row["precision"]) for row in easy] == [0, 0.8, 0.4]
    assert [row["recalled"] for row in easy] == ["0", "4", "8"]
    summary = strict(paths[3].read_text())["summary"]
    assert summary["fp32"]["easy"]["ap"] == pytest.approx(PR["fp32"]["easy"].ap)
    assert summary["fp32"]["hard"]["ap"] is None
    hard = [row for row in rows_of(paths) if row["subset"] == "hard"]
    assert {row["recall"] for row in hard} == {""}


def test_pr_pictures_name_runs_and_colour_them(tmp_path):
    """Letters of the SVG are outlines, so that the colours tell the lines."""
    svg = write_pr_curves(tmp_path, PR)[1].read_text().lower()
    assert "#0072b2" in svg
    assert "#d55e00" in svg
    alone = write_pr_curves(tmp_path / "one", {"fp32": PR["fp32"]})[1].read_text().lower()
    assert "#d55e00" not in alone


def test_one_run_alone_needs_no_letter(tmp_path):
    """Matplotlib names each text in a comment of the SVG."""
    several = write_pr_curves(tmp_path, PR)[1].read_text()
    assert "<!-- A -->" in several
    alone = write_pr_curves(tmp_path / "one", {"fp32": PR["fp32"]})[1].read_text()
    assert "<!-- A -->" not in alone
    assert "<!-- fp32, AP" in alone
    roc = write_roc_curves(tmp_path / "roc", {"fp32": scores_of(1)}, targets=(1e-2,))
    assert "<!-- A -->" not in roc[1].read_text()


@pytest.mark.parametrize("rule", FAR_RULES)
def test_roc_data_are_achieved_points(tmp_path, rule):
    runs = {"fp32": scores_of(1), "int8": scores_of(2, -0.03)}
    targets = (1e-3, 1e-2, 1e-1)
    paths = write_roc_curves(tmp_path, runs, targets=targets, rule=rule)
    check_files(paths, tmp_path, "roc")
    rows = rows_of(paths)
    for run, scores in runs.items():
        lines = [row for row in rows if row["run"] == run and row["kind"] == "curve"]
        assert len(lines) > 50
        for row in lines:
            threshold = float(row["threshold"])
            assert float(row["tar"]) == np.mean(scores.genuine >= threshold)
            assert float(row["far"]) == np.mean(scores.impostors >= threshold)
        points = [row for row in rows if row["run"] == run and row["kind"] != "curve"]
        expected = tar_at_far(scores.genuine, scores.impostors, targets, rule)
        assert [float(row["tar"]) for row in points] == [point.tar for point in expected]
        assert [row["kind"] == "few" for row in points] == [point.too_few for point in expected]


def test_roc_of_perfect_and_of_hopeless_scores(tmp_path):
    ones, zeros = np.ones(30), np.zeros(40)
    runs = {
        "perfect": ComparisonScores(ones, zeros),
        "hopeless": ComparisonScores(np.zeros(30), np.ones(40)),
        "failed": ComparisonScores(np.full(30, np.nan), zeros),
    }
    check_files(write_roc_curves(tmp_path, runs), tmp_path, "roc")


def test_histograms_count_every_finite_score(tmp_path):
    lossy = scores_of(3)
    lossy.genuine[:7] = np.nan
    lossy.impostors[:2] = -np.inf
    paths = write_score_histograms(
        tmp_path, {"fp32": scores_of(1), "int8": lossy}, thresholds={"int8": 0.3}
    )
    check_files(paths, tmp_path, "scores")
    rows = [row for row in rows_of(paths) if row["run"] == "int8"]
    for kind, scores in (("genuine", lossy.genuine), ("impostors", lossy.impostors)):
        finite = scores[np.isfinite(scores)].astype(float)
        for row in rows[:-1]:
            inside = (finite >= float(row["low"])) & (finite < float(row["high"]))
            assert int(row[kind]) == np.count_nonzero(inside)
        assert sum(int(row[kind]) for row in rows) == len(finite)
    summary = strict(paths[3].read_text())["summary"]["int8"]
    assert summary == {"genuine": 393, "impostors": 2998, "not_finite": 9}


def test_one_single_score_has_a_histogram(tmp_path):
    scores = ComparisonScores(np.array([0.5], np.float32), np.array([], np.float32))
    check_files(write_score_histograms(tmp_path, {"one": scores}), tmp_path, "scores")


@pytest.mark.parametrize(
    ("write", "runs", "why"),
    [
        (write_pr_curves, {}, "no run to draw"),
        (write_pr_curves, {"fp32": {}}, "no run to draw"),
        (write_roc_curves, {}, "no run to draw"),
        (write_score_histograms, {}, "no run to draw"),
        (
            write_roc_curves,
            {"fp32": ComparisonScores(np.ones(2), np.ones(0))},
            "no curve of 'fp32'",
        ),
        (
            write_score_histograms,
            {"fp32": ComparisonScores(np.full(2, np.nan), np.ones(0))},
            "No score is finite",
        ),
    ],
)
def test_nothing_to_draw_is_an_error(tmp_path, write, runs, why):
    with pytest.raises(InputError, match=why):
        write(tmp_path / "out", runs)
    assert not (tmp_path / "out").exists()


def test_global_state_is_left_alone(tmp_path):
    before = dict(mpl.rcParams)
    write_pr_curves(tmp_path, PR)
    assert dict(mpl.rcParams) == before
    code = "import sys, evalkit.report.curves; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
