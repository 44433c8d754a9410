"""The table of a WIDER FACE result."""

from __future__ import annotations

import pytest

from evalkit.core.results import DatasetInfo, Interval, Metric, ModelInfo, RanInfo, Result, Stage
from evalkit.report.terminal import describe
from evalkit.tasks.widerface.task import WiderFaceTask


def metric(name, value, faces, recalled, proposals, interval=None, flags=()):
    figure, subset, *parts = name.split("/")
    return Metric(
        name=name,
        figure=figure,
        subset=subset,
        part=dict(part.split("=") for part in parts),
        value=value,
        rule="python",
        interval=interval,
        counts={"faces": faces, "recalled": recalled, "proposals": proposals},
        flags=flags,
    )


def result_of(metrics, **changes):
    content = {
        "evalkit_version": "0",
        "task": "widerface",
        "status": "complete",
        "started": "",
        "command": "",
        "dataset": DatasetInfo(
            name="WIDER FACE val",
            sha256="",
            content_sha256=None,
            counts={"images": 3226, "easy": 7211, "hard": 31958},
            path="",
        ),
        "model": ModelInfo(name="net", file=None, sha256=None, preprocessing={}),
        "ran": RanInfo(
            backend="onnxruntime",
            version="1",
            device="cpu",
            precision_requested="int8",
            precision_ran="int8",
            threads=2,
            batch_size=4,
            details={},
            notes=(),
        ),
        "settings": {"rule": "python", "iou": 0.5, "sizing": None, "nms_threshold": 0.4},
        "metrics": tuple(metrics),
        "failures_to_enrol": (),
        "stages": (Stage(name="scoring", seconds=1.0, items=3226),),
        "wall_seconds": 1.0,
        "throughput": None,
        "peak_memory_mb": 100.0,
        "scores_file": None,
        "warnings": ("3 prediction files are missing",),
        "environment": {},
    }
    return Result(**{**content, **changes})


INTERVAL = Interval(low=0.88, high=0.92, level=0.95, method="bootstrap over images")
METRICS = [
    metric("ap/easy", 0.907076, 7211, 6928, 273415, INTERVAL),
    metric("ap/hard", None, 0, 0, 12),
    metric("ap/hard/height=10-50", 0.6726, 24626, 20384, 244130),
    metric("recall/hard/height=10-50", 0.8277, 24626, 20384, 244130),
    metric("ap/hard/height=300+", 0.9619, 439, 430, 4802),
    *(
        metric(f"ap/hard/event={index}--Event", 0.9 - 0.05 * index, 10, 9 - index // 2, 20)
        for index in range(12)
    ),
    metric("ap/easy/event=3--Event", 0.01, 10, 9, 20),
]


@pytest.fixture
def lines():
    return describe(WiderFaceTask(), result_of(METRICS)).splitlines()


def cells(lines, first):
    return [line.split() for line in lines if line.split()[:1] == [first]]


def test_a_subset_has_its_interval_and_counts(lines):
    assert cells(lines, "easy") == [
        ["easy", "90.71", "88.00..92.00", "96.08", "6,928/7,211", "273,415"]
    ]
    assert cells(lines, "hard")[0] == ["hard", "-", "-", "-", "0/0", "12"]


def test_a_height_band_has_ap_and_recall(lines):
    assert cells(lines, "hard")[1:] == [
        ["hard", "10-50", "67.26", "82.77", "20,384/24,626", "244,130"],
        ["hard", "300+", "96.19", "97.95", "430/439", "4,802"],
    ]


def test_the_worst_events_of_the_widest_subset_come_first(lines):
    start = lines.index("events of lowest AP in hard, 8 of 12")
    names = [line.split()[0] for line in lines[start + 3 : start + 11]]
    assert names == [f"{index}--Event" for index in range(11, 3, -1)]
    assert lines[start + 11] == ""


def test_what_moves_the_figure_is_told(lines):
    assert lines[0] == "WIDER FACE val: 3,226 images; faces: 7,211 easy, 31,958 hard"
    assert "int8" in lines[1]
    assert lines[2] == "rule python; IoU >= 0.5; NMS 0.4"
    assert "warning: 3 prediction files are missing" in lines


def test_a_quick_look_says_so():
    text = describe(WiderFaceTask(), result_of(METRICS, status="partial"))
    assert text.splitlines()[1] == "PARTIAL: a quick look at some images; no gate accepts it"


def test_missing_predictions_are_told_apart_from_a_quick_look():
    settings = {"rule": "python", "images_without_predictions": 1234}
    text = describe(WiderFaceTask(), result_of(METRICS, status="partial", settings=settings))
    told = "PARTIAL: prediction files missing or of no use: 1,234; no gate accepts it"
    assert text.splitlines()[1] == told


def test_figures_over_few_faces_are_marked(lines):
    assert not any("few" in line for line in lines)
    few = metric("ap/hard/event=99--Event", 0.01, 9, 9, 20, flags=("too_few_faces",))
    marked = describe(WiderFaceTask(), result_of([*METRICS, few])).splitlines()
    assert cells(marked, "99--Event")[0][-1] == "few"
    assert cells(marked, "11--Event")[0][-1] != "few"
    assert sum("few: fewer than 30 faces" in line for line in marked) == 1


def test_tables_without_content_are_left_out():
    text = describe(WiderFaceTask(), result_of(METRICS[:1], stages=()))
    assert "height" not in text
    assert "event" not in text
    assert "seconds" not in text
