"""The embedded sample: painted faces in the real on-disk formats, and networks trained on others.

The images are data files of the package and are read where they lie. tools/paint_sample.py of the
repository painted them from numbers, so they may be written, shown and shipped freely. Each folder
holds a marker file, `evalkit-sample.json`, so that nobody takes its figures for those of the data
set whose format it has.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, get_args

from evalkit.datasets.errors import DatasetError

__all__ = [
    "KINDS",
    "LFW_FILE_NAME",
    "SAMPLE_OF",
    "SIZES",
    "Content",
    "Kind",
    "Size",
    "atomic_folder",
    "calibration_path",
    "sample_path",
    "write_sample",
]

Kind = Literal["ijbc", "ijbb", "lfw", "widerface"]
Size = Literal["default", "tiny"]
Content = Literal["faces", "photographs"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""The formats of the sample."""

SIZES: Final[tuple[Size, ...]] = get_args(Size)
"""``tiny`` is for quick looks and tests."""

LFW_FILE_NAME: Final = "evalkit-sample-lfw.bin"

SAMPLE_OF: Final[Mapping[Content, Kind]] = {"faces": "lfw", "photographs": "widerface"}
"""The kind of sample that holds aligned faces, and the one that holds whole photographs."""

_DATA: Final = Path(__file__).parent / "data"
_FOLDERS: Final[Mapping[Kind, str]] = {
    "ijbc": "evalkit-sample-ijb",  # one release folder holds the meta files of both
    "ijbb": "evalkit-sample-ijb",
    "lfw": "evalkit-sample-lfw",
    "widerface": "evalkit-sample-widerface",
}


def sample_path(kind: Kind, size: Size = "default") -> Path:
    """Path of the packaged sample.

    Parameters
    ----------
    kind : {'ijbc', 'ijbb', 'lfw', 'widerface'}
        The format.
    size : {'default', 'tiny'}

    Returns
    -------
    Path
        What a loader takes: a folder, or for LFW the `.bin`. It may be read-only.

    Raises
    ------
    DatasetError
        There is no such kind or size.
    """
    return _entry(kind, _folder(kind, size))


def calibration_path(content: Content) -> Path:
    """Path of packaged images of other people than any that `sample_path` gives.

    Parameters
    ----------
    content : {'faces', 'photographs'}
        Aligned faces in a `.bin`, or scenes in the layout of WIDER FACE.
    """
    kind = SAMPLE_OF[content]
    return _entry(kind, _DATA / "calibration" / _FOLDERS[kind])


def write_sample(kind: Kind, out: Path, *, size: Size = "default") -> Path:
    """Copy the packaged sample to a folder of the user's.

    The folder appears complete or not at all.

    Parameters
    ----------
    kind : {'ijbc', 'ijbb', 'lfw', 'widerface'}
        The format.
    out : Path
        Folder to write, which must not exist or be empty.
    size : {'default', 'tiny'}

    Returns
    -------
    Path
        What a loader takes: `out`, or for LFW the `.bin` in it.

    Raises
    ------
    DatasetError
        For an unknown kind or size, or an `out` that is not empty.
    """
    source = _folder(kind, size)
    others = tuple(f"{other}_" for other in KINDS if other != kind)
    with atomic_folder(out) as work:
        for file in sorted(source.rglob("*")):
            if file.is_file() and not file.name.startswith(others):
                copy = work / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)  # without the mode: an installation may be read-only
    return _entry(kind, out)


def _folder(kind: Kind, size: Size) -> Path:
    if kind not in KINDS:
        raise DatasetError(
            f"There is no sample {kind!r}", remedy=f"It is one of {', '.join(KINDS)}."
        )
    if size not in SIZES:
        raise DatasetError(
            f"There is no size {size!r}",
            remedy=f"Give {' or '.join(SIZES)}. tools/paint_sample.py in evalkit's repository "
            "paints samples of any size.",
        )
    return _DATA / size / _FOLDERS[kind]


def _entry(kind: Kind, folder: Path) -> Path:
    return folder / LFW_FILE_NAME if kind == "lfw" else folder


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Give a temporary sibling of `out` to fill; it becomes `out` only if nothing fails.

    Raises
    ------
    DatasetError
        If `out` exists and is not an empty folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DatasetError("It already exists", path=out, remedy="Name a new or an empty folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        work.chmod(0o755)
        yield work
        work.replace(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
