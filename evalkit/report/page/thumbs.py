"""Small pictures of what went wrong, as data URIs; a sentence where the images are not at hand."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import EvalkitError, InputError
from evalkit.core.results import Result
from evalkit.core.store import Store
from evalkit.datasets.errors import DatasetError, UnreadableImage
from evalkit.datasets.lfw import LfwImages, load_bin
from evalkit.datasets.widerface import load_widerface
from evalkit.report.page.chart import letter
from evalkit.report.page.gather import Entry, Group
from evalkit.run.detecting import rows_of
from evalkit.tasks.widerface.drawing import thumbnail
from evalkit.tasks.widerface.scenes import best_f1_threshold, worst_scenes
from evalkit.widerface_eval import (
    Detections,
    Settings,
    evaluate,
    read_ground_truth,
)

Image = NDArray[np.uint8]

_FACE_SIDE = 96
_SCENE_SIDE = 260
_QUALITY = 72
_SHOWN = 8
_SCENES = 4
_UNMOVED = 0.999
"""Where no cosine is lower, pictures of the images that moved furthest tell nothing."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its JPEG as a data URI, what it shows, what stands under it."""

    source: str
    alt: str
    caption: str


@dataclass(slots=True)
class Budget:
    """How many bytes of pictures the page may still take."""

    left: int = 1_200_000
    refused: bool = False

    def picture(self, image: Image, side: int, alt: str, caption: str) -> Picture | None:
        """Make a picture; None once there is no room."""
        scale = min(1.0, side / image.shape[0]) if side == _FACE_SIDE else side / image.shape[1]
        size = tuple(max(1, round(n * scale)) for n in (image.shape[1], image.shape[0]))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        if len(data) > self.left:
            self.refused = True
            return None
        self.left -= len(data)
        source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
        return Picture(source, alt, caption)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures of one kind, or the sentence that says why there is none."""

    title: str
    note: str = ""
    pictures: tuple[Picture, ...] = field(default=())


def galleries(group: Group, budget: Budget) -> list[Gallery]:
    """Return the pictures of a group's errors.

    Parameters
    ----------
    group : Group
    budget : Budget
        What they may take.
    """
    ways = {"pairs": (_errors, _drifted), "templates": (_drifted,), "detection": (_scenes,)}
    found = []
    for way in ways[group.kind]:
        try:
            found += list(way(group, budget))
        # Pictures are an extra: whatever is wrong with the images, the page still appears.
        except (EvalkitError, DatasetError, OSError, ValueError, cv2.error) as error:
            found.append(Gallery(_TITLES[way.__name__], f"Not shown: {str(error).rstrip('.')}."))
    if budget.refused:
        found.append(Gallery("More", "Further pictures are left out to keep this file small."))
    return found


_TITLES = {
    "_errors": "Worst pairs",
    "_drifted": "Images that moved furthest",
    "_scenes": "Worst images",
}


def _errors(group: Group, budget: Budget) -> Iterator[Gallery]:
    """Yield the worst errors of the first run, then the decisions that flipped in the others."""
    first, result = _first(group)
    images = _pair_images(result)
    yield _worst_pairs(first, images, budget)
    for entry in group.entries:
        flips = entry.comparison.flips if entry.comparison else ()
        chosen = [flip for flip in flips if flip.metric == group.primary and flip.examples]
        pictures = []
        for example in chosen[0].examples[:_SHOWN] if chosen else ():
            row = _number_in(example.pair)
            scores = " → ".join(
                "failed" if s is None else f"{s:.3f}" for s in (example.baseline, example.candidate)
            )
            kind = "same person" if example.genuine else "different people"
            now = "accepted" if example.accepted else "refused"
            picture = _pair(images, row, budget, f"pair {row}, {kind}: {scores}, now {now}")
            pictures += [picture] if picture else []
        if pictures:
            title = f"{letter(entry.run)} {entry.label}: decisions that flipped"
            yield Gallery(title, "", tuple(pictures))


def _first(group: Group) -> tuple[Entry, Result]:
    if not group.ran:
        raise InputError("no run has a result")
    held = next((row for row in group.ran if row[0].reference), group.ran[0])
    if held[1].status == "partial":
        raise InputError("the run was a quick look at a part of the data")
    return held


def _worst_pairs(entry: Entry, images: LfwImages, budget: Budget) -> Gallery:
    """Return the pairs that lie furthest on the wrong side of the threshold."""
    scores = entry.scores()
    metrics = entry.result.metrics if entry.result else ()
    accuracy = next((m for m in metrics if m.figure == "accuracy"), None)
    if accuracy is None or "distances" not in scores:
        raise InputError("the result has no accuracy, or no scores lie beside it")
    threshold = accuracy.at["distance"] or 0.0
    distances, issame = scores["distances"], scores["issame"].astype(bool)
    wrong = np.flatnonzero((distances < threshold) != issame)
    worst = wrong[np.argsort(-np.abs(distances[wrong] - threshold), kind="stable")][:_SHOWN]
    pictures = []
    for row in worst.tolist():
        said = "same person, refused" if issame[row] else "different people, accepted"
        caption = f"pair {row}, {said}: similarity {1 - distances[row] / 2:.3f}"
        picture = _pair(images, row, budget, caption)
        pictures += [picture] if picture else []
    note = f"{len(wrong):,} of {len(issame):,} pairs are decided wrongly at similarity "
    note += f"{1 - threshold / 2:.3f}; the furthest from it first."
    return Gallery(f"{letter(entry.run)} {entry.label}: worst pairs", note, tuple(pictures))


def _pair_images(result: Result) -> LfwImages:
    pairs = load_bin(result.dataset.path)
    if pairs.sha256 != result.dataset.sha256:
        raise InputError(f"{result.dataset.path} is no longer the file that was evaluated")
    return LfwImages(pairs)


def _pair(images: LfwImages, row: int, budget: Budget, caption: str) -> Picture | None:
    try:
        sides = [images.load(2 * row + side)[:, :, ::-1] for side in (0, 1)]
    except (UnreadableImage, IndexError):
        return None
    gap = np.full((sides[0].shape[0], 4, 3), 255, np.uint8)
    return budget.picture(np.hstack([sides[0], gap, sides[1]]), _FACE_SIDE, caption, caption)


def _number_in(text: str) -> int:
    found = re.search(r"\d+", text)
    return int(found[0]) if found else 0


def _drifted(group: Group, budget: Budget) -> Iterator[Gallery]:
    """Yield for each run the images whose embeddings lie furthest from the reference's."""
    load: Callable[[str], Image] | None = None
    for entry, result in group.ran:
        views = [d for d in (entry.comparison.drift if entry.comparison else ()) if d.worst]
        if not views:
            continue
        title = f"{letter(entry.run)} {entry.label}: images that moved furthest"
        worst = views[0].worst
        if worst[0].cosine > _UNMOVED:
            yield Gallery(title, f"None moved: the lowest cosine is {worst[0].cosine:.6f}.")
            continue
        load = load or _loader(result)
        pictures = []
        for sample in worst[:_SHOWN]:
            caption = f"{sample.name}: cosine {sample.cosine:.4f}"
            try:
                picture = budget.picture(load(sample.name), _FACE_SIDE, caption, caption)
            except (UnreadableImage, InputError):
                continue
            pictures += [picture] if picture else []
        note = "" if pictures else "Their files cannot be read any more."
        yield Gallery(title, note, tuple(pictures))


def _loader(result: Result) -> Callable[[str], Image]:
    """Return what reads an image of a data set by its name, as OpenCV does."""
    if result.task == "lfw":
        images = _pair_images(result)
        place = {images.name(index): index for index in range(len(images))}

        def of_set(name: str) -> Image:
            if name not in place:
                raise InputError(f"there is no image {name}")
            return np.ascontiguousarray(images.load(place[name])[:, :, ::-1])

        return of_set
    folder = Path(result.dataset.path) / "loose_crop"
    if not folder.is_dir():
        raise InputError(f"the images are not at {folder}")

    def of_folder(name: str) -> Image:
        plain = PurePosixPath(name)
        if plain.is_absolute() or ".." in plain.parts:
            raise InputError(f"{name} lies outside the data")
        try:
            data = np.frombuffer((folder / plain).read_bytes(), np.uint8)
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror}") from error
        image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if image is None:
            raise InputError(f"{name} is no image")
        found: Image = image
        return found

    return of_folder


def _scenes(group: Group, budget: Budget) -> Iterator[Gallery]:
    """Yield for each run the images with most misses and false alarms."""
    _first(group)
    shown: dict[tuple[str, ...], str] = {}
    for entry, result in group.ran:
        root = Path(result.dataset.path)
        folders = [root, root / "ground_truth", root / "wider_face_split"]
        folder = next((f for f in folders if any(f.glob("wider_hard_val.*"))), None)
        if folder is None or result.store is None:
            raise InputError(f"images, ground truth or detections are not at hand ({root})")
        store = Store.open(Path(result.store))
        truth = read_ground_truth(folder).take(store.names())
        rows = [_boxes(found) for _, shard in store.shards() for found in rows_of(shard)]
        rule = {name: result.settings[name] for name in ("rule", "iou", "steps")}
        evaluation = evaluate(truth, Detections.from_rows(truth.images, rows), Settings(**rule))
        kept = [name for name, curve in evaluation.curves.items() if curve.faces > 0]
        if not kept:
            raise InputError("no subset keeps a face")
        annotated = folder if (folder / "wider_face_val_bbx_gt.txt").is_file() else None
        wider = load_widerface(root, annotations=annotated, events=truth.events)
        title = f"{letter(entry.run)} {entry.label}: worst images"
        place = {name: index for index, name in enumerate(wider.images.names)}
        threshold = best_f1_threshold(evaluation, kept[-1])
        worst = [
            (
                s.name,
                "; ".join(s.counts),
                thumbnail(wider.images.load(place[s.name])[:, :, ::-1], s),
            )
            for s in worst_scenes(evaluation, kept[-1], threshold, _SCENES, list(place))
        ]
        captions = tuple(f"{name}: {counts}" for name, counts, _ in worst)
        if captions in shown:
            yield Gallery(title, f"Those of {shown[captions]}, with the same counts.")
            continue
        shown[captions] = f"{letter(entry.run)} {entry.label}"
        pictures = []
        for caption, (_, _, image) in zip(captions, worst, strict=True):
            picture = budget.picture(image, _SCENE_SIDE, caption, caption)
            pictures += [picture] if picture else []
        note = f"Subset {kept[-1]}, at its best F1: thin solid boxes are annotated faces that were "
        note += "hit, dashed ones missed; corners alone are false alarms, dotted boxes ignored."
        yield Gallery(title, note, tuple(pictures))


def _boxes(found: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Turn corners into corner and size; an image that failed has no detection."""
    table = np.empty((0, 5)) if found is None else found[:, :5].astype(np.float64)
    table[:, 2:4] -= table[:, :2]
    return table
