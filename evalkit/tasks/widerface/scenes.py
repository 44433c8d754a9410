"""Scenes: what one subset makes of the images with most misses and false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.widerface_eval import FALSE, HIT, IGNORED, Evaluation

Kind = Literal["hit", "miss", "false alarm", "ignored"]
Boxes = NDArray[np.float64]

SAVED = 4
"""Scenes that are kept beside a result, for the pictures of a report."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What one subset makes of one image at a score threshold.

    Attributes
    ----------
    name : str
        Of the image.
    boxes : dict of Kind to ndarray of shape (n, 4)
        Detections as judged; of a miss, the face. Ignored faces follow ignored detections.
    faces : ndarray of shape (n, 4)
        The annotated faces that were hit.
    ignored_detections : int
        The first of the ignored boxes are detections.
    scores : dict of Kind to ndarray of shape (n,)
        Of the detections, the first of the boxes; empty where they are not at hand.
    """

    name: str
    boxes: dict[Kind, Boxes]
    faces: Boxes
    ignored_detections: int
    scores: dict[Kind, NDArray[np.float64]]

    @property
    def counts(self) -> tuple[str, str]:
        """Say how many there are of each kind: those that count, and those ignored."""
        hits, misses, alarms = (len(self.boxes[kind]) for kind in _COUNTED)
        faces = len(self.boxes["ignored"]) - self.ignored_detections
        return (
            f"{_number(hits, 'hit')}, {_number(misses, 'miss', 'misses')}, "
            f"{_number(alarms, 'false alarm')}",
            f"ignored: {_number(faces, 'face')}, {_number(self.ignored_detections, 'detection')}",
        )


_COUNTED: Final[tuple[Kind, ...]] = ("hit", "miss", "false alarm")
_OUTCOMES: Final[dict[Kind, int]] = {"hit": HIT, "false alarm": FALSE, "ignored": IGNORED}


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def best_f1_threshold(evaluation: Evaluation, subset: str) -> float:
    """Lowest score that counts where precision and recall have the highest harmonic mean.

    Parameters
    ----------
    evaluation : Evaluation
    subset : str
        It keeps at least one face.

    Returns
    -------
    float
        In the detector's own scores.
    """
    curve = evaluation.curves[subset]
    step = int(np.argmax(2 * curve.recalled / (curve.proposals + curve.faces)))
    counting = evaluation.detections.scores[evaluation.levels <= step]
    return float(np.min(counting, initial=evaluation.score_range[1]))


def worst_scenes(
    evaluation: Evaluation,
    subset: str,
    threshold: float,
    most: int,
    images: Sequence[str] | None = None,
) -> list[Scene]:
    """Judge the images with errors in one subset, most errors first.

    Parameters
    ----------
    evaluation : Evaluation
    subset : str
    threshold : float
        Detections below this score, the detector's own, are left out.
    most : int
        At most this many scenes.
    images : sequence of str, optional
        Only these images.
    """
    truth, detections = evaluation.ground_truth, evaluation.detections
    outcome = evaluation.matches.outcome[list(truth.subsets).index(subset)]
    kept = truth.subsets[subset]
    shown = detections.scores >= threshold
    recalled = np.zeros(len(kept), bool)
    recalled[evaluation.matches.best[shown & (outcome == HIT)]] = True
    missed = kept & ~recalled
    # An image without faces is annotated with one box of no size, which is nothing to see.
    ignored = ~kept & (truth.boxes[:, 2:] > 0).all(axis=1)
    alarms = shown & (outcome == FALSE)
    errors = np.bincount(truth.image_of[missed], minlength=len(truth.images))
    errors += np.bincount(detections.image_of[alarms], minlength=len(truth.images))
    if images is not None:
        errors[~np.isin(truth.images, list(images))] = 0
    order = np.argsort(-errors, kind="stable")[:most]
    scenes = []
    for image in order[errors[order] > 0].tolist():
        here = slice(detections.offsets[image], detections.offsets[image + 1])
        there = slice(truth.offsets[image], truth.offsets[image + 1])
        judged = {
            kind: np.flatnonzero(shown[here] & (outcome[here] == code))
            for kind, code in _OUTCOMES.items()
        }
        boxes = {kind: detections.boxes[here][rows] for kind, rows in judged.items()}
        boxes["miss"] = truth.boxes[there][missed[there]]
        boxes["ignored"] = np.concatenate([boxes["ignored"], truth.boxes[there][ignored[there]]])
        scenes.append(
            Scene(
                truth.images[image],
                boxes,
                faces=truth.boxes[there][recalled[there]],
                ignored_detections=len(judged["ignored"]),
                scores={kind: detections.scores[here][rows] for kind, rows in judged.items()},
            )
        )
    return scenes


def scene_arrays(evaluation: Evaluation) -> dict[str, NDArray[Any]]:
    """Return the worst scenes of the last subset with faces, as arrays to keep beside a result."""
    kept = [subset for subset, curve in evaluation.curves.items() if curve.faces > 0]
    if not kept:
        return {}
    threshold = best_f1_threshold(evaluation, kept[-1])
    scenes = worst_scenes(evaluation, kept[-1], threshold, SAVED)
    parts = [
        (image, code, box)
        for image, scene in enumerate(scenes)
        for code, boxes in enumerate(_parts(scene))
        for box in boxes
    ]
    return {
        "scene_subset": np.array(kept[-1]),
        "scene_names": np.array([scene.name for scene in scenes], np.str_),
        "scene_of_box": np.array([image for image, _, _ in parts], np.uint8),
        "scene_kind": np.array([code for _, code, _ in parts], np.uint8),
        "scene_boxes": np.array([box for _, _, box in parts], np.float64).reshape(-1, 4),
    }


def _parts(scene: Scene) -> tuple[Boxes, ...]:
    """Return the boxes in the order of their codes in a file."""
    ignored, detections = scene.boxes["ignored"], scene.ignored_detections
    counted = (scene.boxes[kind] for kind in _COUNTED)
    return (*counted, ignored[:detections], ignored[detections:], scene.faces)


def saved_scenes(arrays: Mapping[str, NDArray[Any]]) -> tuple[str, list[Scene]]:
    """Read what `scene_arrays` gave: the subset's name and its scenes.

    Raises
    ------
    evalkit.core.errors.InputError
        There are none, or the arrays do not fit together.
    """
    if "scene_names" not in arrays:
        raise InputError(
            "the result has no worst images beside it. Earlier versions did not save them, and a "
            "result without faces has none. Run the evaluation again"
        )
    try:
        names = [str(name) for name in arrays["scene_names"].tolist()]
        of_box, kind, boxes = (
            arrays[name] for name in ("scene_of_box", "scene_kind", "scene_boxes")
        )
        if boxes.shape != (len(kind), 4) or of_box.shape != kind.shape or boxes.dtype.kind != "f":
            raise ValueError(f"boxes of shape {boxes.shape} do not fit {len(kind)} kinds")
        scenes = []
        for image, name in enumerate(names):
            parts = [boxes[(of_box == image) & (kind == code)] for code in range(6)]
            ignored = np.concatenate(parts[3:5])
            judged = dict(zip(_COUNTED, parts, strict=False)) | {"ignored": ignored}
            scenes.append(Scene(name, judged, parts[5], len(parts[3]), {}))
        return str(arrays["scene_subset"]), scenes
    except (KeyError, ValueError) as error:
        raise InputError(f"the scenes beside the result are damaged ({error})") from error
