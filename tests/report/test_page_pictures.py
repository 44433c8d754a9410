"""Thumbnails of what went wrong: the right images, nothing outside the data, a bounded size."""

from __future__ import annotations

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
from evalkit.report.page.galleries import Budget
from evalkit.report.page.gather import Entry, Group
from evalkit.report.page.stagebars import stage_bars
from evalkit.report.page.writing import templates
from evalkit.stats.matches import image_counts
from evalkit.tasks.ijb.task import Ijbc
from evalkit.tasks.lfw.task import Lfw
from evalkit.tasks.panels import Gallery, Picture, Runs, Scored
from evalkit.tasks.widerface.scenes import scene_arrays
from evalkit.tasks.widerface.task import WiderFaceTask
from evalkit.widerface_eval import Detections, evaluate, read_ground_truth

PAIRS = 12


@pytest.fixture
def pair_run(tmp_path: Path) -> Scored:
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
    dataset = {
        "name": "set",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "content_sha256": None,
        "counts": {},
        "path": str(path),
    }
    return scored(squared, np.array(issame), dataset)


def scored(squared: Any, issame: Any, dataset: dict[str, Any]) -> Scored:
    """A run that decides at a squared distance of 1."""
    correct = int(np.count_nonzero((squared < 1) == issame))
    accuracy = {
        "name": "accuracy/exact",
        "value": correct / PAIRS,
        "rule": "exact",
        "at": {"threshold": 1.0},
        "series": {"fold_threshold": [1.0] * 10},
        "counts": {"correct": correct, "pairs": PAIRS},
    }
    made = result("LFW", "onnxruntime", "fp32", metrics=[accuracy], dataset=dataset)
    evidence = Lfw().read({"distances": squared, "issame": issame}, made)
    return Scored(0, "onnxruntime:fp32", True, made, evidence)


def shades(jpeg: bytes) -> list[int]:
    """Brightness of the left and the right half of a pair's picture."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return [round(float(image[48, column].mean())) for column in (40, image.shape[1] - 40)]


def of_pairs(*runs: Scored) -> tuple[Gallery, ...]:
    return Lfw().pictures(Runs(runs, "accuracy/exact"))


def test_the_worst_pairs_come_first(pair_run: Scored) -> None:
    (gallery,) = of_pairs(pair_run)
    assert gallery.title == "A onnxruntime:fp32: worst pairs"
    assert gallery.note.startswith("2 of 12 pairs are decided wrongly")
    assert [picture.caption for picture in gallery.pictures] == [
        "pair 3, different people, accepted: similarity 0.950",
        "pair 8, same person, refused: similarity 0.050",
    ]
    assert shades(gallery.pictures[0].jpeg) == pytest.approx([60, 70], abs=2)


def test_decisions_that_flipped_are_shown_largest_change_first(pair_run: Scored) -> None:
    issame = np.arange(PAIRS) % 2 == 0
    squared = np.where(issame, 0.4, 1.8)
    squared[3], squared[8], squared[5], squared[4] = 0.1, 1.9, 0.9, np.inf
    other = scored(squared, issame, pair_run.result.dataset.model_dump())
    flipped = of_pairs(pair_run, replace(other, run=1, label="x", reference=False))[1]
    assert flipped.title == "B x: decisions that flipped"
    assert [picture.caption for picture in flipped.pictures] == [
        "pair 4, same person: 0.800 → failed, now refused",
        "pair 5, different people: 0.100 → 0.550, now accepted",
    ]
    assert shades(flipped.pictures[1].jpeg) == pytest.approx([100, 110], abs=2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "partial"}, "the run was a quick look"),
        ({"metrics": ()}, "the result has no accuracy"),
    ],
)
def test_a_result_whose_pairs_cannot_be_shown_says_so(
    pair_run: Scored, change: dict[str, Any], why: str
) -> None:
    (gallery,) = of_pairs(replace(pair_run, result=pair_run.result.model_copy(update=change)))
    assert gallery.title == "Worst pairs"
    assert gallery.note.startswith(f"Not shown: {why}")


def test_a_set_that_changed_is_not_shown(pair_run: Scored, tmp_path: Path) -> None:
    with (tmp_path / "set.bin").open("ab") as file:
        file.write(b"more")
    (gallery,) = of_pairs(replace(pair_run, moved=[]))
    assert not gallery.pictures
    assert "no longer the file that was evaluated" in gallery.note
    *_, drifted = of_pairs(replace(pair_run, moved=[("set pair 3 first", 0.4)]))
    assert "no longer the file that was evaluated" in drifted.note


def test_images_of_a_set_that_moved_are_shown(pair_run: Scored) -> None:
    names = [("set pair 3 second", 0.4), ("set pair 99 first", 0.5)]
    *_, drifted = of_pairs(replace(pair_run, moved=names))
    assert [picture.caption for picture in drifted.pictures] == ["set pair 3 second: cosine 0.4000"]


def test_pictures_keep_to_their_budget() -> None:
    budget = Budget(left=10)
    pictures = tuple(Picture(b"x" * size, f"{size}") for size in (6, 9, 4, 1))
    albums = budget.albums([Gallery("a", "note", pictures)])
    assert [caption for _, caption in albums[0].pictures] == ["6", "4"]
    assert albums[0].pictures[0][0] == "data:image/jpeg;base64,eHh4eHh4"
    assert "left out to keep this file small" in albums[-1].note
    assert len(Budget().albums([Gallery("a", "note", pictures)])) == 1


def stored(folder: Path, files: dict[str, bytes], **outputs: np.ndarray[Any, Any]) -> Store:
    """Write an outputs store with the digests of files."""
    digests = [hashlib.blake2b(data, digest_size=8).digest() for data in files.values()]
    shard = Shard(
        outputs=outputs or {"embeddings": np.zeros((len(files), 4), np.float32)},
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 8),
        stamps=np.zeros((len(files), 2), np.int64),
        failures=(),
        decode_seconds=0.0,
        inference_seconds=0.0,
    )
    store = Store(folder, {"data": "x"}, len(files), list(shard.outputs))
    with store.writing():
        store.write(0, shard)
        store.write_names(files)
    return store


def drifted(root: Path, names: list[str], cosine: float = 0.4) -> tuple[Gallery, ...]:
    """Pictures of a run whose furthest images are named; all are in its store."""
    files = {name: root / "loose_crop" / name for name in names}
    data = {name: path.read_bytes() if path.is_file() else b"" for name, path in files.items()}
    store = stored(root / "store", data)
    dataset = {"name": "s", "sha256": "", "content_sha256": None, "counts": {}, "path": str(root)}
    made = result("IJBC", "torch", "int8", dataset=dataset, store=str(store.folder))
    run = Scored(1, "torch:int8", False, made, moved=[(name, cosine) for name in names])
    if (root / "loose_crop" / "changed.png").is_file():
        cv2.imwrite(str(root / "loose_crop" / "changed.png"), np.zeros((9, 9, 3), np.uint8))
    return Ijbc().pictures(Runs((run,), ""))


def test_images_that_moved_are_shown_and_nothing_outside_the_data(tmp_path: Path) -> None:
    root = tmp_path / "IJBC"
    (root / "loose_crop").mkdir(parents=True)
    names = ("loose_crop/1.png", "loose_crop/changed.png", "../secret.png")
    for name in names:
        cv2.imwrite(str(root / name), np.full((60, 40, 3), 120, np.uint8))
    (root / "loose_crop" / "2.png").write_bytes(b"no image")
    outside = ["../../secret.png", str(tmp_path / "secret.png")]
    (gallery,) = drifted(root, ["1.png", "changed.png", *outside, "2.png", "3.png"])
    assert [picture.caption for picture in gallery.pictures] == ["1.png: cosine 0.4000"]


def test_images_that_hardly_moved_are_not_shown(tmp_path: Path) -> None:
    (gallery,) = drifted(tmp_path, ["1.png"], cosine=0.99999)
    assert gallery.note == "None moved: the lowest cosine is 0.999990."


def test_images_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    (gallery,) = drifted(tmp_path / "gone", ["1.png"])
    assert "the images are not at" in gallery.note


@pytest.fixture
def scene_run(tmp_path: Path) -> Scored:
    """A detector that finds every annotated face of the first image and none of the others."""
    root = write_sample("widerface", tmp_path / "wider", size="tiny")
    truth = read_ground_truth(root / "ground_truth")
    first = truth.boxes[: truth.offsets[1]]
    rows = [np.column_stack([first, np.linspace(0.9, 0.4, len(first))])]
    rows += [np.empty((0, 5))] * (len(truth.images) - 1)
    evaluation = evaluate(truth, Detections.from_rows(truth.images, rows))
    images = {name: next(root.rglob(f"{name}.jpg")).read_bytes() for name in truth.images}
    store = stored(tmp_path / "store", images)
    dataset = {"name": "w", "sha256": "", "content_sha256": None, "counts": {}, "path": str(root)}
    arrays = {**image_counts(evaluation).arrays(), **scene_arrays(evaluation)}
    metrics = [
        {"name": f"ap/{subset}", "value": curve.summary()["ap"], "rule": "python"}
        for subset, curve in evaluation.curves.items()
    ]
    made = result(
        "WIDERFACE", "torch", "fp32", dataset=dataset, store=str(store.folder), metrics=metrics
    )
    return Scored(0, "run 0", True, made, WiderFaceTask().read(arrays, made))


def of_scenes(*runs: Scored) -> tuple[Gallery, ...]:
    return WiderFaceTask().pictures(Runs(runs, "ap/hard"))


def test_the_worst_images_are_those_with_most_errors(scene_run: Scored) -> None:
    other = replace(scene_run, run=1, label="run 1", reference=False)
    first, second = of_scenes(scene_run, other)
    assert first.pictures, first.note
    assert all(" 0 hits" in f" {p.caption.partition(': ')[2]}" for p in first.pictures)
    misses = [int(p.caption.partition(", ")[2].partition(" ")[0]) for p in first.pictures]
    assert misses == sorted(misses, reverse=True)
    assert second.note == "Those of A run 0, with the same counts."


def test_scenes_that_are_not_at_hand_are_said_to_be(scene_run: Scored, tmp_path: Path) -> None:
    moved = scene_run.result.dataset.model_copy(update={"path": str(tmp_path / "gone")})
    gone = replace(scene_run, result=scene_run.result.model_copy(update={"dataset": moved}))
    (gallery,) = of_scenes(gone)
    assert "the images are not at" in gallery.note
    (gallery,) = of_scenes(replace(scene_run, evidence={}))
    assert gallery.note == "Not shown: no counts lie beside the result of run 0."
    name = of_scenes(scene_run)[0].pictures[0].caption.partition(":")[0]
    image = next((tmp_path / "wider").rglob(f"{name}.jpg"))
    image.write_bytes(image.read_bytes() + b" ")
    (gallery,) = of_scenes(scene_run)
    assert "has changed since it was evaluated" in gallery.note


def test_stage_bars_tell_every_second_in_words() -> None:
    made: Result = result("WIDERFACE", "torch", "fp32")
    entry = Entry(0, "a <b>", True, None, made)
    for size, said in ((8, ", batch 8"), (None, "")):
        ran = made.ran.model_copy(update={"batch_size": size})
        sized = replace(entry, result=made.model_copy(update={"ran": ran}))
        bars = stage_bars(Group("g", "d", "widerface", "ap/hard", (sized,)))
        drawn = templates().get_template("macros.html").module.stagebars(bars)
        assert f"a &lt;b&gt;{said}: inference 2.50 s" in drawn
        assert f" s{said}</text>" in drawn
    none = replace(entry, result=made.model_copy(update={"stages": ()}))
    assert not stage_bars(Group("g", "d", "widerface", "ap/hard", (none,)))
