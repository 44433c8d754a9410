"""The drawn samples: the same bytes again, and the real formats' facts."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from evalkit.datasets import sample
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.ijb import load_ijb
from evalkit.datasets.lfw import load_bin
from evalkit.datasets.sample import Kind, _write, ijb, lfw, widerface, write_sample
from evalkit.datasets.sample.photo import photograph
from evalkit.datasets.sample.traits import FIRST_TRAINING_SUBJECT, conditions, identity
from evalkit.datasets.widerface import load_widerface

KINDS: tuple[Kind, ...] = ("ijbc", "ijbb", "lfw", "widerface")


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


@pytest.mark.parametrize("kind", ["ijbc", "lfw", "widerface"])
def test_same_bytes_again(kind: Kind, written: dict[str, Path], tmp_path: Path) -> None:
    again = write_sample(kind, tmp_path / "again", size="tiny")
    first = written[kind].parent if kind == "lfw" else written[kind]
    assert _contents(first) == _contents(again.parent if kind == "lfw" else again)


def test_another_seed_is_another_population() -> None:
    assert identity(0, 3) == identity(0, 3)
    assert identity(0, 3) != identity(1, 3)
    assert identity(0, 3) != identity(0, 4)
    assert photograph(0, 3, 1).jpeg != photograph(0, 3, 2).jpeg
    assert photograph(0, 3, 1).jpeg != photograph(0, 3, 1, frame=1).jpeg


@pytest.mark.parametrize("kind", KINDS)
def test_marker_says_what_it_is(kind: Kind, written: dict[str, Path]) -> None:
    folder = written[kind].parent if kind == "lfw" else written[kind]
    marker = json.loads((folder / "evalkit-sample.json").read_text())
    assert marker["name"] == f"evalkit-sample-{kind}"
    assert marker["generator_version"] == sample.GENERATOR_VERSION
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


def test_eye_points_lie_on_dark_pupils() -> None:
    """Ground truth against what was drawn; a dark face with a catch light may differ."""
    darker = []
    for subject in range(40):
        how = conditions(0, subject, 0, 0.2)
        if how.glasses or how.mask or how.bar or how.blur or how.motion or how.eye_open < 0.9:
            continue
        photo = photograph(0, subject, 0, hardness=0.2, size=300)
        grey = cv2.cvtColor(_picture(photo.jpeg), cv2.COLOR_BGR2GRAY).astype(float)
        for x, y in np.round(photo.points[:2]).astype(int):
            pupil = grey[y - 1 : y + 2, x - 1 : x + 2].mean()
            around = np.median(grey[y - 8 : y + 9, x - 16 : x + 17])
            darker.append(pupil < around)
    assert len(darker) >= 40
    assert np.mean(darker) > 0.85


class _NoGlobals(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"{module}.{name}")


def test_lfw_bin_holds_only_strings_and_flags(written: dict[str, Path]) -> None:
    with written["lfw"].open("rb") as file:
        images, same = _NoGlobals(file, encoding="bytes").load()
    assert written["lfw"].name == "evalkit-sample-lfw.bin"
    assert written["lfw"].read_bytes()[:2] == b"\x80\x02"
    assert len(images) == 2 * len(same) == 2 * lfw.PAIRS["tiny"]
    assert {type(image) for image in images} == {bytes}
    assert {type(flag) for flag in same} == {bool}
    assert {_picture(image).shape for image in images} == {(112, 112, 3)}
    assert np.array(same).reshape(10, -1).mean(axis=1).tolist() == [0.5] * 10


@pytest.mark.parametrize("pairs", [40, 1000, 60])
def test_lfw_pairs_are_what_their_flags_say(pairs: int) -> None:
    chosen, same = lfw._photographs(pairs)
    assert len(set(chosen)) == len(chosen) == 2 * pairs
    people = np.array(chosen)[:, 0].reshape(-1, 2)
    assert (people[:, 0] == people[:, 1]).tolist() == same
    folds = [set(part.ravel().tolist()) for part in np.split(people, 10)]
    assert sum(map(len, folds)) == len(set().union(*folds))


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_leaves_nothing(kind: Kind, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(kind, tmp_path / "out", size="tiny", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_sample("widerface", tmp_path / "w", size="tiny", progress=lambda *c: calls.append(c))
    assert calls == [(i, 4) for i in range(1, 5)]


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="new or an empty folder"):
        write_sample("lfw", tmp_path, size="tiny")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("kind", "size"),
    [("lfw", 41), ("lfw", 20), ("ijbc", 1), ("ijbc", "huge"), ("faces", "tiny"), ("widerface", 0)],
)
def test_unknown_kinds_and_sizes(kind: Kind, size: str | int, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"It is one of|Give"):
        write_sample(kind, tmp_path / "out", size=size)


def test_sample_path_writes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    path = sample.sample_path(
        "widerface", tmp_path, size="tiny", progress=lambda d, _: calls.append(d)
    )
    again = sample.sample_path(
        "widerface", tmp_path, size="tiny", progress=lambda d, _: calls.append(d)
    )
    assert path == again
    assert len(calls) == 4
    monkeypatch.setattr(sample, "GENERATOR_VERSION", 99)
    assert sample.sample_path("widerface", tmp_path, size="tiny") != path


def test_evaluated_people_are_not_trained_on() -> None:
    """Every subject that a writer can draw lies below the first one of training."""
    limits = {kind: high for kind, (_, high) in sample._LIMITS.items()}
    assert limits["ijbc"] < FIRST_TRAINING_SUBJECT
    assert limits["lfw"] < FIRST_TRAINING_SUBJECT
    assert limits["widerface"] * widerface._MOST_FACES <= FIRST_TRAINING_SUBJECT
    assert max(crowd.faces[1] for crowd in widerface.EVENTS.values()) <= widerface._MOST_FACES
    plan = ijb._plan(0, 50)
    assert max(face.subject for face in plan.faces) < 50
    assert max(subject for subject, _ in lfw._photographs(1000)[0]) < 1000
    trained = {identity(20_000, FIRST_TRAINING_SUBJECT + i) for i in range(200)}
    assert not trained & {identity(0, i) for i in range(200)}


def test_default_ijb_plan_is_large_enough() -> None:
    plan = ijb._plan(0, ijb.SUBJECTS["default"])
    impostors = sum(g != p for g in plan.gallery.values() for p in plan.probe.values())
    assert 1_800 <= len(plan.faces) <= 2_600
    assert 700 <= len(plan.gallery) + len(plan.probe) <= 1_000
    assert impostors * 1e-4 >= 5


def test_atomic_folder_is_beside_its_target(tmp_path: Path) -> None:
    with _write.atomic_folder(tmp_path / "a" / "b") as work:
        assert work.parent == tmp_path / "a"
        (work / "x").touch()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_the_loaders_read_it_without_a_warning(written: dict[str, Path]) -> None:
    for kind, protocol in (("ijbc", "IJBC"), ("ijbb", "IJBB")):
        release = load_ijb(written[kind], protocol)
        assert release.name == f"evalkit-sample-{kind}"
        assert not release.official
        assert release.warnings == ()
        assert len(release.pairs) == len(release.genuine) == 6 * 6 * ijb.PROBES
    assert load_bin(written["lfw"]).warnings == ()
    assert len(load_widerface(written["widerface"]).images) == widerface.IMAGES["tiny"]
