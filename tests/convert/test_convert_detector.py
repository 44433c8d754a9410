"""Converting detectors: photographs at one size, all outputs compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
pytest.importorskip("onnx", reason="needs the test extra")

from evalkit.backends.base import Session, TensorInfo
from evalkit.cli import main
from evalkit.convert.calibration import draw
from evalkit.convert.image_sets import load_images
from evalkit.convert.trials import Prepared
from evalkit.core.progress import Progress
from evalkit.core.results import ModelInfo
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.core.sidecar import sidecar_path
from evalkit.datasets.sample import write_sample
from evalkit.heads.sizing import Fixed, pad_colour, place
from evalkit.run.models import OpenModel
from evalkit.run.pipeline import Normaliser

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("widerface", tmp_path_factory.mktemp("wider") / "wider", size="tiny")


@pytest.fixture
def config() -> ModelConfig:
    return load_model_config("sample-detection", RunSettings())


def opened(config: ModelConfig, shape: tuple[int | None, ...]) -> OpenModel:
    class Held(Session):
        inputs = (TensorInfo("x", "float32", shape),)

        def run(self, batch: object) -> dict[str, np.ndarray]:
            raise AssertionError("nothing runs here")

    info = ModelInfo(name="x", file=None, sha256=None, preprocessing={})
    return OpenModel(Held(), config, info)


@pytest.mark.parametrize(
    ("sizing", "shape", "size"),
    [
        ("original stride=32", (None, 3, None, None), (320, 320)),  # that of the YAML
        ("fixed=256x192 letterbox pad=0", (None, 3, None, None), (192, 256)),
        ("original stride=32", (1, 3, 96, 128), (96, 128)),  # the file has only one
    ],
)
def test_photographs_are_brought_to_one_size(
    wider: Path,
    config: ModelConfig,
    sizing: str,
    shape: tuple[int | None, ...],
    size: tuple[int, int],
) -> None:
    config = config.model_copy(update={"sizing": sizing})
    with load_images(wider, "photographs", 0, QUIET) as images:
        drawn = draw(images, samples=2, held_out=2, seed=0, evaluated=None, progress=QUIET)
    model = opened(config, shape)
    prepared = Prepared.of(model, images, drawn)
    assert prepared.size == size
    first = next(iter(prepared.calibration(model)))
    assert first.shape == (1, 3, *size)
    image, _ = images.source.load_with_digest(int(drawn.calibration[0]))
    fixed = Fixed(*size, pad=0 if "pad=0" in sizing else "mean")
    colour = pad_colour(fixed.pad, config.input.mean, config.input.color)
    expected = np.empty((3, *size), np.float32)
    Normaliser(config.input)(place(image, fixed.views(image.shape[:2])[0], colour), expected)
    np.testing.assert_array_equal(first[0], expected)


def test_a_detector_is_converted(
    wider: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "int8.onnx"
    words = ["convert", "sample-detection", "--to", "int8", "--calibration", wider, "--quiet"]
    assert main([str(word) for word in [*words, "--out", out, "--threads", 1]]) == 0
    record = json.loads(sidecar_path(out).read_text())
    assert record["input_size"] == [320, 320]
    assert record["calibration"]["count"] == 2
    assert record["calibration"]["warnings"] == ["Only 2 images to calibrate with, not 256."]
    assert record["figures"]["cosine"]["mean"] > 0.99
