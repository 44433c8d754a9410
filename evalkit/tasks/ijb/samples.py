"""A release as samples: its faces, and who is on them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.core.files import cache_dir, sha256_json
from evalkit.core.results import DatasetInfo
from evalkit.datasets.ijb import IjbRelease, Protocol, load_ijb, subset
from evalkit.run.overlap import People
from evalkit.tasks.base import Samples
from evalkit.tasks.ijb.settings import IjbSettings


def load_samples(root: Path, protocol: Protocol, settings: IjbSettings) -> Samples:
    """Load a release, or the subjects of it that ``--limit`` leaves.

    Raises
    ------
    evalkit.datasets.errors.DatasetError
        A file is missing or damaged, or the files are not of one release.
    """
    ready = settings.features or settings.templates or settings.scores
    whole = load_ijb(root, protocol, cache_dir=cache_dir() / "tables", need_images=not ready)
    limited = settings.limit is not None and settings.limit < len(whole.images)
    release = whole
    if settings.limit is not None and limited:
        release = subset(whole, settings.limit)
    people, groups = people_of(whole, release)
    identity = _identity(release)
    return Samples(
        dataset=DatasetInfo(
            name=release.name,
            sha256=release.fingerprint,
            content_sha256=None,
            annotations_sha256=identity,
            counts={
                "faces": len(release.images),
                "templates": len(np.unique(release.template_id)),
                "genuine": int(np.count_nonzero(release.genuine)),
                "impostors": int(np.count_nonzero(~release.genuine)),
            },
            path=str(release.root),
        ),
        fingerprint=identity,
        root=release.root,
        source=release.faces,
        partial=limited,
        groups=groups,
        people=people,
        warnings=release.warnings,
        data=release,
    )


def people_of(whole: IjbRelease, part: IjbRelease) -> tuple[People, NDArray[np.int64]]:
    """Name the people of a part of a release, and say by number who is on each of its faces."""
    subjects = whole.subjects()
    faces = whole.template_id[np.isin(whole.template_id, part.template_id)]
    ids, groups = np.unique(subjects.subject_of(faces), return_inverse=True)
    named = whole.galleries is not None and whole.probes is not None
    own = f"{whole.name} {whole.fingerprint[:8]}"  # numbers that mean nothing elsewhere
    kind = f"{whole.protocol if named else own} subject"
    people = People(
        names=tuple(f"{kind} {number}" for number in ids),
        data=whole.name,
        sha256=whole.fingerprint,
        path=whole.root,
        official=whole.official,
    )
    return people, groups.astype(np.int64)


def _identity(release: IjbRelease) -> str:
    """Hash what says which faces there are; the store checks the images themselves."""
    return sha256_json(
        [dict(release.meta_sha256), hashlib.sha256(release.images.tobytes()).hexdigest()]
    )
