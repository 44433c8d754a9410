"""The packaged samples: the real formats' facts, and that they are what the painter paints."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

import sample_painter
from evalkit.datasets import sample
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.ijb import load_ijb
from evalkit.datasets.lfw import load_bin
from evalkit.datasets.sample import (
    KINDS,
    SAMPLE_OF,
    SIZES,
    Content,
    Kind,
    Size,
    calibration_path,
    sample_path,
    write_sample,
)
from evalkit.datasets.widerface import load_widerface
from sample_painter import CALIBRATION_SEED, PACKAGED, Packaged, ijb, lfw, widerface
from sample_painter.photo import encode
from sample_painter.traits import identity
from sample_painter.writing import GENERATOR_VERSION

DATA = Path(sample.__file__).parent / "data"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("samples")
    return {kind: write_sample(kind, root / kind, size="tiny") for kind in KINDS}


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def _picture(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def _same_picture(one: bytes, other: bytes) -> bool:
    """Allow for another encoder, or another CPU's rounding; another face differs by 20 and more."""
    a, b = _picture(one), _picture(other)
    return a.shape == b.shape and float(cv2.absdiff(a, b).mean()) < 1


def _first_pictures(part: Packaged, count: int) -> list[tuple[bytes, bytes]]:
    """Some pictures of a packaged folder, and the same painted now."""
    folder, seed = DATA / part.path, part.seed
    if part.kind == "lfw":
        packaged = load_bin(folder / "evalkit-sample-lfw.bin").images[:count]
        chosen, _ = lfw._photographs(part.size)
        return [(old, lfw._face(seed, *who)) for old, who in zip(packaged, chosen, strict=False)]
    if part.kind == "ijb":
        return [
            ((folder / "loose_crop" / f"{row}.jpg").read_bytes(), ijb._photo(seed, face).jpeg)
            for row, face in enumerate(ijb._plan(seed, part.size).faces[:count], start=1)
        ]
    pairs = []
    for entry in widerface._entries(part.size)[:count]:
        scene = widerface._scene(seed, entry, widerface._width(part.size))
        file = folder / "WIDER_val" / "images" / entry.event / f"{entry.name}.jpg"
        pairs.append((file.read_bytes(), encode(scene.image, widerface.QUALITY)))
    return pairs


@pytest.mark.parametrize("part", PACKAGED, ids=lambda part: str(part.path))
def test_packaged_pictures_are_what_the_painter_paints(part: Packaged) -> None:
    pictures = _first_pictures(part, 3 if part.kind == "widerface" else 8)
    assert len(pictures) in (3, 8)
    assert all(_same_picture(packaged, painted) for packaged, painted in pictures)
    marker = json.loads((DATA / part.path / "evalkit-sample.json").read_text())
    assert (marker["seed"], marker["generator_version"]) == (part.seed, GENERATOR_VERSION)


@pytest.mark.parametrize("kind", KINDS)
def test_marker_says_what_it_is(kind: Kind, written: dict[str, Path]) -> None:
    folder = written[kind].parent if kind == "lfw" else written[kind]
    marker = json.loads((folder / "evalkit-sample.json").read_text())
    assert marker["name"] == f"evalkit-sample-{kind.replace('ijbc', 'ijb').replace('ijbb', 'ijb')}"
    assert marker["generator_version"] == GENERATOR_VERSION
    assert marker["seed"] == 0
    assert all(value > 0 for value in marker["parameters"].values())


@pytest.mark.parametrize(("kind", "parts"), [("ijbc", ("G1", "G2")), ("ijbb", ("S1", "S2"))])
def test_ijb_tables_join(kind: str, parts: tuple[str, str], written: dict[str, Path]) -> None:
    meta = written[kind] / "meta"
    faces = _rows(meta / f"{kind}_face_tid_mid.txt")
    points = _rows(meta / f"{kind}_name_5pts_score.txt")
    pairs = np.array(_rows(meta / f"{kind}_template_pair_label.txt"), int)
    assert [row[0] for row in faces] == [row[0] for row in points]
    assert {row[0] for row in faces} == {p.name for p in (written[kind] / "loose_crop").iterdir()}

    tables = {}
    for name in (f"gallery_{parts[0]}", f"gallery_{parts[1]}", "probe_mixed"):
        with (meta / f"{kind}_1N_{name}.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
    one, two, probe = (
        {int(row["TEMPLATE_ID"]): int(row["SUBJECT_ID"]) for row in table}
        for table in tables.values()
    )
    assert not set(one.values()) & set(two.values())
    gallery = one | two
    assert set(gallery.values()) == set(probe.values())
    listed = {(row["FILENAME"], row["TEMPLATE_ID"]) for table in tables.values() for row in table}
    assert listed == {(name, template) for name, template, _ in faces}

    assert {(a, b) for a, b, _ in pairs.tolist()} == {(g, p) for g in gallery for p in probe}
    assert len(pairs) == len(gallery) * len(probe)
    assert all(label == (gallery[a] == probe[b]) for a, b, label in pairs.tolist())


def test_ijb_has_several_media_and_frames(written: dict[str, Path]) -> None:
    faces = _rows(written["ijbc"] / "meta" / "ijbc_face_tid_mid.txt")
    media_of: dict[str, set[str]] = {}
    template_of: dict[str, set[str]] = {}
    for _, template, media in faces:
        media_of.setdefault(template, set()).add(media)
        template_of.setdefault(media, set()).add(template)
    assert max(map(len, media_of.values())) > 1
    assert len(template_of) < len(faces)
    assert max(map(len, template_of.values())) == 1
    assert faces != sorted(faces, key=lambda row: int(row[1]))


def test_ijb_points_and_scores(written: dict[str, Path]) -> None:
    rows = _rows(written["ijbc"] / "meta" / "ijbc_name_5pts_score.txt")
    shapes = set()
    for name, *numbers in rows:
        height, width = _picture((written["ijbc"] / "loose_crop" / name).read_bytes()).shape[:2]
        points, score = np.array(numbers[:10], float).reshape(5, 2), float(numbers[10])
        shapes.add((height, width))
        assert (points >= 0).all()
        assert (points <= [width - 1, height - 1]).all()
        assert points[0, 0] < points[1, 0]
        assert points[3, 0] < points[4, 0]
        assert points[:2, 1].mean() < points[3:, 1].mean()
        assert 0 < score <= 1
    assert len(shapes) > 10


class _NoGlobals(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"{module}.{name}")


def test_lfw_bin_holds_only_strings_and_flags(written: dict[str, Path]) -> None:
    with written["lfw"].open("rb") as file:
        images, same = _NoGlobals(file, encoding="bytes").load()
    assert written["lfw"].name == "evalkit-sample-lfw.bin"
    assert written["lfw"].read_bytes()[:2] == b"\x80\x02"
    assert len(images) == 2 * len(same) == 2 * 40
    assert {type(image) for image in images} == {bytes}
    assert {type(flag) for flag in same} == {bool}
    assert {_picture(image).shape for image in images} == {(112, 112, 3)}
    assert np.array(same).reshape(10, -1).mean(axis=1).tolist() == [0.5] * 10


def _wider_text(path: Path) -> dict[str, np.ndarray]:
    lines = iter(path.read_text().splitlines())
    return {
        name: np.array([next(lines).split() for _ in range(max(1, int(next(lines))))], int)
        for name in lines
    }


def _official_reader(folder: Path) -> dict[str, tuple[np.ndarray, dict[str, set[int]]]]:
    """Boxes and kept indices of each image, read as the public evaluators read them."""
    whole = scipy.io.loadmat(folder / "wider_face_val.mat")
    subsets = {
        s: scipy.io.loadmat(folder / f"wider_{s}_val.mat")["gt_list"]
        for s in ("easy", "medium", "hard")
    }
    read = {}
    for i in range(len(whole["event_list"])):
        event = str(whole["event_list"][i][0][0])
        for j in range(len(whole["file_list"][i][0])):
            name = str(whole["file_list"][i][0][j][0][0])
            boxes = whole["face_bbx_list"][i][0][j][0]
            kept = {s: {int(k) for k in subsets[s][i][0][j][0].ravel()} for s in subsets}
            read[f"{event}/{name}.jpg"] = (boxes, kept)
    return read


def test_official_reader_reads_the_official_files(shared_data: Path) -> None:
    read = _official_reader(shared_data / "widerface" / "ground_truth")
    assert len(read) == 3226
    assert [sum(len(k[s]) for _, k in read.values()) for s in ("easy", "medium", "hard")] == [
        7211, 13319, 31958,
    ]  # fmt: skip


def test_wider_tree(written: dict[str, Path]) -> None:
    root = written["widerface"]
    text = _wider_text(root / "wider_face_split" / "wider_face_val_bbx_gt.txt")
    read = _official_reader(root / "ground_truth")
    images = root / "WIDER_val" / "images"
    assert set(text) == set(read) == {str(p.relative_to(images)) for p in images.glob("*/*.jpg")}
    for name, rows in text.items():
        boxes, kept = read[name]
        height, width = _picture((images / name).read_bytes()).shape[:2]
        assert boxes.dtype == np.int32
        np.testing.assert_array_equal(boxes, rows[:, :4])
        assert kept["easy"] <= kept["medium"] <= kept["hard"] <= set(range(1, len(boxes) + 1))
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= [width, height]).all()
        assert all(rows[k - 1, 3] >= 10 and rows[k - 1, 7] == 0 for k in kept["hard"])
    empty = [boxes.tolist() for boxes, kept in read.values() if not kept["hard"]]
    assert [[0, 0, 0, 0]] in empty
    assert sum(len(kept["easy"]) for _, kept in read.values()) > 0


def test_mat_has_the_official_fields(shared_data: Path, written: dict[str, Path]) -> None:
    for name in ("wider_face_val.mat", "wider_easy_val.mat"):
        official = scipy.io.loadmat(shared_data / "widerface" / "ground_truth" / name)
        ours = scipy.io.loadmat(written["widerface"] / "ground_truth" / name)
        assert {k for k in ours if k[0] != "_"} == {k for k in official if k[0] != "_"}
        for field in (k for k in ours if k[0] != "_"):
            a, b = ours[field], official[field]
            while a.dtype == object:
                assert b.dtype == object
                assert a.ndim == b.ndim == 2
                assert a.shape[1] == b.shape[1] == 1
                a, b = a[-1, 0], b[3, 0]
            assert a.dtype.kind == b.dtype.kind
            assert a.ndim == b.ndim


@pytest.mark.slow
def test_the_whole_package_is_painted_again(tmp_path: Path) -> None:
    sample_painter.paint_package(tmp_path / "data")
    packaged, painted = _contents(DATA), _contents(tmp_path / "data")
    assert set(packaged) == set(painted)
    for name, content in packaged.items():
        if name.endswith(".jpg"):
            assert _same_picture(content, painted[name]), name
        elif name.endswith(".bin"):
            one, other = load_bin(DATA / name), load_bin(tmp_path / "data" / name)
            assert one.issame.tolist() == other.issame.tolist()
            assert all(map(_same_picture, one.images, other.images)), name
        elif name.endswith(".mat"):  # compressed, and so of other bytes with another zlib
            folder = Path(name).parent
            one = _official_reader(DATA / folder)
            other = _official_reader(tmp_path / "data" / folder)
            assert repr(one) == repr(other)
        else:
            assert content == painted[name], name


def test_the_data_files_are_small_and_the_tables_know_them() -> None:
    folders = {str(path.parent.relative_to(DATA)) for path in DATA.rglob("evalkit-sample.json")}
    assert folders == {str(part.path) for part in PACKAGED}
    paths = [sample_path(kind, size) for kind in KINDS for size in SIZES]
    paths += [calibration_path(content) for content in SAMPLE_OF]
    assert all(path.exists() for path in paths)
    assert sum(map(len, _contents(DATA).values())) < 12_000_000


def test_a_copy_is_the_same_data_and_writable(tmp_path: Path) -> None:
    for kind, protocol, other in (("ijbc", "IJBC", "ijbb"), ("ijbb", "IJBB", "ijbc")):
        copy = write_sample(kind, tmp_path / kind)
        packaged, copied = (load_ijb(root, protocol) for root in (sample_path(kind), copy))
        assert copied.fingerprint == packaged.fingerprint
        assert copied.name == packaged.name
        assert not list(copy.rglob(f"{other}_*"))
        (copy / "meta" / "notes.txt").write_text("mine")


def test_a_read_only_package_gives_a_writable_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    shutil.copytree(DATA / "tiny", installed / "tiny")
    for path in installed.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setattr(sample, "_DATA", installed)
    copy = write_sample("widerface", tmp_path / "copy", size="tiny")
    assert all(path.stat().st_mode & 0o200 for path in copy.rglob("*"))
    assert len(load_widerface(copy).images) == 4


@pytest.mark.parametrize("content", ["faces", "photographs"])
def test_calibration_shows_other_people(content: Content) -> None:
    def hashes(path: Path) -> set[str]:
        if content == "faces":
            images = load_bin(path).images
        else:
            images = tuple(file.read_bytes() for file in path.rglob("*.jpg"))
        return {hashlib.sha256(image).hexdigest() for image in images}

    evaluated = hashes(sample_path(SAMPLE_OF[content]))
    calibrating = hashes(calibration_path(content))
    assert evaluated
    assert calibrating
    assert not evaluated & calibrating
    people = {identity(CALIBRATION_SEED, subject) for subject in range(300)}
    assert not people & {identity(0, subject) for subject in range(300)}


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[object] = []

    def stop(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) == 3:
            raise KeyboardInterrupt
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", stop)
    with pytest.raises(KeyboardInterrupt):
        write_sample("ijbc", tmp_path / "out", size="tiny")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="new or an empty folder"):
        write_sample("lfw", tmp_path, size="tiny")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("kind", "size"), [("faces", "tiny"), ("ijbc", "huge"), ("lfw", 40)])
def test_unknown_kinds_and_sizes(kind: Kind, size: Size, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"It is one of ijbc|Give default or tiny"):
        write_sample(kind, tmp_path / "out", size=size)
    with pytest.raises(DatasetError, match=r"It is one of ijbc|Give default or tiny"):
        sample_path(kind, size)
    assert list(tmp_path.iterdir()) == []


def test_the_default_release_is_large_enough() -> None:
    for kind, protocol in (("ijbc", "IJBC"), ("ijbb", "IJBB")):
        release = load_ijb(sample_path(kind), protocol)
        impostors = int((~release.genuine).sum())
        assert 1_000 <= len(release.images) <= 1_500
        assert len(np.unique(release.template_id)) == 384
        assert len(np.unique(release.subjects().subject_id)) == 128
        assert impostors * 1e-3 >= 30  # so that the row of FAR 1e-3 is not marked "few"


def test_atomic_folder_is_beside_its_target(tmp_path: Path) -> None:
    with sample.atomic_folder(tmp_path / "a" / "b") as work:
        assert work.parent == tmp_path / "a"
        (work / "x").touch()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_the_loaders_read_it_without_a_warning(written: dict[str, Path]) -> None:
    for kind, protocol in (("ijbc", "IJBC"), ("ijbb", "IJBB")):
        release = load_ijb(written[kind], protocol)
        assert release.name == "evalkit-sample-ijb"
        assert not release.official
        assert release.warnings == ()
        assert len(release.pairs) == len(release.genuine) == 6 * 6 * ijb.probes_of(6)
    assert load_bin(written["lfw"]).warnings == ()
    assert len(load_widerface(written["widerface"]).images) == 4
