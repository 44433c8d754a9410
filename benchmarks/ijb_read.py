"""Time the reading of IJB-C's meta files: 15,658,489 pairs and two files of 469,375 faces.

    python benchmarks/ijb_read.py [--repeat 5] [--reference-rows 1000000] [--scale 1]

Writes seeded files in the release's layout into a temporary folder, then reads them from text,
from text while filling the cache, and from the cache. The slow reference beside it is a plain
loop over lines; it reads only the first rows of each file, and its time is scaled up by rows.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from evalkit.datasets.ijb import MARKER, load_ijb, subset
from evalkit.datasets.tables import Field, read_table


class Counts(NamedTuple):
    """Of a release: faces, templates of both kinds, and pairs of them."""

    faces: int = 469_375
    gallery: int = 3_531
    probes: int = 19_593
    pairs: int = 15_658_489

    def scaled(self, scale: float) -> Counts:
        """Take a share of the templates, and so the square of it of the pairs."""
        faces, gallery, probes = (round(scale * count) for count in self[:3])
        return Counts(faces, gallery, probes, round(scale**2 * self.pairs))


LOOP = "three files by a loop over lines"
Paths = dict[Path, tuple[Field, ...]]
FILES = {
    "ijbc_face_tid_mid.txt": (
        Field("image", "text"),
        Field("template", "int"),
        Field("media", "int"),
    ),
    "ijbc_name_5pts_score.txt": (
        Field("image", "text"),
        Field("points", "float", 10),
        Field("score", "float"),
    ),
    "ijbc_template_pair_label.txt": (Field("templates", "int", 2), Field("label", "flag")),
}


def write(columns: list[np.ndarray], path: Path) -> None:
    table = pa.table({str(index): column for index, column in enumerate(columns)})
    options = pacsv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    pacsv.write_csv(table, path, options)


def write_release(root: Path, counts: Counts) -> None:
    meta, crops = root / "meta", root / "loose_crop"
    meta.mkdir(parents=True)
    crops.mkdir()
    (root / MARKER).write_text('{"name": "benchmark"}')
    rng = np.random.default_rng(2018)
    faces, templates = counts.faces, np.arange(1, counts.gallery + counts.probes + 1)
    template = np.sort(np.concatenate([templates, rng.choice(templates, faces - len(templates))]))
    names = np.array([f"{index}.jpg" for index in range(1, faces + 1)])
    write([names, template, rng.integers(1, 150_000, faces)], meta / "ijbc_face_tid_mid.txt")
    points = np.round(rng.uniform(10, 200, (faces, 10)), 3)
    score = np.round(rng.uniform(0.5, 1, faces), 6)
    write([names, *points.T, score], meta / "ijbc_name_5pts_score.txt")
    write(pair_columns(rng, counts), meta / "ijbc_template_pair_label.txt")
    for name in names:
        (crops / name).touch()


def pair_columns(rng: np.random.Generator, counts: Counts) -> list[np.ndarray]:
    """Distinct gallery x probe pairs in order; each probe is of one gallery template's subject."""
    _, galleries, probes, pairs = counts
    subject = rng.integers(0, galleries, probes)
    drawn = np.sort(rng.choice(galleries * probes, pairs, replace=False))
    gallery, probe = np.divmod(drawn, probes)
    genuine = (subject[probe] == gallery).astype(np.int8)
    return [gallery + 1, probe + galleries + 1, genuine]


def reference_seconds(path: Path, fields: tuple[Field, ...], rows: int) -> float:
    """Time a row by a loop over lines, as a script would read them."""
    casts = [
        {"text": str, "int": int, "float": float, "flag": int}[field.kind]
        for field in fields
        for _ in range(field.width)
    ]
    start = time.perf_counter()
    table = []
    with path.open() as file:
        for line in itertools.islice(file, rows):
            cells = line.split()
            table.append([cast(cell) for cast, cell in zip(casts, cells, strict=True)])
    for column in zip(*table, strict=True):
        np.array(column)
    return (time.perf_counter() - start) / len(table)


def best(action: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Shortest wall time, and shortest processor time (all threads), in seconds."""
    walls, busy = [], []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        busy.append(time.process_time() - cpu)
    return min(walls), min(busy)


def report(label: str, seconds: tuple[float, float], reference: float | None = None) -> None:
    wall, cpu = seconds
    faster = f"{reference / wall:9.1f} times as fast" if reference else ""
    print(f"{label:<34}{wall:9.3f} s wall{cpu:9.3f} s cpu{faster}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--reference-rows", type=int, default=1_000_000)
    parser.add_argument("--scale", type=float, default=1.0, help="share of IJB-C's templates")
    options = parser.parse_args()
    counts = Counts().scaled(options.scale)
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=spawn) as apart,  # keeps its memory out of the peak
    ):
        root = Path(folder) / "IJBC"
        apart.submit(write_release, root, counts).result()
        paths = {root / "meta" / name: fields for name, fields in FILES.items()}
        reference = sum(
            rows * apart.submit(reference_seconds, path, fields, options.reference_rows).result()
            for rows, (path, fields) in zip(
                (counts.faces, counts.faces, counts.pairs), paths.items(), strict=True
            )
        )
        print(f"{platform.machine()}, {os.cpu_count()} processors; best of {options.repeat}")
        print(f"{LOOP:<34}{reference:9.3f} s wall (first {options.reference_rows:,} rows, scaled)")
        measure(root, paths, options.repeat, reference, counts.faces // 20)


def measure(root: Path, paths: Paths, repeat: int, reference: float, few: int) -> None:
    cache = root.parent / "cache"

    def read(cache_dir: Path | None) -> None:
        for path, fields in paths.items():
            read_table(path, fields, cache_dir=cache_dir)

    text = best(lambda: read(None), repeat)
    report("three files from text", text, reference)
    for path, fields in paths.items():
        report(f"  {path.name}", best(functools.partial(read_table, path, fields), repeat))
    report("the same, filling the cache", best(lambda: read(cache), 1), reference)
    report("three files from the cache", best(lambda: read(cache), repeat), reference)
    report("load_ijb from the cache, checked", best(lambda: load_ijb(root, cache_dir=cache), 2))
    release = load_ijb(root, cache_dir=cache)
    report(f"subset of {few:,} faces", best(lambda: subset(release, few), 2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process: {peak:.2f} GiB")
    print(f"ratio {reference / text[0]:.1f} (from text)")


if __name__ == "__main__":
    main()
