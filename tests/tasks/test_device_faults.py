"""Faults planted among a device's outputs are each caught and named, for every protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command import Command

from evalkit.cli import main
from evalkit.core.results import load_result
from evalkit.datasets import sample

pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")

RUNNER = Path(__file__).parents[1] / "exchange" / "standalone_runner.py"
MODELS = Path(sample.__path__[0])
KINDS = {"lfw": "recognition.onnx", "ijbc": "recognition.onnx", "widerface": "detection.onnx"}


@dataclass(frozen=True)
class Case:
    """A protocol's data, its dump, and what a device wrote for it as raw float32."""

    kind: str
    data: Path
    dump: Path
    outputs: Path

    @property
    def words(self) -> list[object]:
        return [
            *(self.kind, "--data", self.data, "--backend", "outputs", "--outputs", self.outputs),
            *("--manifest", self.dump, "--runtime-info", self.dump / "runtime-info.yaml"),
        ]

    def file(self, place: int) -> Path:
        """The first output of an image."""
        return self.outputs / f"{place:08d}_0.bin"


@pytest.fixture(scope="module")
def cases(
    tiny_lfw: Path,
    tiny_ijbc: Path,
    tiny_wider: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Case]:
    cases = {}
    sizing = {"widerface": ["--sizing", "fixed=320x320 letterbox"]}
    for kind, data in {"lfw": tiny_lfw, "ijbc": tiny_ijbc, "widerface": tiny_wider}.items():
        folder = tmp_path_factory.mktemp(kind)
        case = Case(kind, data, folder / "dump", folder / "outputs")
        words = ["dump", kind, "--data", data, "--out", case.dump, *sizing.get(kind, [])]
        assert main([str(word) for word in [*words, "--quiet"]]) == 0
        command = [sys.executable, RUNNER, MODELS / KINDS[kind], case.dump, case.outputs, "bin"]
        subprocess.run(list(map(str, command)), check=True)
        info = case.dump / "runtime-info.yaml"
        info.write_text(info.read_text().replace("precision: fp16", "precision: fp32"))
        cases[kind] = case
    return cases


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, cases: dict[str, Case], tmp_path: Path) -> Case:
    source = cases[request.param]
    outputs = tmp_path / "device outputs"
    shutil.copytree(source.outputs, outputs)
    return Case(source.kind, source.data, source.dump, outputs)


def refused(case: Case, capsys: pytest.CaptureFixture[str], *more: object) -> str:
    """Run the evaluation; return why it was refused."""
    sizing = ["--sizing", "fixed=320x320 letterbox"] if case.kind == "widerface" else []
    words = [*case.words, *sizing, *more, "--quiet"]
    capsys.readouterr()
    assert main([str(word) for word in words]) in {2, 3}
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


FAULTS: dict[str, tuple[Callable[[Case], object], str]] = {
    "missing": (lambda case: case.file(3).unlink(), "lacks 00000003_0.bin of"),
    "extra": (lambda case: case.file(9999).write_bytes(b"1234"), "holds 00009999_0.bin, which"),
    "cut short": (lambda case: cut(case.file(1)), "00000001_0.bin holds"),
    "the first cut short": (lambda case: cut(case.file(0)), "00000000_0.bin holds"),
    "cut within a number": (
        lambda case: case.file(2).write_bytes(case.file(2).read_bytes()[:-2]),
        "00000002_0.bin cannot be read",
    ),
    "empty": (lambda case: case.file(3).write_bytes(b""), "00000003_0.bin holds 0 numbers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(case: Case, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    plant, named = FAULTS[fault]
    plant(case)
    assert named in refused(case, capsys)


def test_exchanged_outputs_are_named(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = 1, 3
    for one in list(case.outputs.glob(f"{first:08d}_[0-9]*.bin")):
        other = case.outputs / one.name.replace(f"{first:08d}", f"{second:08d}")
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    lines = [json.loads(line) for line in (case.dump / "items.jsonl").read_text().splitlines()]
    names = {
        item["sample"]: item["name"]
        for line in lines
        for entry in line["entries"]
        for item in entry["items"]
    }
    message = refused(case, capsys)
    assert names[first] in message
    assert names[second] in message


def test_nan_is_a_failure_that_is_named(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.fromfile(case.file(2), "<f4")
    values[0] = np.nan
    values.tofile(case.file(2))
    assert "NaN or infinite" in refused(case, capsys, "--max-failures", 0)
    sizing = ["--sizing", "fixed=320x320 letterbox"] if case.kind == "widerface" else []
    words = [*case.words, *sizing, "--max-failures", 2, "--output", tmp_path / "r.json", "--quiet"]
    assert main([str(word) for word in words]) == 0
    assert load_result(tmp_path / "r.json").failures_to_enrol


@pytest.fixture
def lfw(cases: dict[str, Case], tmp_path: Path) -> Case:
    source = cases["lfw"]
    shutil.copytree(source.outputs, tmp_path / "outputs")
    shutil.copytree(source.dump, tmp_path / "dump")
    return Case("lfw", source.data, tmp_path / "dump", tmp_path / "outputs")


def first_line(case: Case, change: Callable[[dict[str, list[dict[str, object]]]], object]) -> None:
    path = case.dump / "items.jsonl"
    line, *others = path.read_text().splitlines()
    value = json.loads(line)
    change(value)
    path.write_text("\n".join([json.dumps(value), *others]) + "\n")


def header(case: Case, **changes: object) -> None:
    path = case.dump / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE: dict[str, tuple[Callable[[Case], object], str]] = {
    "header cut": (
        lambda case: (case.dump / "manifest.json").write_text('{"schema'),
        "manifest.json is not a manifest: Invalid JSON",
    ),
    "no batch": (lambda case: header(case, batch=0), "not a manifest: batch: "),
    "lines lost": (lambda case: (case.dump / "items.jsonl").write_text(""), "lists 0 of the"),
    "no items": (
        lambda case: first_line(case, lambda value: value["entries"][0].update(items=[])),
        "line 1 is damaged ('00000000.bin' holds no input)",
    ),
    "a path": (
        lambda case: first_line(case, lambda value: value["entries"][0].update(file="../a.bin")),
        "'../a.bin' is not a plain file name",
    ),
    "no list": (lambda case: (case.dump / "items.jsonl").write_text("3\n"), "line 1 is damaged"),
    "an input cut": (
        lambda case: cut(case.dump / "inputs" / "00000000.bin"),
        "00000000.bin is not the input that was dumped",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_dump_is_named(
    lfw: Case, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    plant, named = DAMAGE[damage]
    plant(lfw)
    assert named in refused(lfw, capsys)


def test_a_damaged_dump_is_not_gone_on_with(
    lfw: Case, evalkit: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (lfw.dump / "manifest.json").write_text("{")
    assert evalkit("dump", "lfw", "--data", lfw.data, "--out", lfw.dump) == 2
    assert "is not a manifest" in capsys.readouterr().err


def test_other_pixels_by_another_opencv_are_told(
    lfw: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    header(lfw, opencv="1.2.3")
    message = refused(lfw, capsys, "--mean", 100)
    assert "decoded by OpenCV 1.2.3" in message


def test_outputs_of_another_model_are_refused(
    lfw: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in lfw.outputs.iterdir():
        np.fromfile(file, "<f4")[:64].tofile(file)
    assert "outputs of another model" in refused(lfw, capsys)


def test_disordered_outputs_of_the_right_size_are_told(
    lfw: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(lfw.outputs.iterdir())
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, [*contents[6:], *contents[:6]], strict=True):
        file.write_bytes(content)
    assert "is that of" in refused(lfw, capsys, "--verify", "all")


def test_options_of_another_backend_are_refused(
    lfw: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Add --backend outputs" in refused(lfw, capsys, "--backend", "onnxruntime")


def test_a_comparison_that_cannot_be_made_is_no_silence(
    lfw: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "board.yaml"
    model.write_text("{name: board, files: {ascend: board.om}}")
    message = refused(lfw, capsys, "--model", model, "--verify", "all")
    assert "no backend here has a file of it" in message


@pytest.mark.parametrize("kind", ["lfw", "widerface"])
def test_a_dump_for_another_task_is_refused(
    cases: dict[str, Case], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    other = cases["widerface" if kind == "lfw" else "lfw"]
    mine = cases[kind]
    message = refused(Case(kind, mine.data, other.dump, other.outputs), capsys)
    assert "is a dump of" in message


def test_two_outputs_of_one_image_are_refused(
    cases: dict[str, Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sample's pairs share images: pretend that the second image is the first."""
    source = cases["lfw"]
    shutil.copytree(source.dump, tmp_path / "dump")
    case = Case("lfw", source.data, tmp_path / "dump", source.outputs)

    def same(value: dict[str, list[dict[str, object]]]) -> None:
        hashes = [item["hash"] for entry in value["entries"][:1] for item in entry["items"]]  # type: ignore[attr-defined]
        value["entries"][2]["items"][0]["hash"] = hashes[0]  # type: ignore[index]

    first_line(case, same)
    assert "are the same image, but have different outputs" in refused(case, capsys)


def test_an_unreadable_image_takes_no_row_of_another(
    tiny_ijbc: Path, tmp_path: Path, evalkit: Command
) -> None:
    """In a file of several inputs, those after it move up."""
    data = tmp_path / "IJBC"
    shutil.copytree(tiny_ijbc, data)
    images = sorted((data / "loose_crop").iterdir())
    images[5].write_bytes(b"no image")
    dump, outputs = tmp_path / "dump", tmp_path / "outputs"
    assert evalkit("dump", "ijbc", "--data", data, "--out", dump, "--batch", 7, "--quiet") == 0
    command = [sys.executable, RUNNER, MODELS / KINDS["ijbc"], dump, outputs, "bin"]
    subprocess.run(list(map(str, command)), check=True)
    direct, carried = tmp_path / "direct.json", tmp_path / "carried.json"
    words = ["ijbc", "--data", data, "--quiet", "--output"]
    assert evalkit(*words, direct) == 0
    options = ["--backend", "outputs", "--manifest", dump, "--outputs", outputs, "--verify", "all"]
    assert evalkit(*words, carried, *options) == 0
    here, device = load_result(direct), load_result(carried)
    assert len(device.failures_to_enrol) == len(here.failures_to_enrol) == 1
    assert [m.value for m in device.metrics] == pytest.approx([m.value for m in here.metrics])


@pytest.mark.parametrize("form", ["npy", "image"])
def test_scales_of_a_detector(
    tiny_wider: Path, tmp_path: Path, evalkit: Command, form: str
) -> None:
    """Each scale is an input of its own; pictures are normalised by the device's own code."""
    dump, outputs = tmp_path / "dump", tmp_path / "outputs"
    sizing = ["--sizing", "multi_scale=160,320"]
    words = ["--data", tiny_wider, "--quiet", *sizing]
    assert evalkit("dump", "widerface", *words, "--format", form, "--out", dump) == 0
    run_detector(dump, outputs)
    direct, carried = tmp_path / "direct.json", tmp_path / "carried.json"
    assert evalkit("widerface", *words, "--output", direct) == 0
    options = ["--backend", "outputs", "--manifest", dump, "--outputs", outputs]
    assert evalkit("widerface", *words, *options, "--output", carried) == 0
    here, device = load_result(direct), load_result(carried)
    pairs = zip(device.metrics, here.metrics, strict=True)
    assert all(mine.value == pytest.approx(other.value, abs=1e-6) for mine, other in pairs)
    assert any("median cosine 1.0000" in note for note in device.ran.notes)


def run_detector(dump: Path, outputs: Path) -> None:
    """Run the sample's detector on what was dumped, and write .npy."""
    import cv2
    import onnxruntime as ort

    session = ort.InferenceSession(MODELS / "detection.onnx", providers=["CPUExecutionProvider"])
    outputs.mkdir()
    for file in sorted((dump / "inputs").iterdir()):
        if file.suffix == ".npy":
            tensor = np.load(file)
        else:
            pixels = cv2.imread(str(file))[..., ::-1].astype(np.float32)
            tensor = ((pixels - 127.5) / 127.5).transpose(2, 0, 1)[None]
        values = session.run(None, {session.get_inputs()[0].name: tensor})
        for number, value in enumerate(values):
            np.save(outputs / f"{file.stem}_{number}.npy", value)


def test_a_reference_of_a_fixed_batch(lfw: Case, tmp_path: Path, evalkit: Command) -> None:
    """A model exported for a board may take a batch of 4 alone."""
    onnx = pytest.importorskip("onnx", reason="needs the convert extra")
    graph = onnx.load(MODELS / "recognition.onnx")
    for value in [*graph.graph.input, *graph.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(graph, tmp_path / "fixed.onnx")
    result = tmp_path / "r.json"
    words = [*lfw.words, "--model", tmp_path / "fixed.onnx", "--verify", 5, "--output", result]
    assert evalkit(*words, "--quiet") == 0
    notes = load_result(result).ran.notes
    assert any("5 outputs were compared" in note and "1.0000" in note for note in notes)
