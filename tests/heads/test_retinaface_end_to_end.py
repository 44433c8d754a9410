"""RetinaFace MobileNet0.25 over an event: the public prediction files and their AP again."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from head_images import EVENT, feed, read
from numpy.typing import NDArray

from evalkit import widerface_eval as wider
from evalkit.backends.architectures import ARCHITECTURES
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.heads.detection import Detections, detect
from evalkit.heads.retinaface import RetinaFace

pytestmark = pytest.mark.slow

Run = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return load_model_config("retinaface-mnet025", RunSettings())


@pytest.fixture(scope="module")
def network(shared_data: Path, config: ModelConfig) -> Any:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(2)
    file = shared_data / "models" / "biubug6_mobilenet0.25_Final.pth"
    weights = torch.load(file, map_location="cpu", weights_only=True)
    assert config.architecture is not None
    model = ARCHITECTURES.get(config.architecture).build(weights)
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture(scope="module")
def run(network: Any) -> Run:
    import torch

    def call(batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(batch))
        return {f"output{place}": value.numpy() for place, value in enumerate(outputs)}

    return call


@pytest.fixture(scope="module")
def picnic(shared_data: Path) -> wider.GroundTruth:
    return wider.read_ground_truth(shared_data / "widerface" / "ground_truth").only([EVENT])


@pytest.fixture(scope="module")
def public(
    shared_data: Path, picnic: wider.GroundTruth, tmp_path_factory: pytest.TempPathFactory
) -> wider.Detections:
    folder = tmp_path_factory.mktemp("predictions")
    file = shared_data / "widerface" / "predictions" / "retinaface-mnet025.tar.xz"
    with tarfile.open(file) as archive:
        members = [member for member in archive if EVENT in member.name]
        archive.extractall(folder, members, filter="data")
    (event,) = folder.rglob(EVENT)
    return wider.read_predictions(event.parent, picnic.images).detections


def rows(found: Detections | None) -> NDArray[np.float64]:
    assert found is not None
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return np.column_stack([found.boxes[:, :2], sides, found.scores]).astype(np.float64)


def detections(
    shared_data: Path, picnic: wider.GroundTruth, run: Run, config: ModelConfig, sizing: str
) -> wider.Detections:
    options = replace(RetinaFace().options(), **config.detection)
    found = []
    for name in picnic.images:
        batch, view = feed(read(shared_data, name), config, sizing)
        found.append(rows(detect(RetinaFace(), run(batch), [view], options)[0]))
    return wider.Detections.from_rows(picnic.images, found)


def test_unpadded_it_gives_the_public_files_and_their_ap(
    shared_data: Path,
    picnic: wider.GroundTruth,
    public: wider.Detections,
    run: Run,
    config: ModelConfig,
) -> None:
    ours = detections(shared_data, picnic, run, config, config.sizing)
    expected = wider.evaluate(picnic, public).ap
    assert [round(value, 5) for value in expected.values()] == [0.89844, 0.92361, 0.68787]
    found = wider.evaluate(picnic, ours).ap
    assert found == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(ours.offsets, public.offsets)
    np.testing.assert_allclose(ours.scores, public.scores, atol=1e-5)
    same = (ours.boxes == public.boxes).all(axis=1)
    assert same.mean() > 0.998


def test_padded_to_the_stride_it_is_close(
    shared_data: Path, picnic: wider.GroundTruth, run: Run, config: ModelConfig
) -> None:
    ours = detections(shared_data, picnic, run, config, "original")
    found = wider.evaluate(picnic, ours).ap
    assert found == pytest.approx({"easy": 0.89844, "medium": 0.92361, "hard": 0.68787}, abs=2e-3)


def test_onnxruntime_gives_the_same_detections_as_torch(
    shared_data: Path,
    picnic: wider.GroundTruth,
    run: Run,
    network: Any,
    config: ModelConfig,
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    import torch

    file = tmp_path / "retinaface.onnx"
    names = ["output0", "output1", "output2"]
    axes = {"input": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 640, 640),),
        str(file),
        dynamo=False,
        input_names=["input"],
        output_names=names,
        dynamic_axes=axes,
    )
    session = onnxruntime.InferenceSession(str(file))
    for name in picnic.images[:6]:
        batch, view = feed(read(shared_data, name), config, "original")
        other = dict(zip(names, session.run(names, {"input": batch}), strict=True))
        ours, theirs = (
            rows(detect(RetinaFace(), values, [view], RetinaFace().options())[0])
            for values in (run(batch), other)
        )
        assert len(ours) == len(theirs) > 0
        np.testing.assert_allclose(ours[:, :4], theirs[:, :4], atol=0.5)
        np.testing.assert_allclose(ours[:, 4], theirs[:, 4], atol=1e-3)
