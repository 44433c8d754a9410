from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from wider_cases import small_detections, small_truth, write_mats

from evalkit.widerface_eval import Detections, evaluate, write_predictions
from evalkit.widerface_eval.__main__ import main


@pytest.fixture
def data(tmp_path):
    write_mats(tmp_path / "gt", small_truth())
    write_predictions(tmp_path / "pred", small_detections())
    return tmp_path


def arguments(data, *more):
    return ["-p", str(data / "pred"), "-g", str(data / "gt"), *more]


def test_the_lines_that_scripts_parse(data, capsys):
    assert main(arguments(data)) == 0
    printed = capsys.readouterr()
    expected = evaluate(small_truth(), small_detections()).ap
    lines = [line for line in printed.out.splitlines() if "Val AP" in line]
    assert lines == [
        f"Easy   Val AP: {expected['easy']!r}",
        f"Medium Val AP: {expected['medium']!r}",
        f"Hard   Val AP: {expected['hard']!r}",
    ]
    assert re.findall(r"Val AP: ([0-9.]+)", printed.out) == [str(ap) for ap in expected.values()]
    assert printed.err == ""


def test_json_replaces_the_lines_or_goes_to_a_file(data, capsys):
    assert main(arguments(data, "--json")) == 0
    content = json.loads(capsys.readouterr().out)
    assert (
        content["subsets"]["hard"]["ap"] == evaluate(small_truth(), small_detections()).ap["hard"]
    )
    assert content["rule"] == "python"
    assert content["missing"] == content["extra"] == []
    assert main(arguments(data, "--json", str(data / "result.json"))) == 0
    assert "Hard   Val AP" in capsys.readouterr().out
    assert json.loads((data / "result.json").read_text()) == content
    assert sorted(entry.name for entry in data.iterdir()) == ["gt", "pred", "result.json"]


def test_options_reach_the_result(data, capsys):
    options = ["--rule", "matlab", "--iou", "0.6", "--steps", "50", "--event", "0--Parade"]
    assert main(arguments(data, "--json", "--breakdown", *options)) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["rule"], content["iou_threshold"], content["score_steps"]) == (
        "matlab",
        0.6,
        50,
    )
    assert content["score_normalisation"] == "min_max_single"
    assert content["events"] == ["0--Parade"]
    assert [part["name"] for part in content["breakdown"]] == [
        "10-50",
        "50-300",
        "300+",
        *["0--Parade"] * 3,
    ]
    assert content["breakdown"][2]["ap"] is None


def test_the_breakdown_follows_the_lines(data, capsys):
    assert main(arguments(data, "--breakdown")) == 0
    assert re.search(r"^hard +5--people--driving +faces +2 AP", capsys.readouterr().out, re.M)


def test_incomplete_predictions_are_exit_code_3(data, capsys):
    (data / "pred" / "0--Parade" / "0_Parade_a.txt").unlink()
    assert main(arguments(data)) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "missing: 0--Parade/0_Parade_a" in printed.err
    assert main(arguments(data, "--allow-missing", "--json")) == 0
    printed = capsys.readouterr()
    assert "1 prediction files are missing" in printed.err
    assert json.loads(printed.out)["missing"] == ["0--Parade/0_Parade_a"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-p", "absent"], "neither a folder"),
        (["-g", "absent"], "no such folder"),
        (["--event", "9--Nowhere"], "no event 9--Nowhere"),
        (["--iou", "2"], "IoU threshold is 2.0"),
        (["--steps", "0"], "0 steps"),
        (["--threads", "0"], "0 threads"),
        (["--rule", "matlab_int", "--iou", "0.6"], "no meaning"),
        (["--json", "/absent/result.json"], "/absent"),
    ],
)
def test_a_wrong_input_is_exit_code_2(data, capsys, more, message):
    assert main(arguments(data, *more)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Val AP" not in printed.out
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "form", ["absent/result.json", "file/result.json", "gt", "pipe", "n" * 300]
)
def test_a_result_that_cannot_be_written_is_refused_before_the_work(data, capsys, form):
    (data / "file").write_text("")
    os.mkfifo(data / "pipe")
    before = sorted(data.rglob("*"))
    # The predictions are absent too, which only the work would notice.
    assert main(["-p", "absent", "-g", str(data / "gt"), "--json", str(data / form)]) == 2
    assert f"{data / form}: the result cannot be written" in capsys.readouterr().err
    assert sorted(data.rglob("*")) == before


def test_a_full_disk_is_told_by_the_name_of_the_file(data, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", ".result.json.1x2y3z/new")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(arguments(data, "--json", str(data / "result.json"))) == 2
    printed = capsys.readouterr().err
    assert f"{data / 'result.json'}: the result cannot be written there (No space" in printed
    assert "1x2y3z" not in printed
    assert sorted(entry.name for entry in data.iterdir()) == ["gt", "pred"]


def test_boxes_of_another_form_are_suspected_aloud(data, capsys):
    boxes = small_detections().boxes
    shifted = np.column_stack([boxes[:, :2] + 400, boxes[:, 2:]])
    write_predictions(
        data / "pred", dataclasses.replace(small_detections(), boxes=shifted), overwrite=True
    )
    assert main(arguments(data, "--json")) == 0
    printed = capsys.readouterr()
    assert "warning: None of 5 detections hits a face" in printed.err
    assert "x y width height, not x1 y1 x2 y2" in printed.err
    assert "None of 5" in json.loads(printed.out)["warnings"][0]


def test_equal_scores_and_no_detection_are_exit_code_2(data, capsys):
    for rows, message in (
        ([[0, 0, 9, 9, 0.5]], "cannot be stretched"),
        ([], "not a single detection"),
    ):
        images = small_truth().images
        same = Detections.from_rows(images, [rows] * len(images))
        write_predictions(data / "pred", same, overwrite=True)
        assert main(arguments(data)) == 2
        assert message in capsys.readouterr().err


def test_a_wrong_option_is_exit_code_2(data):
    with pytest.raises(SystemExit) as caught:
        main(arguments(data, "--rule", "voc"))
    assert caught.value.code == 2


def test_it_runs_as_a_module_and_imports_nothing_of_the_rest(data):
    code = (
        "import sys; from evalkit.widerface_eval.__main__ import main; main(sys.argv[1:]);"
        "print(*{name.split('.')[1] for name in sys.modules if name.startswith('evalkit.')});"
        "print(*{'cv2', 'torch', 'pydantic', 'sklearn'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments(data)], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-2:] == ["widerface_eval", ""]
    run = subprocess.run(
        [sys.executable, "-m", "evalkit.widerface_eval", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert "--allow-missing" in run.stdout
    assert "exit codes" in run.stdout


def test_a_checkout_that_is_not_built_says_which_command_builds_it(data):
    root, checkout = Path(__file__).parents[2], data / "checkout"
    for name in ("evalkit", "protocols", "widerface_eval"):
        shutil.copytree(root / name, checkout / name, ignore=shutil.ignore_patterns("*.so"))
    command = [sys.executable, "-m", "evalkit.widerface_eval", *arguments(data)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: The compiled kernel evalkit.widerface_eval._matching is not built. In "
        f"{checkout} run: pip install -e . (or: python setup.py build_ext --inplace).\n"
    )
