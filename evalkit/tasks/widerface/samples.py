"""The ground truth and the images of a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.core.errors import InputError
from evalkit.core.files import sha256_file, sha256_json
from evalkit.core.results import DatasetInfo
from evalkit.datasets.ijb import MARKER
from evalkit.datasets.widerface import WiderFace, image_folder, load_widerface
from evalkit.tasks.base import Samples
from evalkit.tasks.widerface.settings import WiderFaceSettings
from evalkit.widerface_eval import GroundTruth, WiderFaceError, read_ground_truth

ANNOTATIONS = "wider_face_*_bbx_gt.txt"
"""Names of the files that list the images of a split."""

_TRUTH_FOLDERS = ("ground_truth", "wider_face_split", "eval_tools/ground_truth", ".")
_OFFICIAL = (3226, 7211, 13319, 31958)
"""Images of the validation set, and its easy, medium and hard faces."""


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """The ground truth of a run, and the images.

    Attributes
    ----------
    truth : GroundTruth
        Of the images that ``--events`` and ``--limit`` leave.
    images : WiderFace or None
        In the order of `truth`; None where they are not there: predictions need none.
    known : tuple of str
        All images of the ground truth.
    """

    truth: GroundTruth
    images: WiderFace | None
    known: tuple[str, ...]


def truth_folder(root: Path, settings: WiderFaceSettings) -> Path:
    """Return the folder of the official ``.mat`` files.

    Raises
    ------
    evalkit.core.errors.InputError
        There is none.
    """
    if settings.ground_truth is not None:
        return settings.ground_truth
    for name in _TRUTH_FOLDERS:
        if any((root / name).glob("wider_hard_val.*")):
            return root / name
    raise InputError(
        f"{root} holds no ground truth (wider_face_val.mat, wider_easy_val.mat and so on). Name "
        "its folder with --ground-truth."
    )


def load_samples(root: Path, folder: Path, settings: WiderFaceSettings) -> Samples:
    """Load the ground truth of a folder, and the images of a root where they are needed.

    Raises
    ------
    evalkit.core.errors.InputError, evalkit.datasets.errors.DatasetError
        The files are missing or damaged, or of different releases.
    """
    try:
        whole = read_ground_truth(folder)
        truth = whole.only(settings.events) if settings.events else whole
        limited = settings.limit is not None and settings.limit < len(truth.images)
        if settings.limit is not None and limited:
            chosen = np.linspace(0, len(truth.images) - 1, settings.limit).astype(int)
            truth = truth.take([truth.images[row] for row in chosen])
    except WiderFaceError as error:
        raise InputError(str(error)) from error
    wider = _images(root, folder, truth, settings)
    images = wider.images if wider else None
    truth_hash = _hash(folder)
    return Samples(
        dataset=_dataset(root, truth_hash, truth),
        fingerprint=hashlib.sha256("\n".join([truth_hash, *truth.images]).encode()).hexdigest(),
        root=root,
        source=(lambda _: images) if images else None,
        partial=limited,
        groups=np.arange(len(truth.images)),
        data=Data(truth, wider, whole.images),
    )


def _images(
    root: Path, folder: Path, truth: GroundTruth, settings: WiderFaceSettings
) -> WiderFace | None:
    """Load the images in the ground truth's order; None where predictions need none."""
    there = any((image_folder(root) / event).is_dir() for event in truth.events)
    if settings.predictions is not None and (settings.save_images is None or not there):
        return None
    beside = (folder / "wider_face_val_bbx_gt.txt").is_file()
    wider = load_widerface(root, annotations=folder if beside else None, events=truth.events)
    place = {name: row for row, name in enumerate(wider.images.names)}
    missing = [name for name in truth.images if name not in place]
    if missing:
        raise InputError(
            f"{wider.annotations} has no image {missing[0]}, which the ground truth has (and "
            f"{len(missing) - 1} more). They are of different releases."
        )
    return wider.take([place[name] for name in truth.images])


def _hash(folder: Path) -> str:
    files = sorted(path for path in folder.glob("wider_*_val*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _dataset(root: Path, truth_hash: str, truth: GroundTruth) -> DatasetInfo:
    faces = {subset: int(np.count_nonzero(flags)) for subset, flags in truth.subsets.items()}
    name = f"widerface:{root.resolve().name}"
    if (root / MARKER).is_file():
        name = "evalkit-sample-widerface"
    if (len(truth.images), *faces.values()) == _OFFICIAL:
        name = "WIDER FACE val"
    return DatasetInfo(
        name=name,
        sha256=hashlib.sha256(f"{truth_hash} {' '.join(truth.images)}".encode()).hexdigest(),
        content_sha256=None,
        counts={"images": len(truth.images), **faces},
        path=str(root),
    )


def list_photographs(path: Path) -> Samples:
    """List the images of either split, those of the events whose folders are there.

    Raises
    ------
    evalkit.datasets.errors.DatasetError
        The annotations are damaged, or an image is missing.
    """
    annotations = next(path.rglob(ANNOTATIONS))
    split = "val" if "_val_" in annotations.name else "train"
    events = None
    for folder in (path / f"WIDER_{split}" / "images", path / "images"):
        if folder.is_dir():
            events = sorted(event.name for event in folder.iterdir() if event.is_dir()) or None
            break
    images = load_widerface(path, split, annotations=annotations, events=events).images
    sizes = [(name, images.path(row).stat().st_size) for row, name in enumerate(images.names)]
    sha256 = sha256_json(sizes)
    return Samples(
        dataset=DatasetInfo(
            name=f"widerface:{path.resolve().name}",
            sha256=sha256,
            content_sha256=None,
            counts={"images": len(images)},
            path=str(path),
        ),
        fingerprint=sha256,
        root=path,
        source=lambda _: images,
    )
