"""The embedded sample: drawn faces in the real on-disk formats, and a network trained on them.

Everything here is drawn from numbers (`faces`), so it may be written, shown and shipped freely.
Each written folder holds a marker file, `evalkit-sample.json`, so that nobody takes its figures
for those of the data set whose format it has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from evalkit.datasets.errors import DatasetError
from evalkit.datasets.sample._write import (
    GENERATOR_VERSION,
    MARKER,
    Progress,
    atomic_folder,
    write_marker,
)
from evalkit.datasets.sample.ijb import SUBJECTS, write_ijb
from evalkit.datasets.sample.lfw import FILE_NAME as LFW_FILE_NAME
from evalkit.datasets.sample.lfw import PAIRS, write_lfw
from evalkit.datasets.sample.widerface import IMAGES, write_widerface

__all__ = [
    "GENERATOR_VERSION",
    "LFW_FILE_NAME",
    "MARKER",
    "Kind",
    "recognition_model",
    "sample_path",
    "write_sample",
]

Kind = Literal["ijbc", "ijbb", "lfw", "widerface"]

_SIZES = {"ijbc": SUBJECTS, "ijbb": SUBJECTS, "lfw": PAIRS, "widerface": IMAGES}
_LIMITS = {"ijbc": (2, 10_000), "ijbb": (2, 10_000), "lfw": (40, 100_000), "widerface": (1, 10_000)}
_MODELS = {"onnx": "recognition.onnx", "torchscript": "recognition.pt"}


def _count(kind: str, size: str | int) -> int:
    """Subjects, pairs or images of a named or given size."""
    if kind not in _SIZES:
        raise DatasetError(
            f"There is no sample {kind!r}", remedy=f"It is one of {', '.join(_SIZES)}."
        )
    if isinstance(size, str):
        if size not in _SIZES[kind]:
            names = ", ".join(_SIZES[kind])
            raise DatasetError(
                f"There is no size {size!r}", remedy=f"Give a whole number or {names}."
            )
        return _SIZES[kind][size]
    low, high = _LIMITS[kind]
    if not low <= size <= high or (kind == "lfw" and size % 20):
        step = " in steps of 20" if kind == "lfw" else ""
        raise DatasetError(
            f"Size {size} of the {kind} sample is out of range",
            remedy=f"Give {low} to {high}{step}.",
        )
    return size


def write_sample(
    kind: Kind,
    out: Path,
    *,
    size: str | int = "default",
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw a sample and write it in the real format.

    The folder appears complete or not at all. The same arguments give the same bytes.

    Parameters
    ----------
    kind : {'ijbc', 'ijbb', 'lfw', 'widerface'}
        The format.
    out : Path
        Folder to write, which must not exist or be empty.
    size : {'tiny', 'default', 'large'} or int
        A number is of subjects (IJB), pairs (LFW, a multiple of 20) or images (WIDER FACE).
    seed : int
        Another seed is another population of people.
    progress : callable, optional
        Called with (pictures done, pictures in all).

    Returns
    -------
    Path
        What a loader takes: `out`, or for LFW the `.bin` in it.

    Raises
    ------
    DatasetError
        For an unknown kind or size, or an `out` that is not empty.
    """
    count = _count(kind, size)
    with atomic_folder(out) as work:
        if kind == "lfw":
            plan = write_lfw(work, count, seed, progress)
        elif kind == "widerface":
            plan = write_widerface(work, count, seed, progress)
        else:
            plan = write_ijb(work, kind, count, seed, progress)
        write_marker(work, kind, seed, plan)
    return out / LFW_FILE_NAME if kind == "lfw" else out


def sample_path(
    kind: Kind,
    cache_dir: Path,
    *,
    size: str | int = "default",
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Path of a sample in a cache folder, written there on first use.

    The folder's name holds the generator's version, the size and the seed, so that a sample that
    another version drew is never mistaken for this one's. Parameters are those of `write_sample`.
    """
    name = f"evalkit-sample-{kind}-v{GENERATOR_VERSION}-{_count(kind, size)}-{seed}"
    out = cache_dir / name
    if not (out / MARKER).is_file():
        try:
            write_sample(kind, out, size=size, seed=seed, progress=progress)
        except (DatasetError, OSError):
            if not (out / MARKER).is_file():  # otherwise another process wrote it meanwhile
                raise
    return out / LFW_FILE_NAME if kind == "lfw" else out


def recognition_model(format: Literal["onnx", "torchscript"] = "onnx") -> Path:
    """Path of the packaged recognition network.

    It takes (n, 3, 112, 112) aligned RGB faces as (pixel - 127.5) / 127.5 and gives (n, 128)
    embeddings. Made by tools/train_recognition.py.
    """
    if format not in _MODELS:
        raise DatasetError(
            f"There is no format {format!r}", remedy=f"It is one of {', '.join(_MODELS)}."
        )
    return Path(__file__).parent / _MODELS[format]
