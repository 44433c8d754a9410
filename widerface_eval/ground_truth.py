"""Reading of the ground truth, from the official ``.mat`` files or from the text files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from evalkit.widerface_eval.errors import WiderFaceError, listed
from evalkit.widerface_eval.records import SUBSETS, GroundTruth, offsets_of

FACES_MAT = "wider_face_val.mat"
FACES_TXT = "wider_face_val_bbx_gt.txt"
_REMEDY = "Fetch the official evaluation tools' ground_truth folder anew."
_MOST_DIGITS = 9  # of a count or a face's number: far above any, far below int64's end


def read_ground_truth(folder: str | Path) -> GroundTruth:
    """Read the validation split's faces and its three subsets.

    The faces are those of ``wider_face_val.mat`` or, where it is absent, of
    ``wider_face_val_bbx_gt.txt``. A subset is ``wider_easy_val.mat`` or, where it is absent,
    ``wider_easy_val.txt``, with one line for every image: its path, then the 1-based numbers of
    the faces kept. A subset's ``.mat`` must have the same boxes as the faces' file, except that a
    negative size may be 0 in one of them. Easy must lie within medium, and medium within hard.

    Parameters
    ----------
    folder : path
        Folder of these files.

    Raises
    ------
    WiderFaceError
        A file is missing or malformed, or the files do not belong together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise WiderFaceError(f"{folder}: there is no such folder of ground truth.")
    images, boxes = _read_faces(folder)
    counts = [len(block) for block in boxes]
    subsets = {}
    for subset in SUBSETS:
        kept = _read_subset(folder, subset, images, boxes)
        subsets[subset] = _flags(kept, counts, images, folder, subset)
    truth = GroundTruth(
        images=tuple(images),
        offsets=offsets_of(counts),
        boxes=np.concatenate([np.empty((0, 4)), *boxes]),
        subsets=subsets,
    )
    _check_nested(folder, truth)
    return truth


def _check_nested(folder: Path, truth: GroundTruth) -> None:
    """Refuse subsets that do not lie within each other, such as files with exchanged names."""
    for smaller, larger in pairwise(SUBSETS):
        alone = np.flatnonzero(truth.subsets[smaller] & ~truth.subsets[larger])
        if len(alone):
            image = truth.image_of[alone[0]]
            raise WiderFaceError(
                f"{_subset_path(folder, smaller)}: it keeps face "
                f"{alone[0] - truth.offsets[image] + 1} of {truth.images[image]} (and "
                f"{len(alone) - 1} more), which {_subset_path(folder, larger).name} does not keep. "
                f"{smaller} must lie within {larger}: are the names of files exchanged, or are "
                f"they of different releases? {_REMEDY}"
            )


def _subset_path(folder: Path, subset: str) -> Path:
    path = folder / f"wider_{subset}_val.mat"
    return path if path.is_file() else path.with_suffix(".txt")


def _read_faces(folder: Path) -> tuple[list[str], list[NDArray[np.float64]]]:
    if (folder / FACES_MAT).is_file():
        mat = _load(folder / FACES_MAT, ["event_list", "file_list", "face_bbx_list"])
        boxes = [block.reshape(-1, 4).astype(float) for block in _cells(mat, "face_bbx_list")]
        return _names(mat), boxes
    if (folder / FACES_TXT).is_file():
        return read_annotation_text(folder / FACES_TXT)
    raise WiderFaceError(f"{folder}: it holds neither {FACES_MAT} nor {FACES_TXT}. {_REMEDY}")


def _read_subset(
    folder: Path, subset: str, images: list[str], boxes: list[NDArray[np.float64]]
) -> list[NDArray[np.int64]]:
    """1-based numbers of the kept faces, one array an image."""
    path = _subset_path(folder, subset)
    if path.suffix == ".txt":
        return _read_subset_text(path, images)
    mat = _load(path, ["event_list", "file_list", "face_bbx_list", "gt_list"])
    if _names(mat) != images:
        raise WiderFaceError(f"{path}: its images are not those of the faces' file. {_REMEDY}")
    _check_boxes(path, images, boxes, _cells(mat, "face_bbx_list"))
    return [numbers.ravel().astype(np.int64) for numbers in _cells(mat, "gt_list")]


def _check_boxes(
    path: Path,
    images: Sequence[str],
    ours: list[NDArray[np.float64]],
    theirs: list[NDArray[Any]],
) -> None:
    """Refuse boxes that differ from the faces' file: the kept numbers count the subset's boxes."""
    for image, block, other in zip(images, ours, theirs, strict=True):
        if len(block) != len(other):
            raise WiderFaceError(
                f"{path}: {image} has {len(other)} faces, but {len(block)} in the faces' file. "
                f"{_REMEDY}"
            )
    mine = np.concatenate([np.empty((0, 4)), *ours])
    its = np.concatenate([np.empty((0, 4)), *(block.reshape(-1, 4) for block in theirs)])
    # One official width is -2, and 0 in some copies of the text: no size either way.
    sizes_agree = np.maximum(mine[:, 2:], 0) == np.maximum(its[:, 2:], 0)
    agree = (mine[:, :2] == its[:, :2]).all(axis=1) & sizes_agree.all(axis=1)
    if not agree.all():
        face = int(np.argmin(agree))
        offsets = offsets_of([len(block) for block in ours])
        at = int(np.searchsorted(offsets, face, side="right")) - 1
        raise WiderFaceError(
            f"{path}: its face {face - offsets[at] + 1} of {images[at]} is {its[face].tolist()}, "
            f"but {mine[face].tolist()} in the faces' file, and {np.sum(~agree) - 1} more differ. "
            f"They are of different releases, or one was edited. {_REMEDY}"
        )


def _flags(
    kept: list[NDArray[np.int64]],
    counts: Sequence[int],
    images: Sequence[str],
    folder: Path,
    subset: str,
) -> NDArray[np.bool_]:
    flags = [np.zeros(count, bool) for count in counts]
    for image, count, numbers, flag in zip(images, counts, kept, flags, strict=True):
        if np.any((numbers < 1) | (numbers > count)):
            raise WiderFaceError(
                f"{folder}: the subset {subset!r} keeps face {int(numbers.max())} of {image}, "
                f"which has {count}. {_REMEDY}"
            )
        flag[numbers - 1] = True
    return np.concatenate([np.empty(0, bool), *flags])


def _load(path: Path, variables: list[str]) -> dict[str, Any]:
    try:
        mat: dict[str, Any] = scipy.io.loadmat(path, variable_names=variables)
    except Exception as error:  # on broken bytes SciPy raises nearly anything
        raise WiderFaceError(f"{path}: it is not a MATLAB 5 file ({error}). {_REMEDY}") from error
    missing = [name for name in variables if name not in mat]
    if missing:
        raise WiderFaceError(f"{path}: it has no variable {listed(missing)}. {_REMEDY}")
    return {**mat, "path": path}


def _names(mat: dict[str, Any]) -> list[str]:
    try:
        return [
            f"{event[0]}/{image[0][0]}"
            for (event,), (files,) in zip(mat["event_list"], mat["file_list"], strict=True)
            for image in files
        ]
    except (ValueError, TypeError, IndexError) as error:
        raise WiderFaceError(
            f"{mat['path']}: event_list and file_list are not the official cells. {_REMEDY}"
        ) from error


def _cells(mat: dict[str, Any], name: str) -> list[NDArray[Any]]:
    """One array an image, of a cell of events with cells of images."""
    try:
        cells = [cell for (images,) in mat[name] for (cell,) in images]
        if len(cells) != len(_names(mat)):
            raise ValueError
        filled = [cell for cell in cells if cell.size]
        if not all(_is_sound(cell, name == "face_bbx_list") for cell in filled):
            raise ValueError
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise WiderFaceError(
            f"{mat['path']}: {name} is not the official cells, one array an image. {_REMEDY}"
        ) from error
    return cells


def _is_sound(cell: NDArray[Any], boxes: bool) -> bool:
    """Whether a cell is boxes of four numbers, or whole numbers of faces."""
    if cell.dtype.kind not in "iuf":
        return False
    if boxes:
        return cell.ndim == 2 and cell.shape[1] == 4
    if cell.dtype.kind == "f" and not np.all(np.abs(cell) < 10**_MOST_DIGITS):  # also for NaN
        return False
    return bool(np.all(cell == np.floor(cell)))


def read_annotation_text(path: str | Path) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Read images and boxes of a ``wider_face_*_bbx_gt.txt``.

    An image without faces has the count 0 and yet one all-zero line. That line is read as a box,
    as in the official ``.mat`` files.

    Returns
    -------
    images : list of str
        ``event/image``, without suffix.
    boxes : list of ndarray of float64, shape (n, 4)
        x, y, width, height.

    Raises
    ------
    WiderFaceError
        A line is malformed.
    """
    path = Path(path)
    images: list[str] = []
    boxes: list[NDArray[np.float64]] = []
    lines = _lines(path)
    for at, line in lines:
        if "/" not in line:
            raise WiderFaceError(f"{path}:{at}: {line!r} is not an image path event/image.jpg.")
        images.append(without_suffix(line))
        at, line = next(lines, (at, ""))  # noqa: PLW2901  (the record's second line)
        if not line.isdecimal() or len(line) > _MOST_DIGITS:
            raise WiderFaceError(
                f"{path}:{at}: {line[:20]!r} is not a number of faces of {images[-1]}."
            )
        boxes.append(_read_boxes(path, lines, max(int(line), 1), images[-1]))
    if len(set(images)) != len(images):
        twice = sorted({image for image in images if images.count(image) > 1})
        raise WiderFaceError(f"{path}: it names an image twice: {listed(twice)}.")
    return images, boxes


def _read_boxes(
    path: Path, lines: Iterator[tuple[int, str]], count: int, image: str
) -> NDArray[np.float64]:
    rows = []
    for _ in range(count):
        at, line = next(lines, (0, ""))
        if not line:
            raise WiderFaceError(f"{path}: it ends within the faces of {image}. {_REMEDY}")
        try:
            left, top, width, height = (float(word) for word in line.split()[:4])
        except ValueError as error:
            raise WiderFaceError(f"{path}:{at}: {line!r} is not a face x y w h ... .") from error
        rows.append([left, top, width, height])
    return np.array(rows, np.float64)


def _read_subset_text(path: Path, images: Sequence[str]) -> list[NDArray[np.int64]]:
    if not path.is_file():
        raise WiderFaceError(
            f"{path.parent}: it holds neither {path.stem}.mat nor {path.name}. {_REMEDY}"
        )
    kept: dict[str, NDArray[np.int64]] = {}
    for at, line in _lines(path):
        image, *numbers = line.split()
        if not all(number.isdecimal() for number in numbers):
            raise WiderFaceError(
                f"{path}:{at}: write whole numbers of faces to keep after the image."
            )
        beyond = [number for number in numbers if len(number.lstrip("0")) > _MOST_DIGITS]
        if beyond:
            raise WiderFaceError(
                f"{path}:{at}: it keeps face {beyond[0][:20]} of {image}, which has fewer. "
                "Correct the number."
            )
        if without_suffix(image) in kept:
            raise WiderFaceError(f"{path}:{at}: it names {image} a second time.")
        kept[without_suffix(image)] = np.array(numbers, np.int64)
    if set(kept) != set(images):
        odd = sorted(set(kept) ^ set(images))
        raise WiderFaceError(
            f"{path}: its images are not those of the faces' file: {listed(odd)}. "
            "List every image once, also where no face is kept."
        )
    return [kept[image] for image in images]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank, stripped."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WiderFaceError(f"{path}: it cannot be read as text ({error}).") from error
    stripped = ((at, line.strip()) for at, line in enumerate(text.splitlines(), 1))
    return (pair for pair in stripped if pair[1])


def without_suffix(name: str) -> str:
    """Drop an image's suffix, and nothing else.

    Examples
    --------
    >>> without_suffix("0--Parade/a_big_jpg.jpg"), without_suffix("0--Parade/v1.5")
    ('0--Parade/a_big_jpg', '0--Parade/v1.5')
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix.lower() in {"jpg", "jpeg", "png"} else name
