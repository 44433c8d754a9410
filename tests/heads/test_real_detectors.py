"""Real detectors on real photographs, fed as their ready configurations say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import head_references as slow
import numpy as np
import pytest
from head_images import EVENT, feed, read
from numpy.typing import NDArray

from evalkit.core.settings import RunSettings, load_model_config
from evalkit.heads import build_head
from evalkit.heads.detection import DetectionOptions, Detections, detect
from evalkit.heads.nms import extra_pixel
from evalkit.heads.sizing import Geometry, parse_sizing, place
from evalkit.heads.voting import vote
from evalkit.run.pipeline import Normaliser
from evalkit.widerface_eval import GroundTruth, read_ground_truth

MODELS = {
    "retinaface-mnet025": "retinaface_mnet025.onnx",
    "scrfd-500m": "scrfd_500m_bnkps.onnx",
    "yunet": "yunet_n_dynamic.onnx",
    "ultraface-rfb320": "ulfg_version-RFB-320.onnx",
}
# Of the 16 Easy faces of 50 pixels or more in 12 images, those found with a score of 0.5.
FOUND = {"retinaface-mnet025": 12, "scrfd-500m": 9, "yunet": 10, "ultraface-rfb320": 7}
SCORE = 0.1  # keeps the slow suppression bearable: most of UltraFace's noise scores 0.07


@pytest.fixture(scope="module")
def picnic(shared_data: Path) -> GroundTruth:
    return read_ground_truth(shared_data / "widerface" / "ground_truth").only([EVENT])


def reference(name: str, outputs: dict[str, Any], size: tuple[int, int]) -> Iterable[slow.Face]:
    first = {key: value[0] for key, value in outputs.items()}
    if name == "retinaface-mnet025":
        return slow.retinaface(first["loc"], first["conf"], first["landmarks"], size)
    if name == "ultraface-rfb320":
        return slow.ultraface(first["scores"], first["boxes"], size)
    kinds = ("score", "bbox", "kps") if name == "scrfd-500m" else ("cls", "obj", "bbox", "kps")
    tables: Any = {s: tuple(first[f"{kind}_{s}"] for kind in kinds) for s in (8, 16, 32)}
    return slow.scrfd(tables, size) if name == "scrfd-500m" else slow.yunet(tables, size)


def finished(faces: Iterable[slow.Face], view: Geometry) -> list[slow.Face]:
    """Bring faces to the image and suppress them, the slow way."""
    faces = [face for face in faces if face[1] >= SCORE]
    sx, sy = view.resized[1] / view.image[1], view.resized[0] / view.image[0]
    boxes = [[b[0] / sx, b[1] / sy, b[2] / sx, b[3] / sy] for b, _, _ in faces]
    upright = [row for row, b in enumerate(boxes) if b[2] > b[0] and b[3] > b[1]]
    kept = slow.greedy(
        [boxes[row] for row in upright],
        [faces[row][1] for row in upright],
        0.4,
        extra_pixel("plus_one"),
    )
    return [(boxes[upright[row]], faces[upright[row]][1], None) for row in kept]


def hits(found: Detections, faces: NDArray[np.float64]) -> int:
    sure = found.boxes[found.scores >= 0.5]
    corners = [[x, y, x + w, y + h] for x, y, w, h in faces]
    return sum(any(slow.overlap(face, box, 1) >= 0.5 for box in sure) for face in corners)


def opened(file: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(file), options)


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_slow_decoding_and_finds_the_faces(
    shared_data: Path, picnic: GroundTruth, name: str
) -> None:
    config = load_model_config(name, RunSettings())
    head = build_head(config.head)
    session = opened(shared_data / "models" / MODELS[name])
    names = [output.name for output in session.get_outputs()]
    seen = total = 0
    for index in range(12):
        rows = slice(picnic.offsets[index], picnic.offsets[index + 1])
        batch, view = feed(read(shared_data, picnic.images[index]), config, config.sizing)
        values = session.run(None, {session.get_inputs()[0].name: batch})
        outputs = dict(zip(names, values, strict=True))
        settings = DetectionOptions(score_threshold=SCORE)
        (found,) = detect(head, outputs, [view], settings)
        assert found is not None
        faces = picnic.boxes[rows][picnic.subsets["easy"][rows]]
        faces = faces[faces[:, 3] >= 50]
        seen, total = seen + hits(found, faces), total + len(faces)
        if index < 2:
            expected = finished(reference(name, outputs, view.input), view)
            assert len(found) == len(expected) > 0
            boxes = [box for box, _, _ in expected]
            np.testing.assert_allclose(found.boxes, boxes, rtol=1e-5, atol=2e-3)
            np.testing.assert_allclose(found.scores, [score for _, score, _ in expected], rtol=1e-5)
    assert total == 16
    assert seen >= FOUND[name]


def test_mirrored_views_in_one_batch_find_the_same_faces(
    shared_data: Path, picnic: GroundTruth
) -> None:
    name = "retinaface-mnet025"
    config = load_model_config(name, RunSettings())
    image = read(shared_data, picnic.images[10])
    policy = parse_sizing("multi_scale=640 flip")
    views = policy.views(image.shape[:2])  # type: ignore[arg-type]
    normalise = Normaliser(config.input.model_copy(update={"size": views[0].input}))
    batch = normalise.empty(2)
    for view, out in zip(views, batch, strict=True):
        normalise(place(image, view, (123, 117, 104)), out)
    session = opened(shared_data / "models" / MODELS[name])
    outputs = dict(
        zip(("loc", "conf", "landmarks"), session.run(None, {"input": batch}), strict=True)
    )
    options = DetectionOptions(score_threshold=0.5)
    plain, mirrored = detect(build_head(config.head), outputs, views, options)
    assert plain is not None
    assert mirrored is not None
    joined = vote([plain, mirrored], keep_single=False)
    for found in (mirrored, joined):
        sure = found.take(found.scores >= 0.9)
        assert len(sure) >= 2
        assert sure.landmarks is not None
        for box, points in zip(sure.boxes, sure.landmarks, strict=True):
            assert max(slow.overlap(box, other, 1) for other in plain.boxes) > 0.7
            # Left stays left: eyes, then corners of the mouth.
            assert points[0, 0] < points[1, 0]
            assert points[3, 0] < points[4, 0]
