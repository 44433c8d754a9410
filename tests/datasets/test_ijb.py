"""IJB release folders: what is read, what is refused, and the faces that come out."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.datasets import ijb
from evalkit.datasets.alignment import ARCFACE_POINTS, align
from evalkit.datasets.encoded import decode, is_truncated
from evalkit.datasets.errors import DatasetError, UnreadableImage
from evalkit.datasets.faces import AlignedFaces
from evalkit.datasets.ijb import MARKER, IjbRelease, load_ijb, subset
from evalkit.datasets.ijb_checks import positions

FIVE = " ".join(f"{x:.2f}" for x in (ARCFACE_POINTS + 4).ravel())


@dataclass
class Folder:
    """A small release: subjects 1 to 3, two faces in each of their gallery and probe templates.

    Template 10 s is in a gallery and 10 s + 1 a probe of subject s.
    """

    root: Path
    protocol: str = "IJBC"
    meta: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        templates = [10, 10, 11, 11, 20, 20, 21, 21, 30, 30, 31, 31]
        self.meta["face_tid_mid.txt"] = "".join(
            f"{row}.jpg {template} {row // 2 + 100}\n" for row, template in enumerate(templates)
        )
        self.meta["name_5pts_score.txt"] = "".join(
            f"{row}.jpg {FIVE} 0.{row + 10}\n" for row in range(len(templates))
        )
        self.meta["template_pair_label.txt"] = "".join(
            f"{left} {right} {int(left // 10 == right // 10)}\n"
            for left in (10, 20, 30)
            for right in (11, 21, 31)
        )
        header = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n"
        first, second = ("G1", "G2") if self.protocol == "IJBC" else ("S1", "S2")
        self.meta[f"1N_gallery_{first}.csv"] = header + "10,1,a\n10,1,b\n30,3,c\n"
        self.meta[f"1N_gallery_{second}.csv"] = header + "20,2,a\n"
        self.meta["1N_probe_mixed.csv"] = header + "31,3,a\n11,1,b\n21,2,c\n21,2,d\n"

    def path(self, name: str) -> Path:
        return self.root / "meta" / f"{self.protocol.lower()}_{name}"

    def edit(self, name: str, old: str, new: str) -> None:
        assert self.meta[name].count(old) == 1
        self.meta[name] = self.meta[name].replace(old, new)

    def write(self, images: bool = True) -> Path:
        (self.root / "meta").mkdir(parents=True)
        (self.root / "loose_crop").mkdir()
        for name, text in self.meta.items():
            self.path(name).write_text(text)
        for row in range(12 if images else 0):
            cv2.imwrite(str(self.root / "loose_crop" / f"{row}.jpg"), picture(row))
        return self.root

    def load(self, **options: object) -> IjbRelease:
        return load_ijb(self.write(), self.protocol, **options)  # type: ignore[arg-type]


def picture(seed: int, side: int = 120) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def encoded(suffix: str, seed: int = 0, *options: int) -> bytes:
    return cv2.imencode(suffix, picture(seed), list(options))[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "release")


def test_reads_every_field(folder: Folder) -> None:
    release = folder.load()
    assert release.protocol == "IJBC"
    assert release.name == "ijbc:release"
    assert not release.official
    assert release.warnings == ()
    assert release.images.tolist() == [f"{row}.jpg".encode() for row in range(12)]
    assert release.points.shape == (12, 5, 2)
    np.testing.assert_allclose(release.points[3], ARCFACE_POINTS + 4, atol=0.006)
    np.testing.assert_allclose(release.detector_score, 0.1 + np.arange(12) / 100, rtol=1e-6)
    assert release.template_id.tolist() == [10, 10, 11, 11, 20, 20, 21, 21, 30, 30, 31, 31]
    assert release.media_id.tolist() == [100 + row // 2 for row in range(12)]
    assert release.pairs.tolist() == [[a, b] for a in (10, 20, 30) for b in (11, 21, 31)]
    assert np.flatnonzero(release.genuine).tolist() == [0, 4, 8]
    dtypes = [release.points.dtype, release.detector_score.dtype, release.pairs.dtype]
    assert dtypes == [np.float32, np.float32, np.int32]


def test_reads_the_galleries(folder: Folder) -> None:
    release = folder.load()
    assert release.galleries is not None
    assert release.probes is not None
    assert {name: [x.tolist() for x in part] for name, part in release.galleries.items()} == {
        "G1": [[10, 30], [1, 3]],
        "G2": [[20], [2]],
    }
    assert [x.tolist() for x in release.probes] == [[11, 21, 31], [1, 2, 3]]


def test_reads_ijbb_by_its_own_names(tmp_path: Path) -> None:
    release = Folder(tmp_path / "IJBB", "IJBB").load()
    assert release.name == f"ijbb:{tmp_path.name}"
    assert release.galleries is not None
    assert sorted(release.galleries) == ["S1", "S2"]


def test_accepts_the_parent_folder(tmp_path: Path) -> None:
    root = Folder(tmp_path / "data" / "IJBC").write()
    assert load_ijb(root.parent).fingerprint == load_ijb(root).fingerprint
    assert load_ijb(root.parent).name == "ijbc:data"


def test_the_other_release_is_named(tmp_path: Path) -> None:
    ijbb = Folder(tmp_path / "data" / "IJBB", "IJBB").write()
    for path in (ijbb, ijbb.parent):
        with pytest.raises(DatasetError, match=r"an IJBB release.*Run 'evalkit ijbb'"):
            load_ijb(path, "IJBC")
    ijbc = Folder(tmp_path / "data" / "IJBC").write()
    assert load_ijb(ijbb.parent, "IJBC").root == ijbc
    with pytest.raises(DatasetError, match=r"an IJBC release.*Run 'evalkit ijbc'"):
        load_ijb(ijbc, "IJBB")


def test_counts_make_it_official(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = ijb._Published("IJB-C", ("G1", "G2"), 12, 6, 3, 6)
    monkeypatch.setattr(ijb, "_PUBLISHED", {"IJBC": counts})
    release = folder.load()
    assert (release.name, release.official) == ("IJB-C", True)
    (folder.root / MARKER).write_text('{"name": "drawn"}')
    assert (load_ijb(folder.root).name, load_ijb(folder.root).official) == ("drawn", False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 3}', '{"name": " "}', "\udcff"])
def test_marker_without_a_name_is_refused(folder: Folder, text: str) -> None:
    (folder.write() / MARKER).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=MARKER):
        load_ijb(folder.root)


@pytest.mark.parametrize("name", ["IJB-C", "ijb-b"])
def test_marker_cannot_claim_a_published_name(folder: Folder, name: str) -> None:
    (folder.write() / MARKER).write_text(json.dumps({"name": name}))
    with pytest.raises(DatasetError, match="not one that other data may have"):
        load_ijb(folder.root)


def test_digests_are_those_of_the_files(folder: Folder) -> None:
    release = folder.load()
    assert len(release.meta_sha256) == 6
    for name, digest in release.meta_sha256.items():
        data = (folder.root / "meta" / name).read_bytes()
        assert digest == hashlib.sha256(data).hexdigest()


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    one, two = Folder(tmp_path / "one"), Folder(tmp_path / "two")
    assert one.load().fingerprint == two.load().fingerprint
    crop = two.root / "loose_crop" / "3.jpg"
    crop.write_bytes(crop.read_bytes() + b"\0")
    changed = load_ijb(two.root).fingerprint
    crop.unlink()
    missing = load_ijb(two.root).fingerprint
    original = load_ijb(one.root).fingerprint
    pairs = one.path("template_pair_label.txt")
    pairs.write_text(pairs.read_text() + "10 20 0\n")
    assert len({original, changed, missing, load_ijb(one.root).fingerprint}) == 4


def test_cache_and_progress(folder: Folder, tmp_path: Path) -> None:
    steps: list[str] = []
    first = folder.load(cache_dir=tmp_path / "cache", progress=steps.append)
    again = load_ijb(folder.root, cache_dir=tmp_path / "cache")
    assert steps[0] == "reading ijbc_face_tid_mid.txt"
    assert first.fingerprint == again.fingerprint
    np.testing.assert_array_equal(first.pairs, again.pairs)
    np.testing.assert_array_equal(first.points, again.points)
    assert len(list((tmp_path / "cache").iterdir())) == 3


BAD = {
    "another image": (
        "name_5pts_score.txt",
        "4.jpg",
        "x.jpg",
        r"name_5pts_score.txt:5: The image is 'x.jpg', but '4.jpg' in "
        r"ijbc_face_tid_mid.txt \(line 5\). Both files must list the same images",
    ),
    "a row less": (
        "face_tid_mid.txt",
        "11.jpg 31 105\n",
        "",
        r"name_5pts_score.txt: 12 rows, but ijbc_face_tid_mid.txt has 11",
    ),
    "a row cut off": (
        "face_tid_mid.txt",
        "11.jpg 31 105\n",
        "11.jpg 31",
        r"face_tid_mid.txt:12: 2 columns where 3 are expected",
    ),
    "a point missing": (
        "name_5pts_score.txt",
        f"2.jpg {FIVE} 0.12\n",
        f"2.jpg {FIVE}\n",
        r"name_5pts_score.txt:3: 11 columns where 12",
    ),
    "no score": ("name_5pts_score.txt", "0.12", "nan", r":3: The score is not a finite number"),
    "a template without faces": (
        "template_pair_label.txt",
        "20 11 0",
        "20 77 0",
        r"pair_label.txt:4: No face belongs to template 77 \(1 such templates in the file\)",
    ),
    "a left template without faces": (
        "template_pair_label.txt",
        "30 31 1",
        "-30 31 1",
        r"pair_label.txt:9: No face belongs to template -30",
    ),
    "a third label": ("template_pair_label.txt", "20 11 0", "20 11 2", r":4: The label is '2'"),
    "a contradiction": (
        "template_pair_label.txt",
        "30 21 0",
        "21 20 0",
        r":8: The templates 20 and 21 are labelled 0 here, but 1 in line 5",
    ),
    "a negative template": ("face_tid_mid.txt", "2.jpg 11", "2.jpg -11", r":3: .* -11 is negative"),
    "two subjects": (
        "1N_probe_mixed.csv",
        "11,1,b",
        "10,2,b",
        r"probe_mixed.csv:3: Template 10 is of subject 2 here, but of subject 1 before",
    ),
    "two subjects in a file": (
        "1N_probe_mixed.csv",
        "21,2,d",
        "21,1,d",
        r"probe_mixed.csv:5: Template 21 is of subject 1 here, but of subject 2 before",
    ),
    "a probe without faces": (
        "1N_probe_mixed.csv",
        "31,3,a",
        "99,3,a",
        r"probe_mixed.csv:2: No face belongs to template 99",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_meta_files_are_named(folder: Folder, case: str) -> None:
    name, old, new, message = BAD[case]
    lines = folder.meta[name].splitlines(keepends=True)
    at = next(index for index, line in enumerate(lines) if old in line)
    lines[at] = lines[at].replace(old, new)
    folder.meta[name] = "".join(lines)
    with pytest.raises(DatasetError, match=message):
        folder.load()


@pytest.mark.parametrize("image", ["../0.jpg", "/etc/passwd", "a/../../b", "..\\0.jpg", "C:\\0"])
def test_images_outside_the_folder_are_refused(folder: Folder, image: str) -> None:
    for name in ("face_tid_mid.txt", "name_5pts_score.txt"):
        folder.meta[name] = folder.meta[name].replace("\n3.jpg", f"\n{image}")
    with pytest.raises(DatasetError, match=r"tid_mid.txt:4: The image .* lies outside loose_crop"):
        folder.load()


def test_names_that_no_file_can_have_are_refused(folder: Folder) -> None:
    for name in ("face_tid_mid.txt", "name_5pts_score.txt"):
        folder.meta[name] = folder.meta[name].replace("\n3.jpg", "\n3\0.jpg")
    with pytest.raises(DatasetError, match=r"tid_mid.txt:4: The image '3\\x00.jpg' has a name"):
        folder.load()


def test_links_in_the_folder_are_followed(folder: Folder, tmp_path: Path) -> None:
    crop = folder.write() / "loose_crop" / "3.jpg"
    crop.rename(tmp_path / "elsewhere.jpg")
    crop.symlink_to(tmp_path / "elsewhere.jpg")
    release = load_ijb(folder.root)
    assert release.warnings == ()
    assert release.faces().load(3).shape == (112, 112, 3)


def test_images_in_subfolders_and_with_dots_are_fine(folder: Folder) -> None:
    for name in ("face_tid_mid.txt", "name_5pts_score.txt"):
        folder.meta[name] = folder.meta[name].replace("\n3.jpg", "\nsub/3..jpg")
    folder.write()
    (folder.root / "loose_crop" / "sub").mkdir()
    (folder.root / "loose_crop" / "3.jpg").rename(folder.root / "loose_crop" / "sub" / "3..jpg")
    assert load_ijb(folder.root).faces().load(3).shape == (112, 112, 3)


@pytest.mark.parametrize(
    "name", ["face_tid_mid.txt", "name_5pts_score.txt", "template_pair_label.txt"]
)
def test_missing_and_empty_meta_files_are_refused(folder: Folder, name: str) -> None:
    folder.write()
    folder.path(name).write_text("")
    with pytest.raises(DatasetError, match=f"ijbc_{name}: The file is empty"):
        load_ijb(folder.root)
    folder.path(name).unlink()
    with pytest.raises(DatasetError, match=f"ijbc_{name}: The file cannot be read: No such file"):
        load_ijb(folder.root)


def test_folders_that_are_no_release_are_refused(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="not an IJBC release folder: neither meta/ nor IJBC/meta/"
    ):
        load_ijb(tmp_path)
    folder.write(images=False)
    (folder.root / "loose_crop").rmdir()
    with pytest.raises(DatasetError, match="meta/ but no loose_crop/"):
        load_ijb(folder.root)


def test_missing_images_are_a_warning(folder: Folder) -> None:
    folder.write()
    for row in (4, 7):
        (folder.root / "loose_crop" / f"{row}.jpg").unlink()
    release = load_ijb(folder.root)
    assert release.warnings == ("2 of 12 images are missing from loose_crop/, the first 4.jpg.",)
    with pytest.raises(UnreadableImage, match=r"4\.jpg: The image is missing"):
        release.faces().load(4)


@pytest.mark.parametrize(
    ("name", "old", "new", "warning"),
    [
        ("template_pair_label.txt", "10 11 1", "10 11 1\n11 10 1", "1 pairs are repeated"),
        ("template_pair_label.txt", "30 31 1", "30 31 1\n30 30 1", "1 pairs compare a template"),
        ("template_pair_label.txt", "10 21 0", "10 21 1", "1 labels disagree .* first in line 2"),
        ("1N_gallery_G2.csv", "20,2,a", "30,3,a", "no subject for 1 of its templates"),
    ],
)
def test_odd_pairs_are_warnings(
    folder: Folder, name: str, old: str, new: str, warning: str
) -> None:
    folder.edit(name, old, new)
    (found,) = folder.load().warnings
    assert re.search(warning, found)


def test_one_class_is_a_warning(folder: Folder) -> None:
    folder.meta["template_pair_label.txt"] = "10 11 1\n20 21 1\n"
    assert folder.load().warnings == ("ijbc_template_pair_label.txt: there are no impostor pairs.",)


def test_incomplete_one_to_n_is_left_out(folder: Folder) -> None:
    del folder.meta["1N_gallery_G2.csv"]
    release = folder.load()
    assert release.galleries is None
    assert release.probes is None
    assert release.warnings == ("1:N is left out, because meta/ lacks ijbc_1N_gallery_G2.csv.",)


def without_one_to_n(folder: Folder) -> Folder:
    folder.meta = {name: text for name, text in folder.meta.items() if not name.startswith("1N")}
    return folder


@pytest.mark.parametrize("given_one_to_n", [True, False])
def test_subjects(folder: Folder, given_one_to_n: bool) -> None:
    release = (folder if given_one_to_n else without_one_to_n(folder)).load()
    template_id, subject_id = release.subjects()
    assert template_id.tolist() == [10, 11, 20, 21, 30, 31]
    expected = [1, 1, 2, 2, 3, 3] if given_one_to_n else [0, 0, 1, 1, 2, 2]
    assert subject_id.tolist() == expected
    assert (release.galleries is None) == (not given_one_to_n)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
@settings(max_examples=60)
def test_components_are_those_of_a_flood(links: list[tuple[int, int]]) -> None:
    release = bare_release(np.arange(10), [*links, (0, 1)], [True] * len(links) + [False])
    subject = release.subjects().subject_id
    for start in range(10):
        reached, frontier = {start}, [start]
        while frontier:
            here = frontier.pop()
            near = {b if a == here else a for a, b in links if here in (a, b)} - reached
            reached |= near
            frontier += near
        assert set(np.flatnonzero(subject == subject[start])) == reached


def bare_release(
    template_id: np.ndarray, pairs: list[tuple[int, int]], genuine: list[bool]
) -> IjbRelease:
    n = len(template_id)
    return IjbRelease(
        protocol="IJBC",
        name="bare",
        root=Path(),
        images=np.array([f"{i}.jpg" for i in range(n)], np.bytes_),
        points=np.zeros((n, 5, 2), np.float32),
        detector_score=np.ones(n, np.float32),
        template_id=template_id.astype(np.int32),
        media_id=np.arange(n, dtype=np.int32),
        pairs=np.array(pairs, np.int32).reshape(-1, 2),
        genuine=np.array(genuine),
        galleries=None,
        probes=None,
        fingerprint="0",
        meta_sha256={},
        official=False,
        warnings=(),
    )


@pytest.mark.parametrize("given_one_to_n", [True, False])
def test_subset_takes_whole_subjects(folder: Folder, given_one_to_n: bool) -> None:
    release = (folder if given_one_to_n else without_one_to_n(folder)).load()
    part = subset(release, 5)
    assert part.template_id.tolist() == [10, 10, 11, 11, 20, 20, 21, 21]
    assert part.images.tolist() == release.images[:8].tolist()
    assert part.pairs.tolist() == [[10, 11], [10, 21], [20, 11], [20, 21]]
    assert part.genuine.tolist() == [True, False, False, True]
    assert part.name == "ijbc:release:first-8-faces"
    assert part.fingerprint not in (release.fingerprint, subset(release, 12).fingerprint)
    if given_one_to_n:
        assert part.galleries is not None
        assert part.galleries["G1"].template_id.tolist() == [10]
        assert part.galleries["G2"].subject_id.tolist() == [2]
        assert part.probes is not None
        assert part.probes.template_id.tolist() == [11, 21]


def test_subset_has_at_least_two_subjects_and_a_pair(folder: Folder) -> None:
    release = folder.load()
    assert len(subset(release, 1).images) == 8
    assert len(subset(release, 10**6).images) == 12
    with pytest.raises(ValueError, match="at least one face"):
        subset(release, 0)
    late = bare_release(np.arange(6), [(4, 5), (1, 4)], [True, False])
    assert subset(late, 1).pairs.tolist() == [[4, 5], [1, 4]]


def test_positions_by_table_and_by_bisection() -> None:
    small = np.array([0, 4, 9], np.int32)
    queries = np.array([[9, 0], [4, 4]], np.int32)
    for ids, asked in ((small, queries), (small + 2**30, queries + 2**30)):
        assert positions(ids, asked).tolist() == [[2, 0], [1, 1]]


def test_faces_are_aligned_and_red_first(folder: Folder) -> None:
    faces = folder.load().faces()
    assert len(faces) == 12
    assert faces.name(3) == "3.jpg"
    crop = cv2.imread(str(folder.root / "loose_crop" / "3.jpg"))
    points = np.array(FIVE.split(), np.float32).reshape(5, 2)
    np.testing.assert_array_equal(faces.load(3), align(crop, points)[..., ::-1])
    image, digest = faces.load_with_digest(3)
    data = (folder.root / "loose_crop" / "3.jpg").read_bytes()
    assert digest == hashlib.blake2b(data, digest_size=8).digest()
    assert image.flags.c_contiguous
    assert image.dtype == np.uint8


def test_faces_from_threads_equal_those_one_by_one(folder: Folder) -> None:
    faces = folder.load().faces(56)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(faces.load, list(range(12)) * 10))
    for index, face in enumerate(together):
        np.testing.assert_array_equal(face, faces.load(index % 12))


def broken() -> Iterator[tuple[str, bytes]]:
    jpeg, png = encoded(".jpg"), encoded(".png")
    yield "the file is empty", b""
    yield "not an image", b"This is text."
    yield "not an image", jpeg[1:]
    yield "truncated", jpeg[:-2]
    yield "truncated", jpeg[: len(jpeg) // 2]
    yield "truncated", jpeg[:3]
    yield "truncated", png[: len(png) // 2]
    yield "truncated", png[:-12]


@pytest.mark.parametrize(("why", "data"), list(broken()))
def test_broken_images_are_named(folder: Folder, why: str, data: bytes) -> None:
    faces = folder.load().faces()
    (folder.root / "loose_crop" / "5.jpg").write_bytes(data)
    with pytest.raises(UnreadableImage, match=rf"loose_crop/5\.jpg: .*{why}") as caught:
        faces.load(5)
    assert isinstance(caught.value, DatasetError)


def test_an_image_too_long_to_warp_is_unreadable(folder: Folder) -> None:
    faces = folder.load().faces()
    strip = np.zeros((2, 32_768, 3), np.uint8)
    cv2.imwrite(str(folder.root / "loose_crop" / "5.jpg"), strip)
    with pytest.raises(UnreadableImage, match=r"loose_crop/5\.jpg: .*32768x2 pixels"):
        faces.load(5)


def test_folder_instead_of_an_image_and_odd_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    faces = AlignedFaces(tmp_path, np.array([b"a", b"a\0b"]), np.zeros((2, 5, 2), np.float32))
    for index in range(2):
        with pytest.raises(UnreadableImage):
            faces.load(index)


def test_degenerate_points_make_a_face_unreadable(folder: Folder) -> None:
    folder.edit("name_5pts_score.txt", f"6.jpg {FIVE}", "6.jpg" + " 7" * 10)
    faces = folder.load().faces()
    with pytest.raises(UnreadableImage, match=r"6\.jpg: It gives no image: The points co"):
        faces.load(6)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_whole_images_decode_with_or_without_bytes_after_them(suffix: str) -> None:
    data = encoded(suffix)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode(data), expected)
    np.testing.assert_array_equal(decode(data + b"\0\0padding"), expected)


@pytest.mark.parametrize("progressive", [0, 1])
def test_every_cut_of_a_jpeg_is_seen(progressive: int) -> None:
    data = encoded(".jpg", 4, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    assert not is_truncated(data)
    assert all(is_truncated(data[:length]) for length in range(2, len(data)))


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image() -> None:
    data, thumbnail = encoded(".jpg"), encoded(".jpg", 1)
    assert thumbnail.endswith(b"\xff\xd9")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert not is_truncated(whole)
    assert is_truncated(whole[:-2])
    np.testing.assert_array_equal(decode(whole), decode(data))


def test_real_release(shared_data: Path) -> None:
    release = load_ijb(shared_data / "congress", "IJBC")
    assert release.name == "ijbc:congress"
    assert not release.official
    assert release.warnings == ()
    assert len(release.images) == 905
    assert len(np.unique(release.template_id)) == 762
    assert release.pairs.shape == (120_197, 2)
    assert np.count_nonzero(release.genuine) == 223
    meta = shared_data / "congress" / "IJBC" / "meta"
    lines = [line.split() for line in (meta / "ijbc_name_5pts_score.txt").open()]
    np.testing.assert_array_equal(
        release.points.reshape(-1, 10), np.array([line[1:11] for line in lines], np.float32)
    )
    pairs = np.loadtxt(meta / "ijbc_template_pair_label.txt", np.int32)
    np.testing.assert_array_equal(release.pairs, pairs[:, :2])
    np.testing.assert_array_equal(release.genuine, pairs[:, 2] == 1)


def test_real_faces_all_load(shared_data: Path) -> None:
    release = load_ijb(shared_data / "congress", "IJBC")
    faces = release.faces()
    with ThreadPoolExecutor(2) as pool:
        loaded = np.stack(list(pool.map(faces.load, range(len(faces)))))
    assert loaded.shape == (905, 112, 112, 3)
    # Faces are skin in the middle: red above blue on average, and never an empty warp.
    centre = loaded[:, 40:90, 30:82].astype(np.float64)
    assert centre.mean(axis=(1, 2, 3)).min() > 20
    assert (centre[..., 0].mean(axis=(1, 2)) >= centre[..., 2].mean(axis=(1, 2))).mean() > 0.95


def test_ready_made_features_need_no_images(shared_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "IJBC"
    shutil.copytree(shared_data / "congress" / "IJBC" / "meta", copy / "meta")
    with pytest.raises(DatasetError, match="no loose_crop"):
        load_ijb(copy)
    release = load_ijb(copy, need_images=False)
    assert len(release.images) == 905
    assert release.warnings == ()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".pam", ".ppm"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_red_comes_first_where_it_is_asked_for_in_any_format(suffix: str, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, channels), np.uint8)
    try:
        written, data = cv2.imencode(suffix, pixels)
    except cv2.error:
        written = False
    if not written:
        pytest.skip(f"OpenCV writes no {suffix} of {channels} channels")
    try:
        plain = decode(data.tobytes())
    except ValueError:
        pytest.skip(f"OpenCV reads no {suffix} of {channels} channels")
    np.testing.assert_array_equal(decode(data.tobytes(), rgb=True), plain[..., ::-1])
