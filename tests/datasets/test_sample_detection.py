"""The packaged face detector: what its files promise, and what it was trained on."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.datasets import sample
from evalkit.datasets.widerface import load_widerface
from evalkit.heads import build_head
from evalkit.heads.detection import DetectionOptions, Detections, detect
from evalkit.heads.sizing import pad_colour, parse_sizing, place
from evalkit.widerface_eval import Detections as Found
from evalkit.widerface_eval import evaluate, read_ground_truth
from sample_painter import LIMITS, widerface
from sample_painter.scenes import Scene

TOOLS = Path(__file__).parents[2] / "tools"
BACKENDS = ("onnxruntime", "torch")
NAMES = [f"{kind}_{stride}" for kind in ("score", "box") for stride in (8, 16, 32)]


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return load_model_config("sample-detection", RunSettings())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write_sample("widerface", tmp_path_factory.mktemp("s") / "wider", size="tiny")


def run_onnx(config: ModelConfig, batch: np.ndarray) -> dict[str, np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(
        str(config.file_for("onnxruntime")), providers=["CPUExecutionProvider"]
    )
    assert [value.name for value in session.get_inputs()] == ["input"]
    assert [value.name for value in session.get_outputs()] == NAMES
    return dict(zip(NAMES, session.run(None, {"input": batch}), strict=True))


def run_torch(config: ModelConfig, batch: np.ndarray) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        outputs = torch.jit.load(str(config.file_for("torch")))(torch.from_numpy(batch))
    return {name: value.numpy() for name, value in zip(NAMES, outputs, strict=True)}


def find(config: ModelConfig, image: np.ndarray) -> Detections | None:
    """Detect faces in one RGB image as the model's YAML says."""
    head = build_head(config.head, config.head_settings)
    options = DetectionOptions(**{**head.options().settings(), **config.detection})
    sizing = parse_sizing(config.sizing)
    (view,) = sizing.views(image.shape[:2])
    colour = pad_colour(sizing.pad, config.input.mean, config.input.color)
    pixels = place(image, view, colour).astype(np.float32)
    outputs = run_onnx(config, (pixels.transpose(2, 0, 1)[None] - 127.5) / 127.5)
    return detect(head, outputs, [view], options)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_file_is_small(config: ModelConfig, backend: str) -> None:
    assert 100_000 < config.file_for(backend).stat().st_size <= 3_000_000


def test_torchscript_names_no_source_files(config: ModelConfig) -> None:
    with zipfile.ZipFile(config.file_for("torch")) as archive:
        assert archive.testzip() is None
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (352, 480)])
@pytest.mark.parametrize("count", [1, 3])
def test_any_batch_height_and_width(config: ModelConfig, size: tuple[int, int], count: int) -> None:
    height, width = size
    batch = np.random.default_rng(0).uniform(-1, 1, (count, 3, height, width)).astype(np.float32)
    onnx, torch = run_onnx(config, batch), run_torch(config, batch)
    for name, value in onnx.items():
        kind, stride = name.split("_")
        places = (height // int(stride)) * (width // int(stride))
        assert value.shape == (count, places, 1 if kind == "score" else 4)
        np.testing.assert_allclose(torch[name], value, atol=1e-3)


def test_an_image_does_not_depend_on_its_batch(config: ModelConfig) -> None:
    batch = np.random.default_rng(1).uniform(-1, 1, (2, 3, 64, 96)).astype(np.float32)
    together, alone = run_onnx(config, batch), run_onnx(config, batch[1:])
    for name, value in alone.items():
        np.testing.assert_allclose(together[name][1:], value, atol=1e-4)


def test_backends_agree_on_a_scene(config: ModelConfig, scenes: Path) -> None:
    image = load_widerface(scenes).images.load(0)[:288, :480]
    batch = (image.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 127.5
    onnx, torch = run_onnx(config, batch), run_torch(config, batch)
    for name, value in onnx.items():
        np.testing.assert_allclose(torch[name], value, atol=1e-3)


def test_faces_of_held_out_scenes_are_found(config: ModelConfig, scenes: Path) -> None:
    images = load_widerface(scenes).images
    truth = read_ground_truth(scenes / "ground_truth")
    rows = {}
    for index, name in enumerate(images.names):
        found = find(config, images.load(index))
        assert found is not None, f"{name}: not finite"
        assert ((found.scores > 0) & (found.scores < 1)).all()
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        rows[name] = np.concatenate([found.boxes[:, :2], sides, found.scores[:, None]], axis=1)
    found = Found.from_rows(truth.images, [rows[name].astype(float) for name in truth.images])
    aps = {name: curve.ap for name, curve in evaluate(truth, found).curves.items()}
    assert aps["easy"] > 0.5
    assert aps["medium"] > 0.5
    assert aps["hard"] > 0.5


def test_no_face_is_found_in_an_empty_image(config: ModelConfig) -> None:
    found = find(config, np.full((160, 200, 3), 127, np.uint8))
    assert found is not None
    assert not (found.scores > 0.5).any()


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the training script."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    if not (TOOLS / "train_detection.py").is_file():
        pytest.skip("the training script is not installed")
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("train_detection")


def test_no_sample_holds_a_training_scene_or_person(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []

    def record(seed: int, number: int, crowd: Any, shape: tuple[int, int], first: int) -> Scene:
        drawn.append((number, first))
        blank = np.zeros((8, 8, 3), np.uint8)
        return Scene(blank, np.zeros((0, 4), np.int32), np.zeros((0, 6), np.uint8))

    monkeypatch.setattr(widerface, "draw_scene", record)
    monkeypatch.setattr(tool, "draw_scene", record)
    largest = LIMITS["widerface"][1]
    for entry in widerface._entries(largest):
        widerface._scene(0, entry, 1024)
    held_out = np.array(drawn)
    drawn.clear()
    for number in range(200):
        tool._scene(number)
    training = np.array(drawn)
    assert len(held_out) == largest
    assert training[:, 0].min() > held_out[:, 0].max()
    # A scene's people are numbered from its first one on.
    assert training[:, 1].min() > held_out[:, 1].max() + widerface._MOST_FACES
    assert np.diff(np.unique(training[:, 1])).min() >= widerface._MOST_FACES


def test_places_answer_for_the_faces_around_them(tool: ModuleType) -> None:
    boxes = np.array([[16, 16, 40, 48], [100, 100, 180, 200], [200, 10, 212, 24]], np.float32)
    labels, targets = tool.assign(boxes, np.array([True, True, False]))
    places = [(256 // stride) ** 2 for stride in (8, 16, 32)]
    fine, middle, coarse = np.split(labels, np.cumsum(places)[:-1])
    assert len(labels) == len(targets) == sum(places)
    assert fine[4 * 32 + 3] == 1  # (24, 32), within the small face
    assert targets[4 * 32 + 3].tolist() == boxes[0].tolist()
    assert middle[9 * 16 + 9] == 1  # (144, 144), within the large one
    assert (coarse != 1).all()
    assert fine[2 * 32 + 26] == -1  # (208, 16), within the one that need not be found
    assert fine[20 * 32 + 4] == 0


def test_overlap_losses_match_a_count_of_pixels(tool: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    one, other = [2, 3, 12, 9], [5, 1, 14, 8]
    iou, giou = tool.overlaps(torch.tensor([one]).float(), torch.tensor([other]).float())
    y, x = np.mgrid[:20, :20]
    a, b = ((x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3]) for box in (one, other))
    union, hull = (a | b).sum(), 12 * 8
    assert iou.item() == pytest.approx((a & b).sum() / union)
    assert giou.item() == pytest.approx((a & b).sum() / union - (hull - union) / hull)
