"""Verification sets in a ``.bin``: layouts, checks, decoding, inspection."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.datasets.encoded import MAX_PIXELS, decode_face, image_header
from evalkit.datasets.errors import DatasetError, UnreadableImage
from evalkit.datasets.lfw import LfwImages, inspect_bin, load_bin


def face(seed, size=(112, 112), suffix=".png"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


FACES = [face(i, (8, 8)) for i in range(24)]
LABELS = [True, False] * 6


def write(path, images=FACES, labels=LABELS, protocol=4):
    path.write_bytes(pickle.dumps((images, labels), protocol))
    return path


# --- layouts -----------------------------------------------------------------------------------

IMAGES_AS = {
    "bytes": lambda images: images,
    "tuple": tuple,
    "vectors": lambda images: [np.frombuffer(i, np.uint8) for i in images],
    "columns": lambda images: [np.frombuffer(i, np.uint8)[:, None] for i in images],
}
LABELS_AS = {
    "bool": list,
    "int": lambda labels: [int(label) for label in labels],
    "numpy_bool": lambda labels: [np.bool_(label) for label in labels],
    "array": np.array,
    "bytes_array": lambda labels: np.array(labels, np.uint8),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("images_as", IMAGES_AS)
@pytest.mark.parametrize("labels_as", LABELS_AS)
def test_every_layout_gives_the_same_set(tmp_path, protocol, images_as, labels_as):
    path = tmp_path / "cfp_fp.bin"
    write(path, IMAGES_AS[images_as](FACES), LABELS_AS[labels_as](LABELS), protocol)
    pairs = load_bin(path)
    assert list(pairs.images) == FACES
    assert pairs.issame.dtype == bool
    assert pairs.issame.tolist() == LABELS
    assert (len(pairs), pairs.name, pairs.path) == (12, "cfp_fp", path)
    assert pairs.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_set_cannot_be_changed(tmp_path):
    pairs = load_bin(write(tmp_path / "a.bin"))
    with pytest.raises(ValueError, match="read-only"):
        pairs.issame[0] = False
    with pytest.raises(AttributeError):
        pairs.name = "b"


def test_the_real_sets(shared_data):
    for name, count in (("cong_hi", 500), ("cong_lo", 440)):
        path = shared_data / "congress" / f"{name}.bin"
        pairs = load_bin(path)
        images, labels = pickle.loads(path.read_bytes(), encoding="bytes")
        assert list(pairs.images) == images
        assert pairs.issame.tolist() == labels
        assert len(pairs) == count
        assert pairs.warnings == ()
        summary = inspect_bin(path)
        assert summary.fold_pairs == (count // 10,) * 10
        assert summary.fold_same == (count // 20,) * 10
        assert summary.sizes == {(112, 112): 2 * count}
        assert summary.formats == {"jpeg": 2 * count}
        assert summary.undecodable == summary.warnings == ()


# --- checks ------------------------------------------------------------------------------------

WRONG = {
    "a label too few": (FACES, LABELS[:-1], "24 images make 12 pairs.* 11 labels; pair 11 "),
    "an image too few": (FACES[:-1], LABELS, "23 images make 11.5 pairs.* 12 labels; pair 11 "),
    "a label too many": (FACES, [*LABELS, True], "13 labels; pair 12 "),
    "no image": ([], [], "no list of images"),
    "text for an image": (
        [*FACES[:3], "x", *FACES[4:]],
        LABELS,
        "second image of pair 1 .* type str",
    ),
    "a list for an image": (
        [*FACES[:2], [], *FACES[3:]],
        LABELS,
        "first image of pair 1 .* type list",
    ),
    "a matrix": ([np.ones((1, 9), np.uint8), *FACES[1:]], LABELS, r"pair 0 .* shape \(1, 9\)"),
    "booleans": ([np.ones(9, bool), *FACES[1:]], LABELS, "pair 0 .* type b1"),
    "a label of 2": (FACES, [1, 2, *LABELS[2:]], "label of pair 1 is 2"),
    "a label of text": (FACES, ["True", *LABELS[1:]], "label of pair 0 is a value of type str"),
    "labels of none": (FACES, None, "no list of labels"),
    "an empty image": ([*FACES[:5], b"", *FACES[6:]], LABELS, "second image of pair 2 .* empty"),
    "a foreign image": (
        [*FACES[:5], b"BM" + bytes(99), *FACES[6:]],
        LABELS,
        "pair 2 .* neither JPEG",
    ),
    "a cut image": ([FACES[0][:-9], *FACES[1:]], LABELS, "first image of pair 0 .* cut off"),
    "a cut JPEG": ([face(1, suffix=".jpg")[:-50], *FACES[1:]], LABELS, "pair 0 .* cut off"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path, case):
    images, labels, message = WRONG[case]
    path = write(tmp_path / "a.bin", images, labels)
    with pytest.raises(DatasetError, match=message) as caught:
        load_bin(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("value", [None, [], ([], [], []), {}, 3, "x", FACES])
def test_other_pickles_are_refused(tmp_path, value):
    path = tmp_path / "a.bin"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DatasetError, match=r"not a pair of images and labels|EMPTY_DICT|no list"):
        load_bin(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        load_bin(tmp_path / "none.bin")
    with pytest.raises(DatasetError, match="not a file"):
        load_bin(tmp_path)
    sparse = tmp_path / "sparse.bin"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DatasetError, match="1,099,511,627,776 bytes"):
        load_bin(sparse)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"# Read me\n", "is no .bin"), (b"\xff\xd8\xff", "is no .bin"), (b"", "empty")],
)
def test_a_file_that_is_no_pickle_raises_no_suspicion(tmp_path, data, message):
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        load_bin(path)
    assert "evalkit pack" in str(caught.value)
    assert "trust" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([True] * 6 + [False] * 6, "contiguous folds hold one kind"),
        ([True] * 5, "only 5 pairs"),
    ],
)
def test_folds_that_cannot_work_are_warned_of(tmp_path, labels, message):
    (warning,) = load_bin(write(tmp_path / "a.bin", FACES[: 2 * len(labels)], labels)).warnings
    assert message in warning


# --- decoding ----------------------------------------------------------------------------------


def test_images_are_decoded_to_rgb_when_asked_for(tmp_path):
    images = LfwImages(load_bin(write(tmp_path / "lfw.bin", [face(i) for i in range(24)])))
    assert len(images) == 24
    assert images.name(17) == "lfw pair 8 second"
    for index in (0, 23):
        bgr = np.random.default_rng(index).integers(0, 256, (112, 112, 3), np.uint8)
        image, digest = images.load_with_digest(index)
        assert (image == bgr[:, :, ::-1]).all()
        assert (images.load(index) == image).all()
        assert digest == hashlib.blake2b(face(index), digest_size=8).digest()


def test_other_sizes_and_grey_images_become_what_the_model_takes(tmp_path):
    grey = cv2.imencode(".jpg", np.full((50, 40), 77, np.uint8))[1].tobytes()
    images = LfwImages(load_bin(write(tmp_path / "a.bin", [grey, *FACES[1:]])), size=96)
    for index in (0, 1):
        assert images.load(index).shape == (96, 96, 3)
    assert (images.load(0) == 77).all()


def test_an_image_that_breaks_while_decoding_names_its_pair(tmp_path):
    broken = bytearray(face(0))
    broken[60:2000] = bytes(1940)  # the header and the end are whole
    images = LfwImages(load_bin(write(tmp_path / "a.bin", [*FACES[:7], bytes(broken), *FACES[8:]])))
    with pytest.raises(UnreadableImage, match=r"a\.bin: The second image of pair 3 is unreadable"):
        images.load_with_digest(7)


def test_threads_may_decode_together(tmp_path):
    images = LfwImages(load_bin(write(tmp_path / "a.bin")))
    expected = [images.load(i).tobytes() for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert [i.tobytes() for i in pool.map(images.load, list(range(24)) * 4)] == expected * 4


def png_of(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def test_images_that_claim_giant_sizes_are_never_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    jpeg = bytearray(face(0, suffix=".jpg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    for bomb in (png_of(40_000, 40_000), png_of(0, 5), bytes(jpeg)):
        with pytest.raises(ValueError, match=rf"pixels; at most {MAX_PIXELS:,}"):
            decode_face(bomb)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("size", [(1, 1), (112, 112), (250, 300)])
def test_headers_tell_format_and_size(suffix, size):
    header = image_header(face(0, size, suffix))
    assert (header.width, header.height) == size
    assert header.format == {".png": "png", ".jpg": "jpeg"}[suffix]


@settings(max_examples=300)
@given(st.sampled_from([face(0, (9, 7), ".jpg"), face(0, (9, 7))]), st.data())
def test_damaged_images_decode_or_give_one_kind_of_error(image, data):
    damaged = bytearray(image[: data.draw(st.integers(0, len(image)))])
    for place in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=4)):
        if damaged:
            damaged[place] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_face(bytes(damaged))
    except ValueError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3


# --- fuzz --------------------------------------------------------------------------------------

SEEDS = {
    protocol: pickle.dumps((IMAGES_AS["bytes"](FACES[:6]), LABELS[:3]), protocol)
    for protocol in (0, 2, 4, 5)
} | {"arrays": pickle.dumps((IMAGES_AS["columns"](FACES[:6]), np.array(LABELS[:3])), 2)}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(SEEDS, key=str)), st.data())
def test_damaged_sets_are_refused_or_read_in_full(tmp_path, seed, data):
    damaged = bytearray(SEEDS[seed])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    path = tmp_path / "a.bin"
    path.write_bytes(damaged)
    try:
        pairs = load_bin(path)
    except DatasetError as error:
        refused = str(error)
        assert refused.startswith(str(path))
        return
    assert len(pairs.images) == 2 * len(pairs.issame) > 0
    assert all(isinstance(image, bytes) for image in pairs.images)


# --- inspection --------------------------------------------------------------------------------


def test_inspection_finds_what_is_odd(tmp_path):
    broken = bytearray(face(0))
    broken[60:2000] = bytes(1940)
    images = [
        *(face(1), face(1)),  # pair 0: one image twice
        *(face(2), face(3, suffix=".jpg")),
        *(face(3, suffix=".jpg"), face(2)),  # pair 2 repeats pair 1, with another label
        *(bytes(broken), b"none"),
        *FACES[:16],
    ]
    labels = [True, True, False, True] + [True, False] * 4
    summary = inspect_bin(write(tmp_path / "odd.bin", images, labels))
    assert (summary.name, summary.pairs, summary.same, summary.different) == ("odd", 12, 7, 5)
    assert summary.file_bytes == (tmp_path / "odd.bin").stat().st_size
    assert sum(summary.fold_pairs) == 12
    assert sum(summary.fold_same) == 7
    assert summary.sizes == {(8, 8): 16, (112, 112): 6}
    assert summary.formats == {"png": 20, "jpeg": 2}
    assert summary.distinct_images == 21
    assert summary.identical_pairs == (0,)
    assert summary.repeated_pairs == (2,)
    assert [index for index, _ in summary.undecodable] == [6, 7]
    text = " ".join(summary.warnings)
    assert "1 pairs hold one image file twice" in text
    assert "1 pairs contradict" in text
    assert "2 images do not decode" in text


# --- memory ------------------------------------------------------------------------------------

# ru_maxrss would start from the memory of the process that runs the tests.
CHILD = """
import json, sys
from evalkit.datasets.lfw import LfwImages, load_bin
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
before = peak()
images = LfwImages(load_bin(sys.argv[1]))
for index in range(0, len(images), 97):
    images.load_with_digest(index)
after = peak()
print(json.dumps([len(images), before, after]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_a_set_of_the_size_of_lfw_takes_little_memory(tmp_path):
    jpeg = face(0, suffix=".jpg")
    images = []
    for index in range(12_000):  # comment segments make each file its own
        comment = index.to_bytes(4, "big") * 8
        images.append(
            jpeg[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + jpeg[2:]
        )
    path = write(tmp_path / "lfw.bin", images, [True, False] * 3000)
    assert path.stat().st_size > 61_000_000
    child = subprocess.run(
        [sys.executable, "-c", CHILD, path], capture_output=True, text=True, check=True
    )
    count, before, after = json.loads(child.stdout)
    assert count == 12_000
    assert after < 600 << 10
    # The file and its images side by side for a moment, and one decoded image.
    assert (after - before) << 10 < 2.2 * path.stat().st_size + (32 << 20)
