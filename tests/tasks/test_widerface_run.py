"""``evalkit widerface`` from the command line."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from command import Command

from evalkit.core.progress import Progress
from evalkit.core.results import load_result
from evalkit.tasks.run import run
from evalkit.tasks.widerface.settings import WiderFaceSettings
from evalkit.tasks.widerface.task import WiderFaceTask
from evalkit.widerface_eval import Detections, read_ground_truth, read_predictions

pytest.importorskip("onnxruntime", reason="needs the cpu extra")


def truth_of(data: Path) -> Path:
    return next(path.parent for path in data.rglob("wider_hard_val.*"))


@pytest.fixture
def perfect(tiny_wider: Path, tmp_path: Path) -> Path:
    """Predictions that are the ground truth itself."""
    from evalkit.widerface_eval import write_predictions

    truth = read_ground_truth(truth_of(tiny_wider))
    rows = [
        np.column_stack([truth.boxes[a:b], np.linspace(0.9, 0.5, b - a)])
        for a, b in zip(truth.offsets[:-1], truth.offsets[1:], strict=True)
    ]
    write_predictions(tmp_path / "perfect", Detections.from_rows(truth.images, rows))
    return tmp_path / "perfect"


def test_perfect_predictions_have_perfect_ap(
    evalkit: Command, tiny_wider: Path, perfect: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    words = ("--predictions", perfect, "--data", tiny_wider, "--output", out)
    assert evalkit("widerface", *words) == 0
    held = load_result(out)
    assert held.metric("ap/hard").value == pytest.approx(1.0)
    assert held.metric("ap/hard").counts["faces"] == held.dataset.counts["hard"]
    assert held.ran.backend == "ready-made"


@pytest.fixture
def two_results(evalkit: Command, tiny_wider: Path, perfect: Path, tmp_path: Path) -> list[Path]:
    """Results of perfect predictions, and of some without their first face of each image."""
    from evalkit.widerface_eval import write_predictions

    truth = read_ground_truth(truth_of(tiny_wider))
    held = read_predictions(perfect, truth.images).detections
    table = np.column_stack([held.boxes, held.scores])
    rows = [table[a + 1 : b] for a, b in zip(held.offsets[:-1], held.offsets[1:], strict=True)]
    write_predictions(tmp_path / "fewer", Detections.from_rows(truth.images, rows))
    results = []
    for folder in (perfect, tmp_path / "fewer"):
        results.append(tmp_path / f"{folder.name}.json")
        words = ("--predictions", folder, "--data", tiny_wider, "--output", results[-1])
        assert evalkit("widerface", *words) == 0
    return results


def test_two_runs_are_compared_image_by_image(
    evalkit: Command, two_results: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "difference.json"
    capsys.readouterr()
    assert evalkit("compare", *two_results, "--output", out) == 0
    shown = capsys.readouterr().out
    assert "event=" not in shown
    assert "--all shows them" in shown
    assert max(map(len, shown.splitlines())) < 160
    metrics = {m["name"]: m for m in json.loads(out.read_text())["metrics"]}
    hard = metrics["ap/hard"]
    assert hard["interval"]["low"] < hard["difference"] < hard["interval"]["high"] < 0
    assert "paired" in hard["interval"]["method"]
    assert evalkit("compare", *two_results, "--all") == 0
    assert "ap/hard/event=" in capsys.readouterr().out


def test_counts_of_another_result_are_refused(
    evalkit: Command, two_results: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (path.with_name(f"{path.stem}.scores.npz") for path in two_results)
    shutil.copy(one, other)
    assert evalkit("compare", *two_results) == 2
    assert "do not belong together" in capsys.readouterr().err
    other.unlink()
    assert evalkit("compare", *two_results) == 2
    assert "Cannot read the scores" in capsys.readouterr().err


def test_incomplete_predictions_are_for_no_gate(
    evalkit: Command, tiny_wider: Path, perfect: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("widerface", "--predictions", perfect, "--data", tiny_wider, "--allow-missing")
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    assert evalkit(*words, "--output", whole) == 0
    assert load_result(whole).status == "complete"
    gone = sorted(perfect.rglob("*.txt"))[0]
    gone.unlink()
    assert evalkit(*words[:-1]) == 3
    assert gone.stem in capsys.readouterr().err
    assert evalkit(*words, "--output", part) == 0
    assert "PARTIAL: prediction files missing or of no use: 1;" in capsys.readouterr().out
    assert load_result(part).status == "partial"
    assert load_result(part).settings["images_without_predictions"] == 1
    assert evalkit("gate", part, "--baseline", whole) == 3


def test_few_faces_are_flagged(two_results: list[Path]) -> None:
    metrics = load_result(two_results[0]).metrics
    flagged = {metric.name for metric in metrics if "too_few_faces" in metric.flags}
    assert flagged == {metric.name for metric in metrics if 0 < metric.counts["faces"] < 30}
    assert flagged


@pytest.mark.parametrize("option", ["--save-images", "--write-predictions", "--output"])
def test_outputs_are_tried_before_the_work(
    evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "file").write_text("")
    assert evalkit("widerface", "--data", "nowhere", option, tmp_path / "file" / "there") == 2
    shown = capsys.readouterr().err
    assert option in shown
    assert "nowhere" not in shown


def test_predictions_that_are_there_stay(
    evalkit: Command, perfect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evalkit("widerface", "--data", "nowhere", "--write-predictions", perfect) == 2
    assert "is there already" in capsys.readouterr().err


def test_the_sample_end_to_end(evalkit: Command, tiny_wider: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    words = (
        "--data", tiny_wider, "--output", out, "--write-predictions", tmp_path / "pred",
        "--save-images", tmp_path / "looks",
    )  # fmt: skip
    assert evalkit("widerface", *words) == 0
    held = load_result(out)
    assert held.settings["score_threshold"] == 0.02
    assert held.settings["sizing"].startswith("original")
    truth = read_ground_truth(truth_of(tiny_wider))
    read_predictions(tmp_path / "pred", truth.images)
    again = tmp_path / "again.json"
    ready = ("--predictions", tmp_path / "pred", "--data", tiny_wider, "--output", again)
    assert evalkit("widerface", *ready) == 0
    for subset in ("easy", "medium", "hard"):
        found, stored = (load_result(path).metric(f"ap/{subset}").value for path in (again, out))
        assert found == stored
    assert list((tmp_path / "looks").rglob("*.png"))


def test_predictions_of_more_images_than_asked_for_serve(
    evalkit: Command, tiny_wider: Path, perfect: Path, tmp_path: Path
) -> None:
    events = read_ground_truth(truth_of(tiny_wider)).events[:2]
    words = ("widerface", "--predictions", perfect, "--data", tiny_wider)
    words = (*words, "--events", ",".join(events))
    assert evalkit(*words, "--output", tmp_path / "events.json") == 0
    held = load_result(tmp_path / "events.json")
    assert held.metric("ap/hard").value == pytest.approx(1.0)
    count = held.dataset.counts["images"]
    for limit, status in ((count, "complete"), (count - 1, "partial")):
        out = tmp_path / f"{limit}.json"
        assert evalkit(*words, "--limit", limit, "--output", out) == 0
        assert load_result(out).status == status


def test_images_that_failed_are_not_written_as_without_faces(
    evalkit: Command, tiny_wider: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, written = tmp_path / "broken", tmp_path / "written"
    shutil.copytree(tiny_wider, data)
    broken = sorted(data.rglob("*.jpg"))[0]
    broken.write_bytes(b"no image")
    words = ("--data", data, "--model", "sample-detection", "--write-predictions", written)
    assert evalkit("widerface", *words, "--max-failures", 1) == 0
    assert "without 1 images that have no outcome" in capsys.readouterr().err
    assert evalkit("widerface", "--data", data, "--predictions", written) == 3
    assert broken.stem in capsys.readouterr().err


def test_curves_need_no_images(
    evalkit: Command, tiny_wider: Path, perfect: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("--predictions", perfect, "--ground-truth", truth_of(tiny_wider))
    assert evalkit("widerface", *words, "--save-images", tmp_path / "looks") == 0
    assert "only the curves are written" in capsys.readouterr().err
    assert list((tmp_path / "looks").glob("*.png"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "sample-recognition"), "--head"),
        (("--sizing", "huge"), "no input sizing 'huge'"),
        (("--ground-truth", "nowhere"), "nowhere"),
        (("--events", "99--Nothing"), "99--Nothing"),
        (("--predictions", "nowhere"), "nowhere"),
    ],
)
def test_wrong_input_is_one_clear_line(
    evalkit: Command, tiny_wider: Path, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    assert evalkit("widerface", "--data", tiny_wider, *words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_other_data_need_a_model(
    evalkit: Command, tiny_wider: Path, perfect: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = tmp_path / "own"
    shutil.copytree(tiny_wider, data)
    (data / "evalkit-sample.json").unlink()
    assert evalkit("widerface", "--data", data) == 2
    assert "--model sample-detection runs the embedded network" in capsys.readouterr().err
    assert evalkit("widerface", "--data", data, "--predictions", perfect) == 0


def test_a_recognition_command_refuses_a_detector(
    evalkit: Command, tiny_ijbc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evalkit("ijbc", "--data", tiny_ijbc, "--model", "sample-detection") == 2
    assert "it is a detector" in capsys.readouterr().err


@pytest.mark.slow
def test_real_predictions_give_the_published_ap(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "widerface" / "predictions" / "retinaface-mnet025.tar.xz"
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = next(path.parent for path in tmp_path.rglob("0--Parade"))
    config = WiderFaceSettings(
        predictions=folder, ground_truth=shared_data / "widerface" / "ground_truth"
    )
    (outcome,) = run(WiderFaceTask(), config, Progress(quiet=True))
    result = outcome.result
    assert result.dataset.name == "WIDER FACE val"
    wanted = {"easy": 0.907076104848709, "medium": 0.8816501731241937, "hard": 0.7382726532319118}
    for subset, ap in wanted.items():
        assert result.metric(f"ap/{subset}").value == pytest.approx(ap, abs=1e-9)


@pytest.mark.slow
def test_real_images_and_a_real_detector(shared_data: Path, tmp_path: Path) -> None:
    """The Picnic event with RetinaFace MobileNet0.25: independent .89844 / .92361 / .68787.

    Those stem from files whose corners were cut to whole pixels.
    """
    pytest.importorskip("torch", reason="needs the torch extra")
    model = tmp_path / "model.yaml"
    weights = shared_data / "models" / "biubug6_mobilenet0.25_Final.pth"
    model.write_text(
        f"name: retinaface\nfiles: {{torch: {weights}}}\narchitecture: retinaface-mobilenet025\n"
        "head: retinaface\ninput: {color: bgr, mean: [104, 117, 123], std: 1}\n"
        "sizing: original stride=1\ndetection: {truncate: true}\n"
    )
    config = WiderFaceSettings(
        data=shared_data / "widerface", events=("22--Picnic",), model=str(model), backend="torch"
    )
    (outcome,) = run(WiderFaceTask(), config, Progress(quiet=True))
    result = outcome.result
    for subset, ap in (("easy", 0.89844), ("medium", 0.92361), ("hard", 0.68787)):
        assert result.metric(f"ap/{subset}").value == pytest.approx(ap, abs=5e-6)
