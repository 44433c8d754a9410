"""Pictures of the images on which a detector is worst: people look before they read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write
from evalkit.datasets.errors import UnreadableImage
from evalkit.datasets.widerface import WiderFace, image_folder
from evalkit.tasks.panels import Gallery, Runs
from evalkit.tasks.pictures import StoredSamples, first_run, gallery
from evalkit.tasks.pictures import scene as scene_picture
from evalkit.tasks.widerface.drawing import (
    Colour,
    Image,
    close_up,
    contact_sheet,
    extent,
    framed,
    thumbnail,
)
from evalkit.tasks.widerface.evidence import SceneMatches
from evalkit.tasks.widerface.scenes import Scene, best_f1_threshold, worst_scenes
from evalkit.widerface_eval import Evaluation

_SUFFIXES = (".jpg", ".jpeg", ".png")

_WORST = 12
"""Images a subset."""

_UNREADABLE: Colour = (96, 96, 96)


def pictures(runs: Runs) -> tuple[Gallery, ...]:
    """Return for each run the images with most misses and false alarms."""
    return gallery("Worst images", lambda: _worst_images(runs))


def _worst_images(runs: Runs) -> Iterator[Gallery]:
    first_run(runs)
    shown: dict[tuple[str, ...], str] = {}
    for run in runs.scored:
        evidence = run.main
        if not isinstance(evidence, SceneMatches):
            raise InputError(run.problem or f"no counts lie beside the result of {run.label}")
        subset, scenes = evidence.scenes()
        title = f"{run.named}: worst images"
        captions = tuple(f"{scene.name}: {'; '.join(scene.counts)}" for scene in scenes)
        if captions in shown:
            yield Gallery(title, f"Those of {shown[captions]}, with the same counts.")
            continue
        shown[captions] = run.named
        samples = StoredSamples(run.result, image_folder(Path(run.result.dataset.path)))
        images = (thumbnail(samples.load(scene.name, _SUFFIXES), scene) for scene in scenes)
        note = f"Subset {subset}, at its best F1: thin solid boxes are annotated faces that were "
        note += "hit, dashed ones missed; corners alone are false alarms, dotted boxes ignored."
        yield Gallery(title, note, tuple(map(scene_picture, images, captions)))


def write_detection_pictures(folder: Path, wider: WiderFace, evaluation: Evaluation) -> list[Path]:
    """Draw detections and ground truth on the worst images of each subset.

    The worst have most misses and false alarms at the threshold of best F1 of the subset, over the
    whole evaluation. Every detection is drawn as the evaluation judged it. A picture shows the part
    of its image that has faces or detections; the overview shows whole images, with small boxes
    drawn larger. An image without an error is not drawn, nor is a subset that keeps no face.
    Pictures of an earlier run stay where no new one has the same name.

    Parameters
    ----------
    folder : Path
        Where the pictures go.
    wider : WiderFace
        The images. Those that the evaluation does not know are left out, as are those of the
        evaluation that are not here.
    evaluation : Evaluation

    Returns
    -------
    list of Path
        For each subset, ``SUBSET-overview.jpg`` and then ``SUBSET-RANK-EVENT-IMAGE.jpg``, worst
        first.

    Raises
    ------
    evalkit.core.errors.InputError
        The folder cannot be written.
    """
    written = []
    for subset, curve in evaluation.curves.items():
        if curve.faces > 0:
            threshold = best_f1_threshold(evaluation, subset)
            scenes = worst_scenes(evaluation, subset, threshold, _WORST, wider.images.names)
            remark = f"detections with score >= {threshold:.3g} (best F1)"
            written += _write_subset(folder, subset, remark, wider, scenes)
    return written


def _write_subset(
    folder: Path, subset: str, remark: str, wider: WiderFace, scenes: Sequence[Scene]
) -> list[Path]:
    """Write the pictures of one subset, and its overview."""
    if not scenes:
        return []
    place = {name: index for index, name in enumerate(wider.images.names)}
    paths, cells = [], []
    for rank, scene in enumerate(scenes, 1):
        image, fault = _load(wider, place[scene.name], scene)
        title = f"{subset} {rank}/{len(scenes)}   {scene.name}   {fault}"
        path = folder / f"{_safe(f'{subset}-{rank:02d}-{scene.name}')}.jpg"
        _save(path, framed(close_up(image, scene), title, "; ".join((*scene.counts, remark))))
        paths.append(path)
        cells.append(thumbnail(image, scene))
    overview = folder / f"{_safe(subset)}-overview.jpg"
    title = f"{subset}: the {len(scenes)} worst images, most misses and false alarms first"
    _save(overview, framed(contact_sheet(cells, scenes), title, remark))
    return [overview, *paths]


def _safe(name: str) -> str:
    """Make a file name of any name: no separators, no leading dot, never too long."""
    return re.sub(r"[^A-Za-z0-9._-]+|^\.+", "_", name.replace("/", "-"))[:120]


def _load(wider: WiderFace, index: int, scene: Scene) -> tuple[Image, str]:
    """Return an image in OpenCV's channel order, or a grey field, and what to say of it."""
    try:
        return np.ascontiguousarray(wider.images.load(index)[:, :, ::-1]), ""
    except UnreadableImage:
        width, height = np.clip(extent(scene)[1], 64, 2048).astype(int).tolist()
        return np.full((height, width, 3), _UNREADABLE, np.uint8), "UNREADABLE"


def _save(path: Path, picture: Image) -> None:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    with atomic_write(path) as file:
        file.write(data.tobytes())
