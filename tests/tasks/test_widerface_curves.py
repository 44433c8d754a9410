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

from evalkit.tasks.widerface.curves import write_pr_curves
from evalkit.widerface_eval import Curve


def curve_of(recalled, proposals, faces=10.0):
    return Curve(np.array(proposals, float), np.array(recalled, float), faces)


RUN = "int8 & <co>"
CURVES = {
    "easy": curve_of([0, 4, 8], [0, 5, 20]),
    "hard": curve_of([0, 0, 0], [0, 1, 2], faces=0.0),
}


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


def test_data_are_the_curves(tmp_path):
    paths = write_pr_curves(tmp_path, RUN, CURVES)
    check_files(paths, tmp_path, "pr")
    easy = [row for row in rows_of(paths) if (row["run"], row["subset"]) == (RUN, "easy")]
    assert [float(row["threshold"]) for row in easy] == pytest.approx([2 / 3, 1 / 3, 0])
    assert [float(row["recall"]) for row in easy] == [0, 0.4, 0.8]
    assert [float(row["precision"]) for row in easy] == [0, 0.8, 0.4]
    assert [row["recalled"] for row in easy] == ["0", "4", "8"]
    summary = strict(paths[3].read_text())["summary"][RUN]
    assert summary["easy"]["ap"] == pytest.approx(CURVES["easy"].ap)
    assert summary["hard"]["ap"] is None
    hard = [row for row in rows_of(paths) if row["subset"] == "hard"]
    assert {row["recall"] for row in hard} == {""}


def test_pictures_name_the_run_and_say_what_has_no_curve(tmp_path):
    """Matplotlib names each text in a comment of the SVG; it writes no ampersand there."""
    svg = write_pr_curves(tmp_path, "fp32", CURVES)[1].read_text()
    assert f"<!-- fp32, AP {CURVES['easy'].ap:.4f} -->" in svg
    assert "<!-- no face kept, or no detection -->" in svg
    assert "#0072b2" in svg.lower()


def test_global_state_is_left_alone(tmp_path):
    before = dict(mpl.rcParams)
    write_pr_curves(tmp_path, RUN, CURVES)
    assert dict(mpl.rcParams) == before
    code = (
        "import sys, evalkit.tasks.widerface.curves; sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
