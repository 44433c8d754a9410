"""Thumbnails of what went wrong: the right images, nothing outside the data, a bounded size."""

from __future__ import annotations

import base64
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from page_results import result

from evalkit.core.results import Result
from evalkit.core.store import Shard, Store
from evalkit.datasets.sample import write_sample
from evalkit.datasets.widerface import load_widerface
from evalkit.report.page.gather import Entry, Group
from evalkit.report.page.stagebars import stage_bars
from evalkit.report.page.thumbs import Budget, galleries
from evalkit.run.detecting import FIELDS
from evalkit.verdict.compare import Comparison
from evalkit.verdict.compare_scores import Flips

PAIRS = 12


@pytest.fixture
def pair_group(tmp_path: Path) -> Group:
    """Twelve pairs of images, each of its own brightness; pairs 3 and 8 are decided wrongly."""
    images = []
    for index in range(2 * PAIRS):
        _, data = cv2.imencode(".png", np.full((112, 112, 3), 10 * index, np.uint8))
        images.append(data.tobytes())
    issame = [pair % 2 == 0 for pair in range(PAIRS)]
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps((images, issame)))
    squared = np.where(issame, 0.4, 1.8)
    squared[3], squared[8] = 0.1, 1.9
    accuracy = {"name": "accuracy/exact", "value": 0.8, "rule": "exact", "at": {"threshold": 1.0}}
    dataset = {
        "name": "set",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "content_sha256": None,
        "counts": {},
        "path": str(path),
    }
    made = result("LFW", "onnxruntime", "fp32", metrics=[accuracy], dataset=dataset)
    file = tmp_path / "a.json"
    held = made.save(file, {"distances": squared, "issame": np.array(issame)})
    first = Entry(0, "onnxruntime:fp32", True, file, held)
    return Group("g", "pairs", "pairs", "accuracy/exact", (first,))


def shades(source: str) -> list[int]:
    """Brightness of the left and the right half of a pair's picture."""
    data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return [round(float(image[48, column].mean())) for column in (40, image.shape[1] - 40)]


def test_the_worst_pairs_come_first(pair_group: Group) -> None:
    (gallery,) = galleries(pair_group, Budget())
    assert gallery.note.startswith("2 of 12 pairs are decided wrongly")
    assert [picture.caption for picture in gallery.pictures] == [
        "pair 3, different people, accepted: similarity 0.950",
        "pair 8, same person, refused: similarity 0.050",
    ]
    assert shades(gallery.pictures[0].source) == pytest.approx([60, 70], abs=2)
    assert all(picture.alt for picture in gallery.pictures)


def test_decisions_that_flipped_are_shown(pair_group: Group) -> None:
    flip = {
        "pair": "pair 5",
        "genuine": False,
        "accepted": True,
        "baseline": 0.1,
        "candidate": None,
    }
    counts = dict.fromkeys(Flips.model_fields, 0)
    flips = {**counts, "metric": "accuracy/exact", "thresholds": "own", "examples": [flip]}
    other = replace(pair_group.entries[0], run=1, label="x", reference=False)
    other = replace(other, comparison=compared(flips=[flips]))
    group = replace(pair_group, entries=(pair_group.entries[0], other))
    flipped = galleries(group, Budget())[1]
    assert flipped.title == "B x: decisions that flipped"
    assert flipped.pictures[0].caption == ("pair 5, different people: 0.100 → failed, now accepted")


def compared(**parts: Any) -> Comparison:
    empty = {
        **dict.fromkeys(("protocol", "dataset", "baseline", "candidate"), ""),
        **dict.fromkeys(("metrics", "flips", "drift", "notes"), ()),
    }
    return Comparison.model_validate({**empty, "differs": {}, **parts})


def test_a_set_that_changed_is_not_shown(pair_group: Group, tmp_path: Path) -> None:
    with (tmp_path / "set.bin").open("ab") as file:
        file.write(b"more")
    (gallery,) = galleries(pair_group, Budget())
    assert not gallery.pictures
    assert gallery.note.startswith("Not shown: ")


def test_pictures_keep_to_their_budget(pair_group: Group) -> None:
    found = galleries(pair_group, Budget(left=10))
    assert not any(gallery.pictures for gallery in found)
    assert "left out to keep this file small" in found[-1].note


def drifted(root: Path, names: list[str], cosine: float = 0.4) -> Group:
    """A run whose furthest images are named."""
    worst = [{"name": name, "cosine": cosine} for name in names]
    drift = {
        "view": "embeddings",
        "samples": 9,
        **dict.fromkeys(("cosine_mean", "cosine_p1", "cosine_min"), cosine),
        **dict.fromkeys(("largest_absolute", "largest_relative", "atol_needed", "rtol"), 0.1),
        **dict.fromkeys(("lost", "gained"), 0),
        "worst": worst,
    }
    dataset = {"name": "s", "sha256": "", "content_sha256": None, "counts": {}, "path": str(root)}
    made = result("IJBC", "torch", "int8", dataset=dataset)
    entry = Entry(1, "torch:int8", False, None, made, comparison=compared(drift=[drift]))
    return Group("g", "templates", "templates", "", (entry,))


def test_images_that_moved_are_shown_and_nothing_outside_the_data(tmp_path: Path) -> None:
    root = tmp_path / "IJBC"
    (root / "loose_crop").mkdir(parents=True)
    for path in (root / "loose_crop" / "1.png", tmp_path / "secret.png"):
        cv2.imwrite(str(path), np.full((60, 40, 3), 120, np.uint8))
    (root / "loose_crop" / "2.png").write_bytes(b"no image")
    outside = ["../../secret.png", str(tmp_path / "secret.png")]
    (gallery,) = galleries(drifted(root, ["1.png", *outside, "2.png", "3.png"]), Budget())
    assert [picture.caption for picture in gallery.pictures] == ["1.png: cosine 0.4000"]


def test_images_that_hardly_moved_are_not_shown(tmp_path: Path) -> None:
    (gallery,) = galleries(drifted(tmp_path, ["1.png"], cosine=0.99999), Budget())
    assert gallery.note == "None moved: the lowest cosine is 0.999990."


def test_images_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    (gallery,) = galleries(drifted(tmp_path / "gone", ["1.png"]), Budget())
    assert "the images are not at" in gallery.note


@pytest.fixture
def scene_result(tmp_path: Path) -> Result:
    """A detector that finds every annotated face of the first image and none of the others."""
    root = write_sample("widerface", tmp_path / "wider", size="tiny")
    wider = load_widerface(root, annotations=annotations(root))
    boxes = wider.faces(0)[:, :4].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    detections = np.hstack([boxes, np.linspace(0.9, 0.4, len(boxes), dtype=np.float32)[:, None]])
    count = len(wider.images)
    store = Store(tmp_path / "store", {"data": "x"}, count, FIELDS)
    shard = Shard(
        outputs={
            "counts": np.array([len(boxes)] + [0] * (count - 1), np.int32),
            "detections": detections,
        },
        digests=np.zeros((count, 8), np.uint8),
        stamps=np.zeros((count, 2), np.int64),
        failures=(),
        decode_seconds=0.0,
        inference_seconds=0.0,
    )
    with store.writing():
        store.write(0, shard)
        store.write_names(wider.images.names)
    dataset = {"name": "w", "sha256": "", "content_sha256": None, "counts": {}, "path": str(root)}
    rule = {"rule": "python", "iou": 0.5, "steps": 100}
    return result(
        "WIDERFACE", "torch", "fp32", dataset=dataset, settings=rule, store=str(store.folder)
    )


def annotations(root: Path) -> Path:
    return next(root.rglob("wider_face_val_bbx_gt.txt"))


def test_the_worst_images_are_those_with_most_errors(scene_result: Result) -> None:
    entries = tuple(Entry(run, f"run {run}", run == 0, None, scene_result) for run in range(2))
    found = galleries(Group("g", "d", "detection", "ap/hard", entries), Budget())
    first, second = found
    assert first.pictures, first.note
    assert all(" 0 hits" in f" {p.caption.partition(': ')[2]}" for p in first.pictures)
    assert second.note == "Those of A run 0, with the same counts."


def test_a_detector_without_ground_truth_says_so(scene_result: Result, tmp_path: Path) -> None:
    moved = scene_result.dataset.model_copy(update={"path": str(tmp_path / "gone")})
    entry = Entry(0, "a", True, None, scene_result.model_copy(update={"dataset": moved}))
    (gallery,) = galleries(Group("g", "d", "detection", "ap/hard", (entry,)), Budget())
    assert "not at hand" in gallery.note


def test_stage_bars_tell_every_second_in_words(scene_result: Result) -> None:
    entry = Entry(0, "a <b>", True, None, scene_result)
    for size, said in ((8, ", batch 8"), (None, "")):
        ran = scene_result.ran.model_copy(update={"batch_size": size})
        sized = replace(entry, result=scene_result.model_copy(update={"ran": ran}))
        drawn = stage_bars(Group("g", "d", "detection", "ap/hard", (sized,)))
        assert f"a &lt;b&gt;{said}: inference 2.50 s" in drawn
        assert f" s{said}</text>" in drawn
    none = replace(entry, result=scene_result.model_copy(update={"stages": ()}))
    assert not stage_bars(Group("g", "d", "detection", "ap/hard", (none,)))
