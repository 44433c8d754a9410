"""IJB-B and IJB-C release folders: faces, templates, pairs and galleries."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evalkit.datasets.errors import DatasetError
from evalkit.datasets.faces import AlignedFaces
from evalkit.datasets.ijb_checks import (
    RELEASE_AGAIN,
    Enrolment,
    OneToN,
    check_faces,
    check_templates_have_faces,
    odd_pairs,
    positions,
    read_one_to_n,
)
from evalkit.datasets.tables import Field, Table, read_table

Protocol = Literal["IJBB", "IJBC"]

MARKER: Final = "evalkit-sample.json"
"""File in a release folder that names a data set which is not the published one."""

_FACES: Final = (Field("image", "text"), Field("template", "int"), Field("media", "int"))
_POINTS: Final = (Field("image", "text"), Field("points", "float", 10), Field("score", "float"))
_PAIRS: Final = (Field("templates", "int", 2), Field("label", "flag"))


class _Published(NamedTuple):
    """Counts of a published release, and the names of its galleries."""

    name: str
    galleries: tuple[str, str]
    faces: int
    templates: int
    genuine: int
    impostor: int


_PUBLISHED: Final[Mapping[Protocol, _Published]] = {
    "IJBB": _Published("IJB-B", ("S1", "S2"), 227_630, 12_115, 10_270, 8_000_000),
    "IJBC": _Published("IJB-C", ("G1", "G2"), 469_375, 23_124, 19_557, 15_638_932),
}


@dataclass(frozen=True, slots=True, eq=False)
class IjbRelease:
    """A release, checked and ready to be evaluated.

    Attributes
    ----------
    protocol : {"IJBB", "IJBC"}
        Which release's layout the folder has.
    name : str
        ``IJB-B`` or ``IJB-C`` only where the counts are the published ones; else the marker
        file's name, or protocol and folder.
    root : Path
        The release folder.
    images : ndarray of shape (n,), bytes
        Names of the loose crops, one a face.
    points : ndarray of shape (n, 5, 2), float32
        Five points of each face, in pixels of its crop.
    detector_score : ndarray of shape (n,), float32
    template_id, media_id : ndarray of shape (n,), int32
    pairs : ndarray of shape (m, 2), int32
        Template ids to compare.
    genuine : ndarray of shape (m,), bool
        Whether the two templates of a pair are of one subject.
    galleries : mapping of str to Enrolment, or None
        The 1:N galleries (``G1`` and ``G2``, ``S1`` and ``S2`` for IJB-B), None without 1:N files.
    probes : Enrolment or None
        The 1:N probes.
    fingerprint : str
        SHA-256 over the meta files and the names and sizes of the images.
    meta_sha256 : mapping of str to str
        SHA-256 of each meta file.
    official : bool
        Whether the counts are those of the published release.
    warnings : tuple of str
        What is odd but does not stop an evaluation.
    """

    protocol: Protocol
    name: str
    root: Path
    images: NDArray[np.bytes_]
    points: NDArray[np.float32]
    detector_score: NDArray[np.float32]
    template_id: NDArray[np.int32]
    media_id: NDArray[np.int32]
    pairs: NDArray[np.int32]
    genuine: NDArray[np.bool_]
    galleries: Mapping[str, Enrolment] | None
    probes: Enrolment | None
    fingerprint: str
    meta_sha256: Mapping[str, str]
    official: bool
    warnings: tuple[str, ...]

    def faces(self, size: int = 112) -> AlignedFaces:
        """Make the source of decoded and aligned faces, in the order of `images`."""
        return AlignedFaces(self.root / "loose_crop", self.images, self.points, size)

    def subjects(self) -> Enrolment:
        """Subject of every template that has a face.

        From the 1:N files where they name them all; else the connected components of the
        genuine pairs, numbered from 0.
        """
        templates = np.unique(self.template_id)
        if self.galleries is not None and self.probes is not None:
            parts = [*self.galleries.values(), self.probes]
            ids = np.concatenate([part.template_id for part in parts])
            known, first = np.unique(ids, return_index=True)
            if np.isin(templates, known).all():
                subjects = np.concatenate([part.subject_id for part in parts])[first]
                return Enrolment(templates, Enrolment(known, subjects).subject_of(templates))
        links = positions(templates, self.pairs[self.genuine])
        graph = coo_array(
            (np.ones(len(links), np.int8), (links[:, 0], links[:, 1])),
            shape=(len(templates), len(templates)),
        )
        return Enrolment(templates, connected_components(graph, directed=False)[1])


def load_ijb(
    path: str | Path,
    protocol: Protocol = "IJBC",
    *,
    cache_dir: str | Path | None = None,
    need_images: bool = True,
    progress: Callable[[str], None] | None = None,
) -> IjbRelease:
    """Read the meta files of a release folder and check every join between them.

    The names in the meta files must stay inside ``loose_crop/``. Symbolic links are followed: only
    the owner of the folder can put them there.

    Parameters
    ----------
    path : path-like
        The release folder (with ``meta/`` and ``loose_crop/``) or its parent.
    protocol : {"IJBB", "IJBC"}
        Which release it is.
    cache_dir : path-like, optional
        Folder that keeps the parsed tables; see `evalkit.datasets.tables.read_table`.
    need_images : bool
        Whether ``loose_crop/`` must be there. Features computed elsewhere need no images; then
        the fingerprint is over the meta files and the images' names alone.
    progress : callable, optional
        Called with the name of each step before it starts.

    Raises
    ------
    DatasetError
        A file is missing, malformed or does not fit the others.
    """
    root = _release_folder(Path(path), protocol, need_images)
    step = progress or (lambda _: None)

    def read(suffix: str, fields: tuple[Field, ...]) -> Table:
        file = root / "meta" / f"{protocol.lower()}_{suffix}.txt"
        step(f"reading {file.name}")
        return read_table(file, fields, cache_dir=cache_dir)

    faces = read("face_tid_mid", _FACES)
    points = read("name_5pts_score", _POINTS)
    pairs = read("template_pair_label", _PAIRS)
    step("checking the meta files")
    check_faces(faces, points)
    check_templates_have_faces(pairs, pairs.columns["templates"], faces)
    warnings = odd_pairs(pairs)
    prefix = root / "meta" / f"{protocol.lower()}_1N"
    one_to_n = read_one_to_n(prefix, _PUBLISHED[protocol].galleries, faces, pairs)
    step("listing the images")
    sizes = _image_sizes(root / "loose_crop", faces) if need_images else np.empty(0, np.int64)
    release = _release(root, protocol, (faces, points, pairs), one_to_n, sizes)
    return replace(release, warnings=(*warnings, *release.warnings))


def _release(
    root: Path,
    protocol: Protocol,
    tables: tuple[Table, Table, Table],
    one_to_n: OneToN,
    sizes: NDArray[np.int64],
) -> IjbRelease:
    """Put the release together from its tables of faces, points and pairs."""
    faces, points, pairs = tables
    images = faces.columns["image"]
    meta_sha256 = {table.path.name: table.sha256 for table in (*tables, *one_to_n.tables)}
    name, official = _name(root, protocol, faces, pairs)
    return IjbRelease(
        protocol=protocol,
        name=name,
        root=root,
        images=images,
        points=points.columns["points"].reshape(-1, 5, 2),
        detector_score=points.columns["score"],
        template_id=faces.columns["template"],
        media_id=faces.columns["media"],
        pairs=pairs.columns["templates"],
        genuine=pairs.columns["label"],
        galleries=one_to_n.galleries,
        probes=one_to_n.probes,
        fingerprint=_fingerprint(meta_sha256, images, sizes),
        meta_sha256=MappingProxyType(meta_sha256),
        official=official,
        warnings=(*one_to_n.warnings, *_missing_images(faces, sizes)),
    )


def subset(release: IjbRelease, faces: int) -> IjbRelease:
    """Take whole subjects, in the order of the face file, for a quick look.

    Parameters
    ----------
    release : IjbRelease
        The whole.
    faces : int
        Subjects are added until there are at least so many faces, two subjects, and a pair.

    Returns
    -------
    IjbRelease
        With the pairs, gallery and probe templates among those subjects only; never official,
        and with a name and a fingerprint of its own.
    """
    if faces < 1:
        raise ValueError(f"A subset needs at least one face, not {faces}.")
    subjects = release.subjects()
    subject_of_face = subjects.subject_of(release.template_id)
    ids, first, counts = np.unique(subject_of_face, return_index=True, return_counts=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    ranked = Enrolment(subjects.template_id, rank[positions(ids, subjects.subject_id)])
    left, right = (ranked.subject_of(release.pairs[:, side]) for side in (0, 1))
    pair_rank = np.maximum(left, right)
    enough = int(np.searchsorted(np.cumsum(counts[order]), faces)) + 1
    taken = max(enough, 2, int(pair_rank.min()) + 1)
    chosen = subjects.template_id[ranked.subject_id < taken]
    rows = np.isin(release.template_id, chosen)
    pairs = pair_rank < taken
    galleries = {name: part.among(chosen) for name, part in (release.galleries or {}).items()}
    digest = hashlib.sha256(f"{release.fingerprint} {release.protocol} {taken}".encode())
    return replace(
        release,
        name=f"{release.name}:first-{int(rows.sum())}-faces",
        images=release.images[rows],
        points=release.points[rows],
        detector_score=release.detector_score[rows],
        template_id=release.template_id[rows],
        media_id=release.media_id[rows],
        pairs=release.pairs[pairs],
        genuine=release.genuine[pairs],
        galleries=None if release.galleries is None else MappingProxyType(galleries),
        probes=None if release.probes is None else release.probes.among(chosen),
        fingerprint=digest.hexdigest(),
        official=False,
    )


def _release_folder(path: Path, protocol: Protocol, need_images: bool) -> Path:
    for folder in (path, path / protocol):
        if (folder / "meta").is_dir():
            _check_protocol(folder, protocol)
            if need_images and not (folder / "loose_crop").is_dir():
                raise DatasetError(
                    "The folder has meta/ but no loose_crop/",
                    path=folder,
                    remedy="Unpack the loose crops of the release there.",
                )
            return folder
    _check_protocol(path, protocol)
    raise DatasetError(
        f"This is not an {protocol} release folder: neither meta/ nor {protocol}/meta/ is in it",
        path=path,
        remedy=f"Name the folder that holds meta/ and loose_crop/, or the one that holds "
        f"{protocol}/.",
    )


def _check_protocol(folder: Path, protocol: Protocol) -> None:
    """Refuse a folder that holds the other release only."""

    def holds(name: str) -> bool:
        faces = f"{name.lower()}_face_tid_mid.txt"
        return any((folder / place / faces).is_file() for place in ("meta", f"{name}/meta"))

    other = "IJBC" if protocol == "IJBB" else "IJBB"
    if holds(other) and not holds(protocol):
        raise DatasetError(
            f"This is an {other} release folder, not one of {protocol}",
            path=folder,
            remedy=f"Run 'evalkit {other.lower()}', or name the folder of {protocol}.",
        )


def _image_sizes(folder: Path, faces: Table) -> NDArray[np.int64]:
    """Bytes of each image file; -1 where it is missing."""
    start = os.fsencode(folder)
    sizes = np.full(len(faces), -1, np.int64)
    for row, name in enumerate(faces.columns["image"].tolist()):
        try:
            sizes[row] = os.stat(os.path.join(start, name)).st_size  # noqa: PTH116, PTH118
        except OSError:
            continue
        except ValueError as error:
            raise DatasetError(
                f"The image {os.fsdecode(name)!r} has a name that no file can have",
                path=faces.path,
                line=faces.line_of(row),
                remedy=RELEASE_AGAIN,
            ) from error
    return sizes


def _missing_images(faces: Table, sizes: NDArray[np.int64]) -> list[str]:
    missing = np.flatnonzero(sizes < 0)
    if not len(missing):
        return []
    first = os.fsdecode(faces.columns["image"][missing[0]])
    return [
        f"{len(missing)} of {len(sizes)} images are missing from loose_crop/, the first {first}."
    ]


def _fingerprint(
    meta_sha256: Mapping[str, str], images: NDArray[np.bytes_], sizes: NDArray[np.int64]
) -> str:
    digest = hashlib.sha256(json.dumps(meta_sha256, sort_keys=True).encode())
    digest.update(b"\n".join(images.tolist()))
    digest.update(sizes.astype("<i8").tobytes())
    return digest.hexdigest()


def _name(root: Path, protocol: Protocol, faces: Table, pairs: Table) -> tuple[str, bool]:
    """Name of the data set, and whether it is the published one by its counts."""
    marker = root / MARKER
    if marker.is_file():
        return _marked_name(marker), False
    published = _PUBLISHED[protocol]
    genuine = int(np.count_nonzero(pairs.columns["label"]))
    counts = (
        len(faces),
        len(np.unique(faces.columns["template"])),
        genuine,
        len(pairs) - genuine,
    )
    if counts == published[2:]:
        return published.name, True
    folder = root.resolve()
    known_as = folder.parent.name if folder.name == protocol else folder.name
    return f"{protocol.lower()}:{known_as}", False


def _marked_name(marker: Path) -> str:
    try:
        name = json.loads(marker.read_text("utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            "It does not hold the data set's name",
            path=marker,
            remedy='Write {"name": "..."} into it, or remove it.',
        ) from error
    taken = [published.name for published in _PUBLISHED.values()]
    if not isinstance(name, str) or not name.strip() or name.strip().upper() in taken:
        raise DatasetError(
            f"The name {name!r} is not one that other data may have",
            path=marker,
            remedy=f"Choose a name other than {' and '.join(taken)}.",
        )
    return name.strip()
