"""Inputs out, outputs in: a runner that knows nothing of evalkit stands for the board."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import Command

from evalkit.core.results import Result, load_result
from evalkit.datasets import sample
from evalkit.datasets.lfw import load_bin

pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")

RUNNER = Path(__file__).parents[1] / "exchange" / "standalone_runner.py"
MODELS = Path(sample.__path__[0])
Board = Callable[..., Path]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    def run(dump: Path, model: str, form: str = "txt") -> Path:
        outputs = tmp_path / f"outputs-{form}"
        command = [sys.executable, RUNNER, MODELS / model, dump, outputs, form]
        subprocess.run(list(map(str, command)), check=True)
        return outputs

    return run


def evaluated(evalkit: Command, tmp_path: Path, *words: object) -> Result:
    file = tmp_path / f"result-{len(list(tmp_path.glob('result-*.json')))}.json"
    assert evalkit(*words, "--output", file, "--quiet") == 0
    return load_result(file)


def assert_same_figures(device: Result, here: Result) -> None:
    assert [metric.name for metric in device.metrics] == [metric.name for metric in here.metrics]
    for mine, other in zip(device.metrics, here.metrics, strict=True):
        assert (mine.value is None) == (other.value is None), mine.name
        if mine.value is not None and other.value is not None:
            assert mine.value == pytest.approx(other.value, abs=1e-6), mine.name
    assert device.dataset == here.dataset


@pytest.fixture
def lfw(evalkit: Command, tiny_lfw: Path, tmp_path: Path, board: Board) -> tuple[Path, Path]:
    """A dump and the board's outputs of it."""
    dump = tmp_path / "dump"
    assert evalkit("dump", "lfw", "--data", tiny_lfw, "--out", dump, "--quiet") == 0
    return dump, board(dump, "recognition.onnx")


def lfw_words(tiny_lfw: Path, dump: Path, outputs: Path) -> list[object]:
    return [
        *("lfw", "--data", tiny_lfw, "--backend", "outputs"),
        *("--outputs", outputs, "--manifest", dump),
    ]


def test_lfw(evalkit: Command, tiny_lfw: Path, tmp_path: Path, lfw: tuple[Path, Path]) -> None:
    dump, outputs = lfw
    words = lfw_words(tiny_lfw, dump, outputs)
    direct = evaluated(evalkit, tmp_path, *words[:3])
    info = tmp_path / "info.yaml"
    info.write_text(
        "{device: board, runtime: runner, version: '1', precision: fp32, batch_size: 4}"
    )
    log = tmp_path / "ais.log"
    log.write_text("[INFO] throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(2.0): 2000.5\n")
    device = evaluated(evalkit, tmp_path, *words, "--runtime-info", info, "--throughput-log", log)
    assert_same_figures(device, direct)
    assert (device.ran.device, device.ran.batch_size, device.throughput) == ("board", 4, 2000.5)
    assert device.ran.details["runtime"] == "runner"
    info.write_text("{device: board, precision: int8}")
    named = evaluated(evalkit, tmp_path, *words, "--runtime-info", info)
    assert named.ran.precision_requested == "int8"
    assert device.ran.precision_ran == "fp32 (as its user says)"
    assert any("compared with the model's own" in note for note in device.ran.notes)


def test_ijbc(evalkit: Command, tiny_ijbc: Path, tmp_path: Path, board: Board) -> None:
    dump = tmp_path / "dump"
    assert evalkit("dump", "ijbc", "--data", tiny_ijbc, "--out", dump, "--quiet") == 0
    outputs = board(dump, "recognition.onnx", "bin")
    direct = evaluated(evalkit, tmp_path, "ijbc", "--data", tiny_ijbc)
    words = ["--backend", "outputs", "--outputs", outputs, "--manifest", dump]
    assert_same_figures(evaluated(evalkit, tmp_path, "ijbc", "--data", tiny_ijbc, *words), direct)


@pytest.mark.parametrize("form", ["txt", "npy"])
def test_widerface(
    evalkit: Command, tiny_wider: Path, tmp_path: Path, board: Board, form: str
) -> None:
    dump = tmp_path / "dump"
    assert evalkit("dump", "widerface", "--data", tiny_wider, "--out", dump, "--quiet") == 0
    outputs = board(dump, "detection.onnx", form)
    direct = evaluated(evalkit, tmp_path, "widerface", "--data", tiny_wider)
    info = dump / "runtime-info.yaml"
    info.write_text(info.read_text().replace("precision: fp16", "precision: fp32"))
    words = ["--backend", "outputs", "--outputs", outputs, "--manifest", dump]
    words += ["--runtime-info", info, "--verify", "all"]
    device = evaluated(evalkit, tmp_path, "widerface", "--data", tiny_wider, *words)
    assert_same_figures(device, direct)


def planted(evalkit: Command, words: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert evalkit(*words, "--quiet") in {2, 3}
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda out: (out / "00000003_0.txt").unlink(), "lacks 00000003_0.txt of"),
    "extra": (
        lambda out: (out / "00009999_0.txt").write_text("1 2"),
        "holds 00009999_0.txt, which",
    ),
    "cut short": (
        lambda out: (out / "00000005_0.txt").write_text(
            (out / "00000005_0.txt").read_text()[:400].rsplit(" ", 1)[0]
        ),
        "00000005_0.txt holds",
    ),
    "not numbers": (
        lambda out: (out / "00000004_flip_0.txt").write_text("one two"),
        "00000004_flip_0.txt cannot be read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(
    evalkit: Command,
    tiny_lfw: Path,
    lfw: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    plant, named = FAULTS[fault]
    plant(lfw[1])
    assert named in planted(evalkit, lfw_words(tiny_lfw, *lfw), capsys)


def test_nan_is_a_failure_to_enrol(
    evalkit: Command,
    tiny_lfw: Path,
    tmp_path: Path,
    lfw: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = lfw[1] / "00000006_0.txt"
    file.write_text(" ".join(["nan", *file.read_text().split()[1:]]))
    words = lfw_words(tiny_lfw, *lfw)
    message = planted(evalkit, words, capsys)
    assert "pair 3 first" in message
    assert "NaN" in message
    result = evaluated(evalkit, tmp_path, *words, "--max-failures", 1)
    assert [failure.name.rsplit(":", 1)[-1] for failure in result.failures_to_enrol] != []


def test_exchanged_faces_are_named(
    evalkit: Command, tiny_lfw: Path, lfw: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    exchange(lfw[1], "00000000_0.txt", "00000011_0.txt")
    words = [*lfw_words(tiny_lfw, *lfw), "--verify", 0]
    message = planted(evalkit, words, capsys)
    assert "were exchanged" in message
    assert "pair 0 first" in message
    assert "pair 5 second" in message


def test_exchanged_detections_are_named(
    evalkit: Command,
    tiny_wider: Path,
    tmp_path: Path,
    board: Board,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dump = tmp_path / "dump"
    assert evalkit("dump", "widerface", "--data", tiny_wider, "--out", dump, "--quiet") == 0
    outputs = board(dump, "detection.onnx", "npy")
    first, second = same_size(outputs)
    for number in range(6):
        exchange(outputs, f"{first}_{number}.npy", f"{second}_{number}.npy")
    words = ["widerface", "--data", tiny_wider, "--backend", "outputs", "--outputs", outputs]
    message = planted(evalkit, [*words, "--manifest", dump, "--verify", "all"], capsys)
    assert "is that of" in message


def same_size(outputs: Path) -> tuple[str, str]:
    seen: dict[int, str] = {}
    for file in sorted(outputs.glob("*_0.npy")):
        stem = file.name.split("_")[0]
        if file.stat().st_size in seen:
            return seen[file.stat().st_size], stem
        seen[file.stat().st_size] = stem
    raise AssertionError("the sample needs two images of one size")


def exchange(folder: Path, first: str, second: str) -> None:
    spare = folder / "spare"
    (folder / first).rename(spare)
    (folder / second).rename(folder / first)
    spare.rename(folder / second)


def test_other_data_than_those_dumped_are_refused(
    evalkit: Command, tiny_lfw: Path, lfw: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*lfw_words(tiny_lfw, *lfw), "--mean", "100"]
    assert "has no such input" in planted(evalkit, words, capsys)


def test_an_interrupted_dump_goes_on(
    evalkit: Command,
    tiny_lfw: Path,
    tmp_path: Path,
    lfw: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a kill leaves it: the header says partial, the last line of the list is cut."""
    dump, outputs = lfw
    whole = (dump / "items.jsonl").read_bytes()
    (dump / "manifest.json").rename(dump / "manifest.partial.json")
    (dump / "items.jsonl").write_bytes(whole[: len(whole) // 2])
    assert "was interrupted" in planted(evalkit, lfw_words(tiny_lfw, dump, outputs), capsys)
    assert evalkit("dump", "lfw", "--data", tiny_lfw, "--out", dump) == 0
    assert "resuming" in capsys.readouterr().err
    assert (dump / "items.jsonl").read_bytes() == whole
    assert (dump / "manifest.json").is_file()


def test_another_dump_is_not_written_over(
    evalkit: Command, tiny_lfw: Path, lfw: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dump", "lfw", "--data", tiny_lfw, "--out", lfw[0], "--format", "npy"]
    assert "holds another dump: format differs" in planted(evalkit, words, capsys)


@pytest.mark.parametrize("form", ["npy", "npz", "image", "bin"])
def test_every_format_holds_the_inputs(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, form: str
) -> None:
    import cv2

    from evalkit.backends.outputs.manifest import read_manifest, tensor_hash

    dump = tmp_path / "dump"
    batch = ["--batch", 8] if form in {"npz", "bin"} else []
    assert (
        evalkit(
            "dump", "lfw", "--data", tiny_lfw, "--out", dump, "--format", form, *batch, "--quiet"
        )
        == 0
    )
    manifest, written = read_manifest(dump)
    assert manifest.batch == (8 if batch else 1)
    for entry in (entry for part in written for entry in part.entries):
        file = dump / "inputs" / entry.file
        if form == "bin":
            rows = np.fromfile(file, "<f4").reshape(8, 3, 112, 112)
        elif form == "npz":
            rows = np.load(file)["inputs"]
        elif form == "npy":
            rows = np.load(file)
        else:
            rows = cv2.imread(str(file))[None, ..., ::-1].transpose(0, 3, 1, 2)
        for row, item in zip(rows, entry.items, strict=False):
            assert tensor_hash(row) == item.hash


def test_one_matrix_in_the_order_of_the_manifest(
    evalkit: Command,
    tiny_lfw: Path,
    tmp_path: Path,
    lfw: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    dump, outputs = lfw
    stems = [Path(line).stem for line in (dump / "file_list.txt").read_text().split()]
    rows = np.stack([np.loadtxt(outputs / f"{stem}_0.txt", dtype=np.float32) for stem in stems])
    words = lfw_words(tiny_lfw, dump, tmp_path / "all.npy")
    direct = evaluated(evalkit, tmp_path, *words[:3])
    np.save(tmp_path / "all.npy", rows)
    assert_same_figures(evaluated(evalkit, tmp_path, *words), direct)
    np.save(tmp_path / "all.npy", rows[:-1])
    assert "cannot be matched to the inputs" in planted(evalkit, words, capsys)
    np.savez(tmp_path / "all.npz", output0=rows, names=np.array(stems[::-1]))
    words = lfw_words(tiny_lfw, dump, tmp_path / "all.npz")
    assert "in another order" in planted(evalkit, words, capsys)


def test_calibration_inputs_are_of_other_people(
    evalkit: Command,
    tiny_ijbc: Path,
    tiny_lfw: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dump = tmp_path / "dump"
    words = ["dump", "lfw", "--data", tiny_lfw, "--out", dump, "--calibration", 6, "--quiet"]
    assert evalkit(*words, "--calibration-data", tiny_ijbc) == 0
    drawn = json.loads((dump / "calibration" / "drawn.json").read_text())
    assert drawn["count"] == len(list((dump / "calibration" / "inputs").iterdir())) == 6
    shutil.rmtree(dump)
    assert evalkit(*words) == 0
    assert "both calibrated with and evaluated" in capsys.readouterr().out


def test_predictions_say_what_device_made_them(
    evalkit: Command, tiny_wider: Path, tmp_path: Path
) -> None:
    predictions = tmp_path / "predictions"
    words = ["widerface", "--data", tiny_wider, "--quiet"]
    assert evalkit(*words, "--write-predictions", predictions) == 0
    info, log = tmp_path / "info.yaml", tmp_path / "mm.log"
    info.write_text("{device: MLU370-S4, runtime: mm_run, precision: int8, batch_size: 16}")
    log.write_text("Throughput (qps): 4096.5\n")
    options = ["--predictions", predictions, "--runtime-info", info, "--throughput-log", log]
    device = evaluated(evalkit, tmp_path, *words[:3], *options, "--precision", "int8")
    assert (device.ran.device, device.ran.batch_size, device.throughput) == (
        "MLU370-S4",
        16,
        4096.5,
    )
    assert device.ran.precision_ran == "int8 (as its user says)"
    assert device.model.sha256 is not None


def test_pairs_of_a_folder_of_images(
    evalkit: Command, board: Board, tiny_lfw: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pairs = load_bin(tiny_lfw)
    for index, image in enumerate(pairs.images):
        (photos / f"{index}.png").write_bytes(image)
    rows = [f"{2 * at}.png,{2 * at + 1}.png,{int(same)}" for at, same in enumerate(pairs.issame)]
    points = "38.3 51.7 73.5 51.5 56 71.7 41.5 92.4 70.7 92.2"
    (tmp_path / "pairs.csv").write_text("\n".join(["path1,path2,same", *rows]) + "\n")
    (tmp_path / "points.txt").write_text(
        "".join(f"{at}.png {points}\n" for at in range(len(pairs.images)))
    )
    table = ("pairs", "--data", tmp_path / "pairs.csv", "--images", photos)
    data = (*table, "--align", "5pt", "--points", tmp_path / "points.txt")
    model = ("--model", "sample-recognition")
    dump, here, there = tmp_path / "dump", tmp_path / "here.json", tmp_path / "there.json"
    assert evalkit("dump", *data, *model, "--no-flip", "--out", dump) == 0
    device = ("--backend", "outputs", "--manifest", dump, "--precision", "fp32")
    outputs = board(dump, "recognition.onnx")
    assert evalkit(*data, *model, *device, "--outputs", outputs, "--output", there) == 0
    assert evalkit(*data, *model, "--output", here) == 0
    assert load_result(there).metric("eer").value == load_result(here).metric("eer").value
    assert evalkit(*table, *model, *device, "--outputs", outputs) == 2


def test_a_setting_of_another_task_is_refused(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evalkit("dump", "lfw", "--data", tiny_lfw, "--align", "none", "--out", tmp_path) == 2
    assert "lfw takes no --align. Leave it out." in capsys.readouterr().err
