"""Writes a release folder of painted faces that serves as IJB-B and as IJB-C."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from sample_painter.photo import Photo, photograph
from sample_painter.writing import Progress, in_threads

HARDNESS = 1.0
WIDTHS = (56, 160)  # pixels of a crop
GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
"""By the prefix of a release's meta files, how its two galleries are called."""
_PLAN = 4  # the stream of random numbers that lays out templates


@dataclass(frozen=True, slots=True)
class _Face:
    template: int
    media: int
    subject: int
    image: int
    frame: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """Faces in the order of the meta files, and each template's subject."""

    faces: list[_Face]
    gallery: dict[int, int]
    probe: dict[int, int]


def probes_of(subjects: int) -> int:
    """Probe templates of a subject: fewer in a large release, which has many pairs as it is."""
    return 4 if subjects < 100 else 2


def _plan(seed: int, subjects: int) -> _Plan:
    """Give each subject one gallery template of stills and some probes of stills and videos.

    Template numbers have gaps and the rows are shuffled, as loaders must allow for.
    """
    rng = np.random.default_rng((seed, _PLAN))
    faces: list[_Face] = []
    gallery: dict[int, int] = {}
    probe: dict[int, int] = {}
    template = media = 0
    for role, subject in [
        *(("gallery", s) for s in range(subjects)),
        *(("probe", s) for s in range(subjects) for _ in range(probes_of(subjects))),
    ]:
        template += int(rng.integers(1, 4))
        (gallery if role == "gallery" else probe)[template] = subject
        many = rng.integers(2, 5) if role == "gallery" else rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])
        for _ in range(int(many)):
            media += 1
            video = role == "probe" and rng.random() < 0.4
            frames = int(rng.integers(2, 5)) if video else 1
            faces += [_Face(template, media, subject, media, frame) for frame in range(frames)]
    order = rng.permutation(len(faces))
    return _Plan([faces[i] for i in order], gallery, probe)


def _photo(seed: int, face: _Face) -> Photo:
    return photograph(
        seed, face.subject, face.image, hardness=HARDNESS, frame=face.frame, widths=WIDTHS
    )


def _write_tables(meta: Path, prefix: str, parts: tuple[str, str], plan: _Plan) -> None:
    names: dict[int, list[str]] = {}
    for row, face in enumerate(plan.faces, start=1):
        names.setdefault(face.template, []).append(f"{row}.jpg")
    (meta / f"{prefix}_face_tid_mid.txt").write_text(
        "".join(f"{r}.jpg {f.template} {f.media}\n" for r, f in enumerate(plan.faces, start=1))
    )
    (meta / f"{prefix}_template_pair_label.txt").write_text(
        "".join(
            f"{one} {two} {int(who == other)}\n"
            for (one, who), (two, other) in product(plan.gallery.items(), plan.probe.items())
        )
    )
    half = (len(plan.gallery) + 1) // 2
    tables = {
        f"gallery_{parts[0]}": {t: s for t, s in plan.gallery.items() if s < half},
        f"gallery_{parts[1]}": {t: s for t, s in plan.gallery.items() if s >= half},
        "probe_mixed": plan.probe,
    }
    for name, templates in tables.items():
        rows = (f"{t},{s + 1},{n}\n" for t, s in templates.items() for n in names[t])
        (meta / f"{prefix}_1N_{name}.csv").write_text(
            "TEMPLATE_ID,SUBJECT_ID,FILENAME\n" + "".join(rows)
        )


def write_ijb(
    folder: Path, subjects: int, seed: int, progress: Progress | None
) -> dict[str, int | float]:
    """Fill `folder` with `loose_crop/` and the meta files of both releases, which differ in names.

    Every gallery template is paired with every probe template. Subject numbers in the 1:N files
    count from 1; the first half of the subjects forms the first gallery.

    Returns
    -------
    dict
        The sample's parameters, for its marker.
    """
    plan = _plan(seed, subjects)
    crops, meta = folder / "loose_crop", folder / "meta"
    crops.mkdir()
    meta.mkdir()

    def draw(task: tuple[int, _Face]) -> str:
        row, face = task
        photo = _photo(seed, face)
        (crops / f"{row}.jpg").write_bytes(photo.jpeg)
        points = " ".join(f"{value:.2f}" for value in photo.points.ravel())
        return f"{row}.jpg {points} {photo.score:.4f}\n"

    rows = in_threads(draw, list(enumerate(plan.faces, start=1)), progress)
    for prefix, parts in GALLERIES.items():
        (meta / f"{prefix}_name_5pts_score.txt").write_text("".join(rows))
        _write_tables(meta, prefix, parts, plan)
    return {
        "subjects": subjects,
        "faces": len(plan.faces),
        "templates": len(plan.gallery) + len(plan.probe),
        "pairs": len(plan.gallery) * len(plan.probe),
        "hardness": HARDNESS,
    }
