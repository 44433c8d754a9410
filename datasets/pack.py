"""Makes a verification set: pairs of image files into one ``.bin``."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.alignment import ARCFACE_SIZE, align
from evalkit.datasets.encoded import JPEG, PNG, decode, image_header
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.lfw import LfwPairs, load_bin
from evalkit.datasets.pairs import ImagePair, PairList

Image: TypeAlias = NDArray[np.uint8]
Align: TypeAlias = Callable[[Image, Path], Image]
"""From an image (height, width, 3), blue, green, red, and its file, to the aligned face in the
same channel order; a ValueError says why there is none."""

Encoding: TypeAlias = Literal["png", "jpeg"]

_PROTOCOL: Final = 4
"""Every Python since 3.4 reads it, and unlike protocol 2 it holds bytes as they are."""
_BEST_QUALITY: Final = 100


@dataclass(frozen=True, slots=True)
class Packed:
    """A verification set that was written.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the file.
    pairs, same, different : int
    images : int
        Distinct images; each is stored once, however many pairs it is in.
    warnings : tuple of str
    """

    path: Path
    sha256: str
    pairs: int
    same: int
    different: int
    images: int
    warnings: tuple[str, ...]


def pack(
    pairs: PairList,
    out: str | Path,
    *,
    align: Align | None = None,
    encoding: Encoding = "png",
    quality: int = 95,
) -> Packed:
    """Write a verification set that public scripts read too (``pickle.load``, JPEG or PNG).

    Parameters
    ----------
    pairs : PairList
        From `evalkit.datasets.pairs`. The file has them in the same order.
    out : path-like
        The file. An older one is replaced when the new one is complete.
    align : callable, optional
        Makes the face of an image; see `five_point_alignment`. Without it the images must be
        aligned faces already: square JPEG and PNG files are stored byte for byte.
    encoding : {'png', 'jpeg'}
        For faces that `align` makes, and images of other formats. PNG loses nothing. JPEG is a
        fifth of the size, but the second compression changes pixels, and so the figures.
    quality : int
        Of JPEG, 1 to 100.

    Raises
    ------
    DatasetError
        An image is missing, broken, not square, or gives no face; names the line of the list.
        Or the file cannot be written, or the quality is out of range.
    """
    out = Path(out)
    if not 1 <= quality <= _BEST_QUALITY:
        raise DatasetError(f"The quality is {quality}", remedy=f"JPEG takes 1 to {_BEST_QUALITY}.")
    _check_writable(out)
    encoded: dict[Path, bytes] = {}
    for pair in pairs.pairs:
        for image in (pair.first, pair.second):
            if image not in encoded:
                encoded[image] = _encoded(image, pair, pairs, align, encoding, quality)
    images = [encoded[image] for pair in pairs.pairs for image in (pair.first, pair.second)]
    labels = [pair.same for pair in pairs.pairs]
    written = _write(out, images, labels)
    return Packed(
        path=out,
        sha256=written.sha256,
        pairs=len(labels),
        same=sum(labels),
        different=len(labels) - sum(labels),
        images=len(encoded),
        warnings=written.warnings,
    )


def five_point_alignment(points: str | Path, images: str | Path, size: int = ARCFACE_SIZE) -> Align:
    """Return an alignment by five points, which a text file names for every image.

    Parameters
    ----------
    points : path-like
        Lines of an image's path and x1 y1 ... x5 y5 (left eye, right eye, nose, left and right
        mouth corner), separated by commas or spaces. A header and a twelfth column, such as a
        score, are ignored.
    images : path-like
        Folder that the paths start from.
    size : int
        Side of the aligned face.

    Raises
    ------
    DatasetError
        The file is missing or malformed; names the line.
    """
    table, folder = _read_points(Path(points)), Path(images)

    def aligned(image: Image, path: Path) -> Image:
        name = path.relative_to(folder).as_posix()
        if name not in table:
            raise ValueError(f"{points} has no points for {name}")
        return align(image, table[name], size)

    return aligned


def _check_writable(out: Path) -> None:
    """Check that the file can be written, before all images are read."""
    if out.is_dir():
        raise DatasetError(
            "This is a folder", path=out, remedy="Name the file to write, such as my.bin."
        )
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise _unwritable(out, error) from error


def _write(out: Path, images: list[bytes], labels: list[bool]) -> LfwPairs:
    """Write the file under another name, check that it can be read, and give it its name."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with temporary.open("xb") as file:
            pickle.dump((images, labels), file, protocol=_PROTOCOL)
        written = load_bin(temporary)
        temporary.replace(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return written


def _unwritable(out: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"The file cannot be written: {error.strerror}",
        path=out,
        remedy="Check that its folder exists and has room.",
    )


def _encoded(
    image: Path,
    pair: ImagePair,
    pairs: PairList,
    align: Align | None,
    encoding: Encoding,
    quality: int,
) -> bytes:
    try:
        return _made(image, align, encoding, quality)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error).rstrip(".")
        raise DatasetError(
            f"No face can be made of {image}: {why}",
            path=pairs.source,
            line=pair.line,
            remedy="Correct the image, or remove the line.",
        ) from error


def _made(path: Path, align: Align | None, encoding: Encoding, quality: int) -> bytes:
    data = path.read_bytes()
    image = decode(data)
    if align is not None:
        image = align(image, path)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"the alignment returned {image.dtype} of shape {image.shape}")
    height, width = image.shape[:2]
    if height != width:
        raise ValueError(f"it has {width}x{height} pixels, but a face is square; align it")
    if align is None and data.startswith((JPEG, PNG)):
        image_header(data)
        return data
    options = [] if encoding == "png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, buffer = cv2.imencode(".png" if encoding == "png" else ".jpg", image, options)
    if not done:
        raise ValueError(f"OpenCV cannot encode it as {encoding}")
    made: bytes = buffer.tobytes()
    return made


def _read_points(path: Path) -> Mapping[str, NDArray[np.float64]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            "The points cannot be read", path=path, remedy="Check the path; it is UTF-8 text."
        ) from error
    table = {}
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")] if "," in line else line.split()
        if not any(cells):
            continue
        try:
            if len(cells) not in (11, 12):
                raise ValueError
            values = np.array([float(cell) for cell in cells[1:11]]).reshape(5, 2)
            if not np.isfinite(values).all():
                raise ValueError
        except ValueError:
            if number == 1 and not any(map(_is_number, cells[1:])):
                continue  # a header
            raise DatasetError(
                "The line is not an image's path and ten finite numbers",
                path=path,
                line=number,
                remedy="Correct the line.",
            ) from None
        table[cells[0].replace("\\", "/")] = values
    return table


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
