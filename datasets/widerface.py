"""WIDER FACE: images by event, and their annotations with every flag."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.encoded import decode
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.faces import ImageFiles

FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
SPLITS = ("val", "train")

_COLUMNS = 4 + len(FLAGS)
_FLAG_VALUES = {0.0, 1.0, 2.0}
_REMEDY = "Take it from the official wider_face_split.zip."


@dataclass(frozen=True, slots=True, eq=False)
class WiderFace:
    """The images of a split, or of some of its events, and their annotated faces.

    Attributes
    ----------
    split : str
    annotations : Path
        The file that they were read from.
    images : WiderImages
        The pixels, one by one.
    offsets : ndarray of int64, shape (images + 1,)
        The faces of image i are ``boxes[offsets[i]:offsets[i + 1]]``.
    boxes : ndarray of float64, shape (faces, 4)
        x, y, width, height in pixels. An image without faces has one all-zero box, as in the
        official files; one official box has a negative width.
    flags : ndarray of int8, shape (faces, 6)
        `FLAGS` in order: blur (0 clear, 1 normal, 2 heavy), expression (0 typical, 1 exaggerated),
        illumination (0 normal, 1 extreme), invalid (0 no, 1 yes), occlusion (0 none, 1 partial,
        2 heavy), pose (0 typical, 1 atypical).
    """

    split: str
    annotations: Path
    images: WiderImages
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    flags: NDArray[np.int8]

    def take(self, rows: Sequence[int]) -> WiderFace:
        """Keep some images, by index, in the order of the indices."""
        spans = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        faces = np.concatenate([np.empty(0, np.int64), *spans])
        return WiderFace(
            split=self.split,
            annotations=self.annotations,
            images=self.images.take(rows),
            offsets=np.cumsum([0, *map(len, spans)], dtype=np.int64),
            boxes=self.boxes[faces],
            flags=self.flags[faces],
        )


class WiderImages(ImageFiles):
    """The images of a split.

    Parameters
    ----------
    folder : path
        That of the event folders.
    files : sequence of str
        ``event/image.jpg`` of each.
    """

    __slots__ = ("_files", "_folder")

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self._folder = folder
        self._files = tuple(files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def names(self) -> tuple[str, ...]:
        """``event/image`` of every image."""
        return tuple(self.name(index) for index in range(len(self)))

    def take(self, rows: Sequence[int]) -> WiderImages:
        """Keep some images, by index, in the order of the indices."""
        return WiderImages(self._folder, [self._files[row] for row in rows])

    def name(self, index: int) -> str:
        """Name of an image, ``event/image``, as prediction files use it."""
        return self._files[index].rpartition(".")[0]

    def path(self, index: int) -> Path:
        """File of an image."""
        return self._folder / self._files[index]

    def _image(self, index: int, data: bytes) -> NDArray[np.uint8]:
        return decode(data, rgb=True)


def load_widerface(
    root: str | Path,
    split: str = "val",
    *,
    annotations: str | Path | None = None,
    events: Collection[str] | None = None,
) -> WiderFace:
    """Find a split's images and read its annotations; no image is opened.

    Parameters
    ----------
    root : path
        Holds ``WIDER_val/images/<event>/*.jpg``, ``images/<event>/*.jpg`` or the events.
    split : {'val', 'train'}
    annotations : path, optional
        The file ``wider_face_val_bbx_gt.txt`` or its folder. By default the root is searched,
        then ``wider_face_split`` and ``ground_truth`` in it.
    events : collection of str, optional
        Only these, such as ``22--Picnic``.

    Raises
    ------
    DatasetError
        A file is missing or malformed, an event is unknown, or an image is not on disk.
    """
    root = Path(root)
    if split not in SPLITS:
        raise DatasetError(f"There is no split {split!r} with annotations; use val or train")
    if not root.is_dir():
        raise DatasetError("There is no such folder", path=root)
    path = _find_annotations(root, split, None if annotations is None else Path(annotations))
    files, tables = _read_annotations(path)
    if events is not None:
        files, tables = _only(files, tables, events, path)
    folder = image_folder(root, split)
    _check_presence(folder, files)
    table = np.concatenate([np.empty((0, _COLUMNS)), *tables])
    return WiderFace(
        split=split,
        annotations=path,
        images=WiderImages(folder, files),
        offsets=np.cumsum([0, *map(len, tables)], dtype=np.int64),
        boxes=np.ascontiguousarray(table[:, :4]),
        flags=table[:, 4:].astype(np.int8),
    )


def _find_annotations(root: Path, split: str, place: Path | None) -> Path:
    name = f"wider_face_{split}_bbx_gt.txt"
    if place is not None and place.is_file():
        return place
    folders = (root, root / "wider_face_split", root / "ground_truth") if place is None else [place]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(f"It holds no {name}", path=place or root, remedy=_REMEDY)


def image_folder(root: Path, split: str = "val") -> Path:
    """Return the folder of a split's events, there or not; see `load_widerface`."""
    for folder in (root / f"WIDER_{split}" / "images", root / "images"):
        if folder.is_dir():
            return folder
    return root


def _read_annotations(path: Path) -> tuple[list[str], list[NDArray[np.float64]]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"It cannot be read as text ({error})", path=path) from error
    lines = ((at, line.strip()) for at, line in enumerate(text.splitlines(), 1) if line.strip())
    files: list[str] = []
    tables = []
    for at, line in lines:
        files.append(_image_file(line, path, at))
        at, line = next(lines, (at, ""))  # noqa: PLW2901  (the record's second line)
        if not line.isdecimal():
            raise DatasetError(f"{line!r} is not a number of faces", path=path, line=at)
        # An image without faces still has one all-zero line.
        tables.append(_read_faces(lines, max(int(line), 1), path, at))
    if len(set(files)) != len(files):
        raise DatasetError("It names an image twice", path=path, remedy=_REMEDY)
    return files, tables


def _image_file(line: str, path: Path, at: int) -> str:
    parts = line.split("/")
    if len(parts) != 2 or {"", ".", ".."} & set(parts) or "\\" in line or "." not in parts[1]:
        raise DatasetError(f"{line!r} is not an image path event/image.jpg", path=path, line=at)
    return line


def _read_faces(
    lines: Iterator[tuple[int, str]], count: int, path: Path, at: int
) -> NDArray[np.float64]:
    rows = []
    for _ in range(count):
        at, line = next(lines, (at, ""))
        words = line.split()
        if len(words) != _COLUMNS:
            raise DatasetError(
                f"A face has {_COLUMNS} numbers (x y w h {' '.join(FLAGS)}), not {len(words)}",
                path=path,
                line=at,
                remedy="The flags are part of the annotation. " + _REMEDY,
            )
        try:
            rows.append([float(word) for word in words])
        except ValueError as error:
            raise DatasetError(f"{line!r} is not numbers", path=path, line=at) from error
        flags = rows[-1][4:]
        if not np.isfinite(rows[-1]).all() or not set(flags) <= _FLAG_VALUES:
            raise DatasetError(
                f"{line!r} is not a face: flags are 0, 1 or 2, coordinates finite",
                path=path,
                line=at,
            )
    return np.array(rows)


def _only(
    files: list[str], tables: list[NDArray[np.float64]], events: Collection[str], path: Path
) -> tuple[list[str], list[NDArray[np.float64]]]:
    unknown = sorted(set(events) - {PurePosixPath(file).parts[0] for file in files})
    if unknown:
        raise DatasetError(f"It has no event {', '.join(unknown)}", path=path)
    chosen = [i for i, file in enumerate(files) if PurePosixPath(file).parts[0] in events]
    return [files[i] for i in chosen], [tables[i] for i in chosen]


def _check_presence(folder: Path, files: Sequence[str]) -> None:
    events = dict.fromkeys(PurePosixPath(file).parts[0] for file in files)
    present = {
        f"{event}/{entry.name}"
        for event in events
        if (folder / event).is_dir()
        for entry in (folder / event).iterdir()
    }
    missing = [file for file in files if file not in present]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(files)} images are missing, the first {missing[0]}",
            path=folder,
            remedy="Unpack WIDER_val.zip here, or name the events that are on disk.",
        )
