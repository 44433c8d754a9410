"""The packaged recognition network: what its files promise."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import evalkit.configs
from evalkit.datasets import sample
from evalkit.datasets.alignment import align
from sample_painter.photo import photograph

PEOPLE, IMAGES = 12, 4
FOLDER = Path(sample.__path__[0])
MODELS = {"onnx": FOLDER / "recognition.onnx", "torchscript": FOLDER / "recognition.pt"}


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    """Aligned held-out faces as the network takes them, person by person."""
    faces = []
    for subject in range(PEOPLE):
        for image in range(IMAGES):
            photo = photograph(0, subject, image, hardness=0.6)
            bgr = cv2.imdecode(np.frombuffer(photo.jpeg, np.uint8), cv2.IMREAD_COLOR)
            faces.append(align(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), photo.points))
    return ((np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32)) - 127.5) / 127.5


def _onnx(batch: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(MODELS["onnx"]), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["input"]
    assert [o.name for o in session.get_outputs()] == ["embedding"]
    return session.run(None, {"input": batch})[0]


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_file_is_small(format: str) -> None:
    assert 1_000_000 < MODELS[format].stat().st_size <= 3_000_000


def test_embeddings(batch: np.ndarray) -> None:
    embeddings = _onnx(batch)
    assert embeddings.shape == (len(batch), 128)
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()
    np.testing.assert_allclose(_onnx(batch[:1]), embeddings[:1], atol=1e-4)


def test_torchscript_agrees_with_onnx(batch: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        ours = torch.jit.load(str(MODELS["torchscript"]))(torch.from_numpy(batch))
    np.testing.assert_allclose(ours.numpy(), _onnx(batch), atol=1e-3)


def test_held_out_people_are_told_apart(batch: np.ndarray) -> None:
    embeddings = _onnx(batch)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    person = np.arange(len(batch)) // IMAGES
    first, second = np.triu_indices(len(batch), 1)
    scores = (embeddings @ embeddings.T)[first, second]
    same = person[first] == person[second]
    # The share of genuine pairs that score above nineteen in twenty impostor pairs.
    assert (scores[same] > np.quantile(scores[~same], 0.95)).mean() > 0.85


def test_model_yaml_names_the_packaged_files() -> None:
    path = Path(evalkit.configs.__file__).parent / "models" / "sample-recognition.yaml"
    config = yaml.safe_load(path.read_text())
    assert config == {
        "name": "sample-recognition",
        "files": {
            "onnxruntime": "sample:recognition.onnx",
            "openvino": "sample:recognition.onnx",
            "tensorrt": "sample:recognition.onnx",
            "torch": "sample:recognition.pt",
            "tvm": "sample:recognition.onnx",
        },
        "input": {
            "size": [112, 112],
            "color": "rgb",
            "layout": "nchw",
            "mean": 127.5,
            "std": 127.5,
        },
        "head": "embedding",
    }
    for format, reference in (("onnx", "onnxruntime"), ("torchscript", "torch")):
        assert config["files"][reference] == f"sample:{MODELS[format].name}"


def test_the_torchscript_file_does_not_tell_where_it_was_made() -> None:
    with zipfile.ZipFile(MODELS["torchscript"]) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]
