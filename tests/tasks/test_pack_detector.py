"""``evalkit pack --align detector``: which face is taken, and where it comes to lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command import Command
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evalkit.core.settings import RunSettings, load_model_config
from evalkit.datasets.alignment import ARCFACE_POINTS, align, similarity
from evalkit.datasets.lfw import load_bin
from evalkit.heads.detection import Detections
from evalkit.run.face_alignment import central_face, detector_alignment

pytest.importorskip("onnxruntime", reason="needs the cpu extra")

SIZE = (120, 160)
CORNERS = ((2, 2), (62, 34), (58, 42))
"""Of boxes 40 pixels wide and high in images of `SIZE`: the last lies nearest to the centre."""
SCORES = (0.95, 0.7, 0.4)


def points_of(face: int) -> NDArray[np.float32]:
    """Five points of a face, turned a little, and each face otherwise."""
    turn = np.array([[1, 0.1 * face], [-0.1 * face, 1]])
    points: NDArray[np.float64] = (ARCFACE_POINTS / 3) @ turn + CORNERS[face]
    return points.astype(np.float32)


def read(path: Path) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] | None = cv2.imread(str(path))
    assert image is not None, path
    return image


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector's YAML: it always gives the three faces; the redder the image, the surer.

    With r the reddest pixel as a fraction, the scores are those of `SCORES` times r; where no
    pixel has any red they are NaN.
    """
    onnx = pytest.importorskip("onnx", reason="needs the test extra")
    from onnx import TensorProto, helper, numpy_helper

    boxes = np.array([[[x, y, x + 40, y + 40] for x, y in CORNERS]], np.float32)
    points = np.stack([points_of(face).ravel() for face in range(3)])[None]
    constants = {
        "red": np.array([0]), "scale": np.array([SCORES], np.float32),
        "all_boxes": boxes, "all_points": points,
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["image", "red"], ["plane"], axis=1),
        helper.make_node("ReduceMax", ["plane"], ["r"], keepdims=0),
        helper.make_node("Mul", ["r", "r"], ["rr"]),
        helper.make_node("Div", ["rr", "r"], ["same"]),
        helper.make_node("Mul", ["scale", "same"], ["scores"]),
        helper.make_node("Identity", ["all_boxes"], ["boxes"]),
        helper.make_node("Identity", ["all_points"], ["landmarks"]),
    ]
    graph = helper.make_graph(
        nodes,
        "faces",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (
                ("boxes", [1, 3, 4]), ("scores", [1, 3]), ("landmarks", [1, 3, 10]),
            )
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("detector")
    imports = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.save(model, folder / "faces.onnx")
    text = (
        "name: three-faces\nfiles: {onnxruntime: faces.onnx}\ninput: {mean: 0, std: 255}\n"
        "head: boxes\nsizing: original stride=32\nhead_settings: {"
    )
    (folder / "boxes.yaml").write_text(text + "}\n")
    (folder / "points.yaml").write_text(text + "landmarks: landmarks}\n")
    return folder / "points.yaml"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two photographs, and pairs.csv of them."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        image = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), SIZE[::-1])
        image[0, 0] = 255
        cv2.imwrite(str(tmp_path / name), image)
    (tmp_path / "pairs.csv").write_text("a.png,a.png,1\na.png,b.png,0\n")
    return tmp_path


@pytest.fixture
def pack(evalkit: Command, detector: Path, photographs: Path) -> Command:
    def run(*words: object) -> int:
        pairs, out = photographs / "pairs.csv", photographs / "my.bin"
        given = ("--pairs", pairs, "--out", out, "--align", "detector", "--detector", detector)
        return evalkit("pack", "lfw", *given, *words)

    return run


@pytest.mark.parametrize(("words", "face"), [((), 1), (("--score-threshold", 0.3), 2)])
def test_the_sure_face_nearest_to_the_centre_is_aligned(
    pack: Command, photographs: Path, words: tuple[Any, ...], face: int
) -> None:
    assert pack(*words) == 0
    packed = [
        cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        for image in load_bin(photographs / "my.bin").images
    ]
    for image, name in zip(packed, ("a.png", "a.png", "a.png", "b.png"), strict=True):
        wanted = align(read(photographs / name), points_of(face))
        np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize(
    ("red", "message"),
    [(100, "three-faces finds no face in b.png that scores 0.5 or more"), (0, "NaN or infinite")],
)
def test_an_image_without_a_face_is_named_with_its_line(
    pack: Command, photographs: Path, capsys: pytest.CaptureFixture[str], red: int, message: str
) -> None:
    image = np.full((*SIZE, 3), 255, np.uint8)
    image[:, :, 2] = red  # blue and green stay bright: channels in the wrong order find a face
    cv2.imwrite(str(photographs / "b.png"), image)
    assert pack() == 2
    shown = capsys.readouterr().err
    assert "pairs.csv:2: " in shown
    assert "b.png" in shown
    assert message in shown
    assert not (photographs / "my.bin").exists()


def test_a_photograph_that_opencv_does_not_warp_is_told(
    pack: Command, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(photographs / "a.png"), np.full((32, 32_768, 3), 255, np.uint8))
    assert pack() == 2
    shown = capsys.readouterr().err
    assert "pairs.csv:1: " in shown
    assert "does not warp an image of 32768x32 pixels" in shown


def test_a_detector_without_points_is_refused(
    pack: Command, detector: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack("--detector", detector.with_name("boxes.yaml")) == 2
    assert "'three-faces' gives boxes without the five points" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--align", "none"), "--detector is for --align detector"),
        (("--align", "5pt"), "--detector is for --align detector"),
        (("--points", "p.txt"), "--points is for --align 5pt"),
        (("--detector", "nothing.yaml"), "nothing.yaml"),
        (("--detector", "sample-recognition"), "'head' in its YAML"),
        (("--detector", "sample-detection"), "without the five points"),
        (("--backend", "abacus"), "abacus"),
        (("--score-threshold", "7"), "score_threshold is 7"),
    ],
)
def test_wrong_options_are_one_clear_line(
    pack: Command, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert pack(*words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_only_detectors_are_offered(pack: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack("--detector", "nothing") == 2
    shown = capsys.readouterr().err
    assert "sample-detection" in shown
    assert "sample-recognition" not in shown


def test_the_detector_must_be_named(
    evalkit: Command, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, out = photographs / "pairs.csv", photographs / "my.bin"
    assert evalkit("pack", "lfw", "--pairs", pairs, "--out", out, "--align", "detector") == 2
    assert "--align detector needs --detector" in capsys.readouterr().err


corner = st.integers(-20, 120)
box = st.tuples(corner, corner, st.integers(1, 60), st.integers(1, 60))


@given(st.lists(box, min_size=1, max_size=12), st.integers(1, 100), st.integers(1, 100))
def test_no_face_is_nearer_and_of_equally_near_ones_the_best_is_taken(
    boxes: list[tuple[int, int, int, int]], height: int, width: int
) -> None:
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32)
    faces = Detections(corners, np.linspace(0.9, 0.5, len(boxes), dtype=np.float32))
    # Twice the offsets, in whole numbers: ties are exact.
    far = [(2 * x + w - width) ** 2 + (2 * y + h - height) ** 2 for x, y, w, h in boxes]
    assert central_face(faces, (height, width)) == far.index(min(far))


def test_real_crops_agree_with_points_of_another_detector(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCRFD against the points of MTCNN on portraits of 40x50 pixels and more.

    Measured in the aligned face, where the two detectors' transforms put the same points.
    """
    folder = shared_data / "congress" / "IJBC"
    yaml = tmp_path / "scrfd.yaml"
    yaml.write_text(
        f"name: scrfd\nfiles: {{any: '{shared_data / 'models' / 'scrfd_500m_bnkps.onnx'}'}}\n"
        "head: scrfd\nsizing: fixed=640x640 letterbox pad=0\ninput: {mean: 127.5, std: 128}\n"
    )
    monkeypatch.setattr("evalkit.run.face_alignment.align", lambda _, points, size: points)
    lines = (folder / "meta" / "ijbc_name_5pts_score.txt").read_text().splitlines()[::30]
    run = RunSettings(threads=2)
    differences = []
    with detector_alignment(run, load_model_config(str(yaml), run), score_threshold=0.5) as points:
        for line in lines:
            name, *numbers = line.split()
            given = np.reshape([float(number) for number in numbers[:10]], (5, 2))
            found = points(read(folder / "loose_crop" / name), folder / name)
            ours, theirs = (similarity(five, ARCFACE_POINTS) for five in (found, given))
            moved = np.column_stack([given, np.ones(5)]) @ (ours - theirs).T
            differences.append(np.linalg.norm(moved, axis=1).mean())
    assert len(differences) == 31
    assert np.mean(differences) < 2
    assert max(differences) < 8
