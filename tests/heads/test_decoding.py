"""Each head against the slow decoding of the same tensors, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import head_references as slow
import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.heads import HEADS, build_head
from evalkit.heads.detection import Detections, detect
from evalkit.heads.sizing import Geometry
from evalkit.heads.yolo_face import YoloFace

Raw = NDArray[np.float32]
SIZES = [(64, 96), (71, 50)]
IMAGES = 2
THRESHOLD = 0.3


def random(seed: int, *shape: int, scale: float = 1.0) -> Raw:
    return (np.random.default_rng(seed).normal(0, scale, shape)).astype(np.float32)


def fractions(seed: int, *shape: int) -> Raw:
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


def count(size: tuple[int, int], stride: int) -> int:
    return len(list(slow.cells(size, stride)))


def check(found: Detections, faces: Iterable[slow.Face]) -> None:
    expected = [face for face in faces if face[1] >= THRESHOLD]
    assert len(found) == len(expected) > 0
    assert found.boxes.dtype == found.scores.dtype == np.float32
    np.testing.assert_allclose(found.boxes, [face[0] for face in expected], rtol=2e-5, atol=2e-4)
    np.testing.assert_allclose(found.scores, [face[1] for face in expected], rtol=1e-5)
    if expected[0][2] is None:
        assert found.landmarks is None
    else:
        assert found.landmarks is not None
        points = [face[2] for face in expected]
        np.testing.assert_allclose(found.landmarks, points, rtol=2e-5, atol=2e-4)


def retinaface_outputs(size: tuple[int, int]) -> dict[str, Raw]:
    rows = 2 * sum(count(size, stride) for stride in (8, 16, 32))
    face = fractions(2, IMAGES, rows)
    return {
        "marks": random(3, IMAGES, rows, 10),
        "conf": np.stack([1 - face, face], axis=2),
        "loc": random(1, IMAGES, rows, 4),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_points", [True, False])
def test_retinaface(size: tuple[int, int], with_points: bool) -> None:
    outputs = retinaface_outputs(size)
    points = outputs["marks"] if with_points else None
    if points is None:
        del outputs["marks"]
    found = build_head("retinaface").decode(outputs, size, THRESHOLD)
    assert len(found) == IMAGES
    for image in range(IMAGES):
        marks = None if points is None else points[image]
        reference = slow.retinaface(outputs["loc"][image], outputs["conf"][image], marks, size)
        check(found[image], reference)


@pytest.mark.parametrize("scores", ["auto", "logits"])
def test_retinaface_before_the_softmax(scores: str) -> None:
    size = SIZES[0]
    outputs = retinaface_outputs(size)
    outputs["conf"] = random(4, *outputs["conf"].shape, scale=3)
    found = build_head("retinaface", {"scores": scores}).decode(outputs, size, THRESHOLD)
    for image in range(IMAGES):
        tables = (outputs[name][image] for name in ("loc", "conf", "marks"))
        check(found[image], slow.retinaface(*tables, size, logits=True))


def test_retinaface_takes_coarsely_quantised_probabilities_for_what_they_are() -> None:
    size = SIZES[0]
    outputs = retinaface_outputs(size)
    outputs["conf"] = np.floor(outputs["conf"] * 127) / np.float32(127)
    (found, _) = build_head("retinaface").decode(outputs, size, THRESHOLD)
    tables = (outputs[name][0] for name in ("loc", "conf", "marks"))
    check(found, slow.retinaface(*tables, size))


def scrfd_outputs(size: tuple[int, int]) -> dict[str, Raw]:
    outputs: dict[str, Raw] = {}
    for columns, name in ((4, "bbox"), (10, "kps"), (1, "score")):
        for stride in (32, 8, 16):
            shape = (IMAGES, 2 * count(size, stride), columns)
            outputs[f"{name}_{stride}"] = fractions(columns + stride, *shape)
            if columns > 1:
                outputs[f"{name}_{stride}"] *= 5
    return outputs


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_points", [True, False])
def test_scrfd(size: tuple[int, int], with_points: bool) -> None:
    outputs = scrfd_outputs(size)
    given = {n: v for n, v in outputs.items() if with_points or not n.startswith("kps")}
    found = build_head("scrfd").decode(given, size, THRESHOLD)
    for image in range(IMAGES):
        tables = {
            stride: (
                outputs[f"score_{stride}"][image],
                outputs[f"bbox_{stride}"][image],
                outputs[f"kps_{stride}"][image] if with_points else None,
            )
            for stride in (8, 16, 32)
        }
        check(found[image], slow.scrfd(tables, size))


def test_scrfd_without_a_batch_axis() -> None:
    size = SIZES[0]
    outputs = scrfd_outputs(size)
    (alone,) = build_head("scrfd").decode({n: v[0] for n, v in outputs.items()}, size, THRESHOLD)
    (first, _) = build_head("scrfd").decode(outputs, size, THRESHOLD)
    np.testing.assert_array_equal(alone.boxes, first.boxes)


@pytest.mark.parametrize("size", SIZES)
def test_yunet(size: tuple[int, int]) -> None:
    outputs = {}
    for stride in (8, 16, 32):
        rows = count(size, stride)
        # A little beyond 0 and 1, as half-precision sigmoids are.
        outputs[f"cls_{stride}"] = fractions(stride, IMAGES, rows, 1) * np.float32(1.01)
        outputs[f"obj_{stride}"] = fractions(stride + 1, IMAGES, rows, 1)
        outputs[f"bbox_{stride}"] = random(stride + 2, IMAGES, rows, 4)
        outputs[f"kps_{stride}"] = random(stride + 3, IMAGES, rows, 10)
    found = build_head("yunet").decode(outputs, size, THRESHOLD)
    for image in range(IMAGES):
        tables: Any = {
            stride: [outputs[f"{kind}_{stride}"][image] for kind in ("cls", "obj", "bbox", "kps")]
            for stride in (8, 16, 32)
        }
        check(found[image], slow.yunet(tables, size))


@pytest.mark.parametrize("size", SIZES)
def test_ultraface(size: tuple[int, int]) -> None:
    face, boxes = fractions(1, IMAGES, 50), fractions(2, IMAGES, 50, 4)
    outputs = {"boxes": boxes, "scores": np.stack([1 - face, face], axis=2)}
    found = build_head("ultraface").decode(outputs, size, THRESHOLD)
    for image in range(IMAGES):
        check(found[image], slow.ultraface(outputs["scores"][image], boxes[image], size))


LAYOUTS = {"v5": (16, 3), "v7": (21, 3), "v8": (20, 1), "v5-plain": (6, 3), "v8-plain": (5, 1)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("columns_first", [True, False])
def test_yolo_face(size: tuple[int, int], layout: str, columns_first: bool) -> None:
    columns, anchors = LAYOUTS[layout]
    rows = anchors * sum(count(size, stride) for stride in (8, 16, 32))
    table = fractions(columns, IMAGES, rows, columns)
    table[:, :, :4] *= 40
    outputs = {"output0": table.transpose(0, 2, 1) if columns_first else table}
    found = build_head("yolo-face").decode(outputs, size, THRESHOLD)
    for image in range(IMAGES):
        check(found[image], slow.yolo_rows(table[image], layout))


def test_yolo_face_on_grids() -> None:
    size = SIZES[1]
    levels = [
        random(stride, IMAGES, 3, -(-size[0] // stride), -(-size[1] // stride), 16)
        for stride in (8, 16, 32)
    ]
    outputs = {f"stride_{level}": value for level, value in enumerate(levels)}
    found = build_head("yolo-face").decode(outputs, size, THRESHOLD)
    for image in range(IMAGES):
        check(found[image], slow.yolo_grid([level[image] for level in levels], YoloFace().anchors))


@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("units", ["pixels", "fractions"])
def test_boxes(form: str, units: str) -> None:
    height, width = SIZES[0]
    scale = (width, height) if units == "fractions" else (1, 1)
    table, scores, marks = fractions(1, 2, 9, 4), fractions(2, 2, 9), fractions(3, 2, 9, 10)
    if form == "xyxy":
        table[..., 2:] += table[..., :2]
    outputs = {"b": table, "s": scores[:, :, None], "m": marks}
    head = build_head(
        "boxes", {"boxes": "b", "scores": "s", "landmarks": "m", "form": form, "units": units}
    )
    found = head.decode(outputs, (height, width), THRESHOLD)

    def corners(a: float, b: float, c: float, d: float) -> list[float]:
        a, b, c, d = a * scale[0], b * scale[1], c * scale[0], d * scale[1]
        if form == "xyxy":
            return [a, b, c, d]
        return [a, b, a + c, b + d] if form == "xywh" else slow.around(a, b, c, d)

    for image in range(2):
        faces: list[slow.Face] = [
            (
                corners(*table[image, row].astype(float).tolist()),
                float(scores[image, row]),
                [[x * scale[0], y * scale[1]] for x, y in marks[image, row].reshape(5, 2).tolist()],
            )
            for row in range(9)
        ]
        check(found[image], faces)


def test_boxes_with_their_score_in_the_fifth_column_of_one_image() -> None:
    table = np.array([[1, 2, 3, 4, 0.9], [5, 6, 7, 8, 0.1]], np.float32)
    head = build_head("boxes", {"boxes": "dets", "scores": None})
    (found,) = head.decode({"dets": table, "labels": np.zeros(2, np.float32)}, (64, 64), THRESHOLD)
    assert found.boxes.tolist() == [[1, 2, 3, 4]]
    assert found.scores.tolist() == [np.float32(0.9)]
    assert found.landmarks is None


def test_boxes_that_are_none() -> None:
    outputs = {"boxes": np.zeros((1, 0, 4), np.float32), "scores": np.zeros((1, 0), np.float32)}
    (found,) = build_head("boxes").decode(outputs, (64, 64), THRESHOLD)
    assert len(found) == 0


@pytest.mark.parametrize("name", HEADS.names())
def test_outputs_of_another_model_are_named(name: str) -> None:
    outputs = {"fc1": np.zeros((2, 512), np.float32), "odd": np.zeros((2, 7, 3), np.float32)}
    with pytest.raises(InputError, match=rf"head '{name}'.*fc1 \(2, 512\), odd \(2, 7, 3\)"):
        build_head(name).decode(outputs, (64, 64), THRESHOLD)


def test_an_input_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="for an input of 96x32 pixels"):
        build_head("retinaface").decode(retinaface_outputs((64, 96)), (32, 96), THRESHOLD)


def test_a_registry_names_what_was_meant() -> None:
    with pytest.raises(InputError, match="Did you mean 'scrfd'"):
        build_head("scfrd")
    with pytest.raises(InputError, match=r"'retinaface'.*stride: Unexpected keyword"):
        build_head("retinaface", {"stride": [8]})
    with pytest.raises(InputError, match="Give one list of sizes for each stride"):
        build_head("retinaface", {"strides": [8]})
    with pytest.raises(InputError, match="Give one list of anchors for each stride"):
        build_head("yolo-face", {"strides": [8]})


def test_settings_are_recorded() -> None:
    assert build_head("retinaface", {"variances": [0.1, 0.3]}).settings() == {
        "head": "retinaface",
        "strides": (8, 16, 32),
        "min_sizes": ((16, 32), (64, 128), (256, 512)),
        "variances": (0.1, 0.3),
        "scores": "auto",
    }
    for name in HEADS:
        assert build_head(name).settings()["head"] == name


@pytest.mark.parametrize(
    ("output", "value"),
    [("loc", np.nan), ("loc", np.inf), ("loc", 1000.0), ("conf", np.nan), ("conf", np.inf)],
)
def test_an_overflow_fails_its_image_alone(output: str, value: float) -> None:
    """NaN must not be dropped as if it were a low score; e^200 leaves float32's range."""
    size = SIZES[0]
    outputs = retinaface_outputs(size)
    outputs["conf"][1, 5] = 1
    outputs[output][1, 5] = value
    head = build_head("retinaface", {"scores": "softmax"})
    plain = Geometry(size, size, size)
    good, bad = detect(head, outputs, [plain, plain], head.options())
    assert bad is None
    assert good is not None
    assert len(good)


def test_a_batch_of_fewer_images_than_were_given_is_an_error() -> None:
    size = SIZES[0]
    plain = Geometry(size, size, size)
    head = build_head("scrfd")
    with pytest.raises(InputError, match="of 2 images, but 3 were given"):
        detect(head, scrfd_outputs(size), [plain] * 3, head.options())
    assert len(detect(head, scrfd_outputs(size), [plain], head.options())) == 1
    with pytest.raises(ValueError, match="one input size"):
        detect(head, {}, [plain, replace(plain, input=(32, 32))], head.options())
