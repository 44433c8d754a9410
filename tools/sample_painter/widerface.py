"""Writes a WIDER FACE validation tree of painted scenes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from sample_painter.photo import encode
from sample_painter.scenes import ATTRIBUTES, Crowd, Scene, draw_scene
from sample_painter.writing import Progress, in_threads

SMALL = 4  # images; so few are narrow
QUALITY = 75  # of the JPEG images
EVENTS = {
    "0--Portrait": Crowd((1, 4), (90, 300)),
    "1--Family": Crowd((3, 8), (50, 170)),
    "2--Street": Crowd((4, 16), (14, 140)),
    "3--Crowd": Crowd((20, 60), (10, 60)),
}
_MOST_FACES = 64  # subjects set aside for a scene
_MAT_HEADER = b"MATLAB 5.0 MAT-file, written by evalkit (painted sample data)".ljust(116)


@dataclass(frozen=True, slots=True)
class _Entry:
    event: str
    name: str
    number: int
    empty: bool


@dataclass(frozen=True, slots=True)
class _Truth:
    boxes: NDArray[np.int32]
    attributes: NDArray[np.uint8]


def _entries(images: int) -> list[_Entry]:
    """Images in turn from each event; one in sixteen, from the fourth on, has no face."""
    entries = []
    for number in range(images):
        event = list(EVENTS)[number % len(EVENTS)]
        index, title = event.split("--")
        name = f"{index}_{title}_{title}_{index}_{number + 1}"
        entries.append(_Entry(event, name, number, number % 16 == 3))
    return sorted(entries, key=lambda e: (e.event, e.number))


def _width(images: int) -> int:
    return 480 if images <= SMALL else 640


def _scene(seed: int, entry: _Entry, width: int) -> Scene:
    rng = np.random.default_rng((seed, entry.number))
    crowd = Crowd((0, 0), (10, 20)) if entry.empty else EVENTS[entry.event]
    height = int(width * rng.choice([0.62, 0.67, 0.75, 1.1]))
    return draw_scene(seed, entry.number, crowd, (height, width), entry.number * _MOST_FACES)


def _kept(truth: _Truth) -> dict[str, NDArray[np.bool_]]:
    """Faces of each subset: large and clear ones, then smaller and partly hidden, then all."""
    blur, _, _, invalid, occlusion, pose = truth.attributes.T
    height = truth.boxes[:, 3]
    hard = (height >= 10) & (invalid == 0)
    medium = hard & (height >= 30) & (occlusion < 2)
    easy = medium & (height >= 50) & (blur == 0) & (occlusion == 0) & (pose == 0)
    return {"easy": easy, "medium": medium, "hard": hard}


def _cells(items: list[object]) -> NDArray[np.object_]:
    """Column of MATLAB cells."""
    column = np.empty((len(items), 1), object)
    for row, item in enumerate(items):
        column[row, 0] = item
    return column


def _write_mat(path: Path, content: dict[str, object]) -> None:
    """Write a `.mat` whose bytes do not depend on the time."""
    buffer = io.BytesIO()
    savemat(buffer, content, do_compression=True)
    data = buffer.getvalue()
    path.write_bytes(_MAT_HEADER + data[len(_MAT_HEADER) :])


def _write_mats(folder: Path, entries: list[_Entry], truths: list[_Truth]) -> None:
    events = [e for e in EVENTS if any(entry.event == e for entry in entries)]
    groups = [[i for i, entry in enumerate(entries) if entry.event == e] for e in events]

    def nested(items: list[object]) -> NDArray[np.object_]:
        return _cells([_cells([items[i] for i in group]) for group in groups])

    common: dict[str, object] = {
        "event_list": _cells(list(events)),
        "file_list": nested([entry.name for entry in entries]),
        "face_bbx_list": nested([truth.boxes for truth in truths]),
    }
    for column, name in enumerate(ATTRIBUTES):
        common[f"{name}_label_list"] = nested(
            [t.attributes[:, column : column + 1] for t in truths]
        )
    _write_mat(folder / "wider_face_val.mat", common)
    for subset in ("easy", "medium", "hard"):
        rows = [np.flatnonzero(_kept(t)[subset])[:, None].astype(np.uint8) + 1 for t in truths]
        _write_mat(folder / f"wider_{subset}_val.mat", {**common, "gt_list": nested(list(rows))})


def _text(entry: _Entry, truth: _Truth) -> str:
    """Build one image's block of the text file; without a face it still has an all-zero line."""
    count = 0 if entry.empty else len(truth.boxes)
    table = np.concatenate([truth.boxes, truth.attributes], axis=1)
    lines = "".join(" ".join(map(str, row)) + " \n" for row in table.tolist())
    return f"{entry.event}/{entry.name}.jpg\n{count}\n{lines}"


def write_widerface(
    folder: Path, images: int, seed: int, progress: Progress | None
) -> dict[str, int | float]:
    """Fill `folder` with `WIDER_val/`, `wider_face_split/` and `ground_truth/`.

    Returns
    -------
    dict
        The sample's parameters, for its marker.
    """
    entries = _entries(images)
    pictures = folder / "WIDER_val" / "images"

    def draw(entry: _Entry) -> _Truth:
        scene = _scene(seed, entry, _width(images))
        (pictures / entry.event).mkdir(parents=True, exist_ok=True)
        (pictures / entry.event / f"{entry.name}.jpg").write_bytes(encode(scene.image, QUALITY))
        if len(scene.boxes):
            return _Truth(scene.boxes, scene.attributes)
        return _Truth(np.zeros((1, 4), np.int32), np.zeros((1, 6), np.uint8))

    truths = in_threads(draw, entries, progress)
    for name in ("wider_face_split", "ground_truth"):
        (folder / name).mkdir()
    text = "".join(map(_text, entries, truths))
    (folder / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_text(text)
    _write_mats(folder / "ground_truth", entries, truths)
    sizes = {
        name: sum(int(_kept(t)[name].sum()) for t in truths) for name in ("easy", "medium", "hard")
    }
    return {"images": images, "faces": sum(int((t.boxes[:, 3] > 0).sum()) for t in truths), **sizes}
