"""Making verification sets: from lists, from a folder, with alignment; public readers' view."""

from __future__ import annotations

import pickle
from collections import Counter

import cv2
import numpy as np
import pytest

from evalkit.datasets.alignment import ARCFACE_POINTS, align
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.lfw import load_bin
from evalkit.datasets.pack import five_point_alignment, pack
from evalkit.datasets.pairs import pairs_from_csv, pairs_from_folder, pairs_from_lfw


def pixels(seed, width=112, height=112):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def people(tmp_path):
    """Forty people with one to four images each: jpg, except one png and one bmp."""
    root = tmp_path / "images"
    for person in range(40):
        folder = root / f"P_{person:02d}"
        folder.mkdir(parents=True)
        for number in range(1, 2 + person % 4):
            suffix = {(1, 1): ".png", (2, 1): ".bmp"}.get((person, number), ".jpg")
            image = pixels(100 * person + number, 24, 24)
            cv2.imwrite(str(folder / f"{folder.name}_{number:04d}{suffix}"), image)
    return root


def listed(tmp_path, text, name="pairs.txt"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


LFW = "P_01\t1\t2\nP_02\t3\t1\nP_01\t1\tP_02\t1\nP_03\t4\tP_00\t1\n"


# --- lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "1\t2\n", "2\n"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n"])
def test_the_layout_of_lfw(tmp_path, people, header, ends):
    path = listed(tmp_path, (header + LFW).replace("\n", ends))
    found = pairs_from_lfw(path, people)
    names = [(p.first.name, p.second.name, p.same) for p in found.pairs]
    assert names == [
        ("P_01_0001.png", "P_01_0002.jpg", True),
        ("P_02_0003.jpg", "P_02_0001.bmp", True),
        ("P_01_0001.png", "P_02_0001.bmp", False),
        ("P_03_0004.jpg", "P_00_0001.jpg", False),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("P_01 1\n", ":1: .* is neither"),
        (LFW + "P_01 1 x\n", ":5: .* is neither"),
        (LFW + "P_01 1 P_02 3 4\n", ":5: .* is neither"),
        (LFW + "P_01 " + "9" * 5000 + " 1\n", ":5: .* is neither"),
        ("10\t300\n" + LFW, ":1: .* announces 6000 pairs, but 4 follow"),
        (LFW + "P_01 1 9\n", r":5: There is no image .*P_01_0009\.jpg"),
        (LFW + "../P_01 1 2\n", ":5: .* not a path below"),
        ("", "holds no pair"),
    ],
)
def test_wrong_lines_of_lfw_are_named(tmp_path, people, text, message):
    path = listed(tmp_path, text)
    with pytest.raises(DatasetError, match=message) as caught:
        pairs_from_lfw(path, people)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("header", ["", "path1,path2,label\n"])
def test_csv_lists(tmp_path, people, header):
    rows = (
        "P_01/P_01_0001.png,P_01/P_01_0002.jpg,1\n\n"
        '"P_01/P_01_0001.png", P_02/P_02_0001.bmp ,different\n'
        "P_02\\P_02_0001.bmp,P_03/P_03_0001.jpg,FALSE\n"
    )
    path = listed(tmp_path, "\ufeff" + header + rows, "pairs.csv")
    found = pairs_from_csv(path, people)
    assert [p.same for p in found.pairs] == [True, False, False]
    assert found.pairs[2].first == people / "P_02" / "P_02_0001.bmp"
    assert [p.line for p in found.pairs] == [n + bool(header) for n in (1, 3, 4)]
    beside = listed(people, rows, "pairs.csv")
    assert [p.first for p in pairs_from_csv(beside).pairs] == [p.first for p in found.pairs]


FIRST = "P_01/P_01_0001.png,P_01/P_01_0002.jpg,1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FIRST.replace(",1", ",2"), ":1: .* not 'path1,path2,label'"),
        (FIRST + "a.jpg,b.jpg\n", ":2: .* not 'path1,path2,label'"),
        (FIRST + "a.jpg,b.jpg,yes\n", ":2: .* not 'path1,path2,label'"),
        (FIRST + "x" * 200_000 + "\n", ":2: .* not 'path1,path2,label'"),
        (FIRST + "a.jpg,b.jpg,1\n", r":2: There is no image .*a\.jpg"),
        (FIRST + "../images/P_01/P_01_0001.png,b.jpg,1\n", ":2: .* not a path below"),
        (FIRST + "/etc/passwd,b.jpg,1\n", ":2: .* not a path below"),
        (FIRST + "C:\\a.jpg,b.jpg,1\n", ":2: .* not a path below"),
        (FIRST + ",b.jpg,1\n", ":2: .* not a path below"),
        ("path1,path2,label\n", "holds no pair"),
        (FIRST.replace("0001", "0009"), r":1: There is no image .*P_01_0009\.png"),
        (FIRST.replace(",1", ",ture"), ":1: .* not 'path1,path2,label'"),
        (FIRST.replace("P_01/", "P_99/").replace(",1", ",ture"), ":1: .* not 'path1,path2,label'"),
        ("P_01/P_01_0001,P_01/P_01_0002,1\n" + FIRST, ":1: There is no image"),
        ("path1,path2\n" + FIRST, ":1: .* not 'path1,path2,label'"),
    ],
)
def test_wrong_lines_of_a_csv_are_named(tmp_path, people, text, message):
    with pytest.raises(DatasetError, match=message):
        pairs_from_csv(listed(tmp_path, text), people)


def test_lists_that_are_no_text(tmp_path, people):
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        pairs_from_lfw(tmp_path / "none.txt", people)
    path = tmp_path / "pairs.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not UTF-8 text"):
        pairs_from_csv(path, people)


# --- drawn pairs -------------------------------------------------------------------------------


def person(path):
    return path.parent.name


def test_drawn_pairs_are_balanced_distinct_and_disjoint_in_people(people):
    found = pairs_from_folder(people, 40, seed=3)
    assert len(found.pairs) == 40
    assert len({frozenset((p.first, p.second)) for p in found.pairs}) == 40
    owners = {}
    for fold in range(10):
        part = found.pairs[4 * fold : 4 * fold + 4]
        assert [p.same for p in part] == [True, True, False, False]
        for pair in part:
            assert pair.first != pair.second
            assert (person(pair.first) == person(pair.second)) == pair.same
            for image in (pair.first, pair.second):
                assert owners.setdefault(person(image), fold) == fold


def test_the_seed_and_only_the_seed_decides(people):
    assert pairs_from_folder(people, 40, 1) == pairs_from_folder(people, 40, 1)
    assert pairs_from_folder(people, 40, 1) != pairs_from_folder(people, 40, 2)


def test_same_pairs_are_spread_over_the_people(tmp_path):
    for index in range(40):
        folder = tmp_path / f"{index:02d}"
        folder.mkdir()
        for number in range(30 if index == 0 else 4):
            (folder / f"{number}.jpg").touch()
    found = pairs_from_folder(tmp_path, 400)
    count = Counter(person(p.first) for p in found.pairs if p.same)
    assert len(count) == 40
    assert set(count.values()) == {5}


def test_big_folders_are_drawn_from_without_listing_every_pair(tmp_path, monkeypatch):
    monkeypatch.setattr("evalkit.datasets.pairs._ENUMERATED", 10)
    for index in range(30):
        folder = tmp_path / f"{index:02d}"
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.jpg").touch()
    found = pairs_from_folder(tmp_path, 180)
    different = [p for p in found.pairs if not p.same]
    assert len({frozenset((p.first, p.second)) for p in different}) == 90
    assert all(person(p.first) != person(p.second) for p in different)


def test_too_few_people_are_told_how_many_pairs_they_give(tmp_path, people):
    with pytest.raises(DatasetError, match="multiple of 20"):
        pairs_from_folder(people, 50)
    with pytest.raises(
        DatasetError, match=r"40 people in 10 folds .* Ask for at most (\d+)"
    ) as caught:
        pairs_from_folder(people, 6000)
    most = int(str(caught.value).rsplit(" ", 1)[1].rstrip("."))
    assert len(pairs_from_folder(people, most).pairs) == most
    with pytest.raises(DatasetError, match="Ask for at most"):
        pairs_from_folder(people, most + 20)
    (tmp_path / "few" / "one").mkdir(parents=True)
    (tmp_path / "few" / "one" / "a.jpg").touch()
    with pytest.raises(DatasetError, match="at least 20"):
        pairs_from_folder(tmp_path / "few", 20)
    with pytest.raises(DatasetError, match="not a folder"):
        pairs_from_folder(tmp_path / "none", 20)
    with pytest.raises(DatasetError, match="seed is -1"):
        pairs_from_folder(people, 40, seed=-1)


# --- packing -----------------------------------------------------------------------------------


def public_view(path):
    """What the public scripts do with the file."""
    with path.open("rb") as file:
        return pickle.load(file, encoding="bytes")


def test_aligned_images_are_packed_byte_for_byte(tmp_path, people):
    pairs = pairs_from_lfw(listed(tmp_path, LFW), people)
    done = pack(pairs, tmp_path / "my.bin")
    images, labels = public_view(done.path)
    assert labels == [True, True, False, False]
    files = [file for pair in pairs.pairs for file in (pair.first, pair.second)]
    for image, file in zip(images, files, strict=True):
        if file.suffix == ".bmp":
            assert (cv2.imdecode(np.frombuffer(image, np.uint8), 1) == cv2.imread(str(file))).all()
        else:
            assert image == file.read_bytes()
    loaded = load_bin(done.path)
    assert list(loaded.images) == images
    assert (loaded.name, loaded.sha256) == ("my", done.sha256)
    assert (done.pairs, done.same, done.different, done.images) == (4, 2, 2, 6)
    assert done.warnings == loaded.warnings != ()
    assert [p.name for p in tmp_path.glob("*.part")] == [p.name for p in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize("separator", [",", " "])
def test_five_points_align(tmp_path, people, encoding, separator):
    pairs = pairs_from_lfw(listed(tmp_path, LFW), people)
    files = {file for pair in pairs.pairs for file in (pair.first, pair.second)}
    points = {file: ARCFACE_POINTS * 0.8 + i for i, file in enumerate(sorted(files))}
    rows = [
        separator.join([f.relative_to(people).as_posix(), *map(str, p.ravel()), "0.99"])
        for f, p in points.items()
    ]
    table = listed(
        tmp_path, "\n".join([separator.join(["image", *"abcdefghijk"]), *rows]), "points.txt"
    )
    aligned = five_point_alignment(table, people)
    done = pack(pairs, tmp_path / "my.bin", align=aligned, encoding=encoding)
    images, _ = public_view(done.path)
    first = pairs.pairs[0].first
    expected = align(cv2.imread(str(first)), points[first])
    if encoding == "png":
        got = cv2.imdecode(np.frombuffer(images[0], np.uint8), cv2.IMREAD_COLOR)
        assert images[0].startswith(b"\x89PNG")
        assert (got == expected).all()
    else:
        made = cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        assert images[0] == made
        pack(pairs, done.path, align=aligned, encoding="jpeg", quality=50)
        assert len(public_view(done.path)[0][0]) < len(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x\na,1,2\n", ":2: .* ten finite numbers"),
        ("a,1,2\n", ":1: .* ten finite numbers"),
        ("a 1 2 3 4 5 6 7 8 9 nan\n", ":1: .* ten finite numbers"),
    ],
)
def test_wrong_points_are_named(tmp_path, people, text, message):
    with pytest.raises(DatasetError, match=message):
        five_point_alignment(listed(tmp_path, text), people)
    with pytest.raises(DatasetError, match="cannot be read"):
        five_point_alignment(tmp_path / "none.txt", people)


def no_face(image, path):
    raise ValueError("no face was found")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda file: file.write_bytes(b""), {}, "the file is empty"),
        (lambda file: file.write_bytes(file.read_bytes()[:-99]), {}, "truncated"),
        (lambda file: cv2.imwrite(str(file), pixels(1, 120, 100)), {}, "120x100 pixels.* align it"),
        (lambda file: file.unlink(), {}, "No such file"),
        (lambda file: None, {"align": no_face}, "no face was found"),
        (lambda file: None, {"align": lambda image, _: image[:, :, 0]}, r"shape \(24, 24\)"),
    ],
)
def test_an_image_that_gives_no_face_names_its_line(tmp_path, people, change, options, message):
    path = listed(tmp_path, LFW)
    pairs = pairs_from_lfw(path, people)
    out = tmp_path / "my.bin"
    out.write_bytes(b"old")
    change(pairs.pairs[0].first if "align" in options else pairs.pairs[1].first)
    with pytest.raises(DatasetError, match=message) as caught:
        pack(pairs, out, **options)
    assert str(caught.value).startswith(f"{path}:{1 if 'align' in options else 2}: ")
    assert out.read_bytes() == b"old"
    assert list(tmp_path.glob(".*")) == []


def test_images_without_points_are_named(tmp_path, people):
    pairs = pairs_from_lfw(listed(tmp_path, LFW), people)
    table = listed(tmp_path, "other.jpg " + "1 " * 10, "points.txt")
    with pytest.raises(DatasetError, match=r"has no points for P_01/P_01_0001\.png"):
        pack(pairs, tmp_path / "a.bin", align=five_point_alignment(table, people))


def test_a_folder_that_is_not_there(tmp_path, people):
    pairs = pairs_from_lfw(listed(tmp_path, LFW), people)
    with pytest.raises(DatasetError, match="cannot be written: No such file"):
        pack(pairs, tmp_path / "none" / "a.bin")


def test_what_cannot_be_written_is_told_before_an_image_is_read(tmp_path, people, monkeypatch):
    pairs = pairs_from_lfw(listed(tmp_path, LFW), people)
    monkeypatch.setattr("evalkit.datasets.pack._encoded", no_face)
    monkeypatch.chdir(tmp_path)
    for out in (".", "", people, "/"):
        with pytest.raises(DatasetError, match="This is a folder"):
            pack(pairs, out)
    for quality in (0, -1, 101):
        with pytest.raises(DatasetError, match=f"quality is {quality}.* 1 to 100"):
            pack(pairs, "a.bin", encoding="jpeg", quality=quality)
    assert not list(tmp_path.glob("*.bin"))


def test_an_image_that_opencv_does_not_warp_names_its_line(tmp_path, people):
    path = listed(tmp_path, LFW)
    pairs = pairs_from_lfw(path, people)
    cv2.imwrite(str(pairs.pairs[0].first), np.zeros((2, 32_768, 3), np.uint8))
    row = " ".join(map(str, ARCFACE_POINTS.ravel()))
    names = (f.relative_to(people).as_posix() for p in pairs.pairs for f in (p.first, p.second))
    table = listed(tmp_path, "".join(f"{name} {row}\n" for name in names), "points.txt")
    with pytest.raises(DatasetError, match="does not warp an image of 32768x2 pixels") as caught:
        pack(pairs, tmp_path / "a.bin", align=five_point_alignment(table, people))
    assert str(caught.value).startswith(f"{path}:1: ")
