"""Drawing images: who calibrates is not who is compared, and what is recorded is what was drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx", reason="needs the test extra")

from small_network import SIDE, encoded, picture, write_pairs, write_people  # noqa: E402

from evalkit.backends.base import Ran, Session, TensorInfo  # noqa: E402
from evalkit.convert.calibration import Drawn, ImageBatches, draw  # noqa: E402
from evalkit.convert.image_sets import ImageSet, load_images  # noqa: E402
from evalkit.core.errors import InputError  # noqa: E402
from evalkit.core.progress import Progress  # noqa: E402
from evalkit.core.settings import InputSpec  # noqa: E402
from evalkit.datasets.errors import DatasetError  # noqa: E402
from evalkit.datasets.sample import write_sample  # noqa: E402
from evalkit.run.embedder import Embedder  # noqa: E402
from evalkit.run.pipeline import Normaliser, read_images  # noqa: E402

QUIET = Progress(quiet=True)
SPEC = InputSpec(size=(SIDE, SIDE), color="bgr", mean=(1.0, 2.0, 3.0), std=50.0)


def load(path: Path) -> ImageSet:
    with load_images(path, "faces", SIDE, QUIET) as images:
        return images


def drawn(images: ImageSet, samples: int = 8, held_out: int = 8, seed: int = 0) -> Drawn:
    return draw(
        images, samples=samples, held_out=held_out, seed=seed, evaluated=None, progress=QUIET
    )


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"), 8)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "small.bin", 30)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("ijbc", tmp_path_factory.mktemp("release") / "IJBC", size="tiny")


@pytest.fixture(params=["people", "pairs", "release"])
def images(request: pytest.FixtureRequest) -> ImageSet:
    return load(request.getfixturevalue(request.param))


class Numbers:
    """A source of images that have only names."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return str(index)


@settings(max_examples=30)
@given(seed=st.integers(0, 1 << 32), samples=st.integers(1, 40), held_out=st.integers(1, 40))
def test_no_identity_both_calibrates_and_is_compared(
    seed: int, samples: int, held_out: int
) -> None:
    groups = np.repeat(np.arange(7), [1, 9, 2, 5, 3, 3, 4])
    source: Any = Numbers(27)
    found = drawn(
        ImageSet("x", Path("x"), "0", "faces", source, lambda i: b"%d" % i, groups),
        samples,
        held_out,
        seed,
    )
    one, other = groups[found.calibration], groups[found.held_out]
    assert not set(one.tolist()) & set(other.tolist())
    assert len(set(found.calibration.tolist())) == len(found.calibration) <= samples
    assert len(found.held_out) <= held_out


def test_groups_are_kept_apart_in_every_format(images: ImageSet) -> None:
    found = drawn(images)
    one = images.groups[found.calibration]
    assert not set(one.tolist()) & set(images.groups[found.held_out].tolist())
    again, another = drawn(images), drawn(images, seed=1)
    assert again.record == found.record
    assert another.record["sha256"] != found.record["sha256"]


def test_the_record_holds_names_and_hashes_of_the_files(people: Path) -> None:
    found = drawn(load(people))
    assert found.record["count"] == 8 == len(found.record["images"])
    for name, sha256 in found.record["images"]:
        assert hashlib.sha256((people / f"{name}.png").read_bytes()).hexdigest() == sha256
    names = {Path(name).parent.name for name, _ in found.record["images"]}
    assert {f"folder {name}" for name in names} == set(found.record["identities"])


def test_images_in_one_folder_have_no_identities(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(encoded(number))
    found = drawn(load(tmp_path))
    assert found.record["identities"] is None
    assert len(found.calibration) == len(found.held_out) == 2


def test_pairs_are_held_out_whole(pairs: Path) -> None:
    found = drawn(load(pairs), held_out=20)
    assert sorted(found.held_out // 2) == sorted([*(found.held_out[::2] // 2)] * 2)
    assert load(pairs).issame is not None


def test_who_is_evaluated_is_not_drawn(tmp_path: Path) -> None:
    ours = write_people(tmp_path / "ours", 6)
    theirs = write_people(tmp_path / "theirs", 2, first=100)  # two names, other pictures
    (theirs / "other").mkdir()
    copied = (ours / "person-5" / "0.png").read_bytes()
    (theirs / "other" / "copy.png").write_bytes(copied)  # a picture, another name
    found = draw(
        load(ours), samples=99, held_out=99, seed=0, evaluated=load(theirs), progress=QUIET
    )
    both = [*found.record["images"], *found.record["held_out"]["images"]]
    assert {name.split("/")[0] for name, _ in both} == {f"person-{n}" for n in (2, 3, 4, 5)}
    assert hashlib.sha256(copied).hexdigest() not in [sha256 for _, sha256 in both]
    assert len(both) == 11


def test_calibrating_with_what_is_evaluated_is_said(pairs: Path) -> None:
    found = draw(load(pairs), samples=4, held_out=4, seed=0, evaluated=load(pairs), progress=QUIET)
    assert "both calibrated with and evaluated" in found.warnings[0]
    assert found.record["warnings"] == list(found.warnings)


def test_people_who_cannot_be_kept_apart_are_told(pairs: Path, tmp_path: Path) -> None:
    ours = write_people(tmp_path / "ours", 6, first=100)

    def said(evaluated: Path) -> tuple[str, ...]:
        return draw(
            load(ours), samples=4, held_out=4, seed=0, evaluated=load(evaluated), progress=QUIET
        ).warnings

    (warning,) = said(pairs)
    assert "say who is on their images" in warning
    assert warning.startswith(load(pairs).name)
    assert said(write_people(tmp_path / "theirs", 2, first=200)) == ()


def test_too_few_images_are_told(tmp_path: Path, people: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded(1))
    with pytest.raises(InputError, match="1 images to calibrate with and 0 to compare"):
        drawn(load(tmp_path))
    assert "Only 12 images" in drawn(load(people), samples=50).warnings[0]


def test_an_empty_folder_and_the_wrong_kind_are_told(
    tmp_path: Path, people: Path, pairs: Path
) -> None:
    with pytest.raises(InputError, match="holds no image"):
        load(tmp_path)
    with pytest.raises(InputError, match="There is no calibration data"):
        load(tmp_path / "gone")
    with pytest.raises(InputError, match="holds faces, but the model takes photographs"):
        load_images(pairs, "photographs", 0, QUIET).__enter__()


class AnyBatch(Session):
    """A model that is never run."""

    inputs = (TensorInfo("input", "float32", ("n", 3, SIDE, SIDE)),)
    outputs = ()
    ran = Ran("test", "0", "cpu", "fp32", "fp32", 1)

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        raise NotImplementedError


def test_batches_are_prepared_as_for_an_evaluation(pairs: Path) -> None:
    images = load(pairs)
    normalise = Normaliser(SPEC)
    rows = np.array([5, 0, 17])
    batches = ImageBatches(
        images, rows, normalise, lambda image: image, (SIDE, SIDE), batch=2, full=False
    )
    embedder = Embedder(AnyBatch(), SPEC, flip=False, output=None, batch_size=3)
    pixels, _ = read_images(images.source, rows.tolist())
    evaluated = embedder.prepare(pixels, len(rows)).tensor
    assert [len(batch) for batch in batches] == [2, 1] == [len(batch) for batch in batches]
    assert len(batches) == 2
    np.testing.assert_array_equal(np.concatenate(list(batches)), evaluated)
    blue = (picture(5)[..., 0].astype(np.float32) - 1) / 50  # as OpenCV encoded it
    np.testing.assert_allclose(next(iter(batches))[0, 0], blue, rtol=1e-6)


def test_a_fixed_batch_is_filled_up(pairs: Path) -> None:
    images = load(pairs)
    batches = ImageBatches(
        images, np.arange(5), Normaliser(SPEC), lambda x: x, (SIDE, SIDE), batch=4, full=True
    )
    first, second = batches
    np.testing.assert_array_equal(second[1:], first[:3])


def test_values_that_overflow_are_told(pairs: Path) -> None:
    spec = InputSpec(size=(SIDE, SIDE), mean=3e38, std=1e-8)
    with np.errstate(over="ignore"):
        normalise = Normaliser(spec)
    batches = ImageBatches(
        load(pairs), np.arange(2), normalise, lambda x: x, (SIDE, SIDE), batch=2, full=False
    )
    with pytest.raises(InputError, match="NaN or infinite values"):
        next(iter(batches))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    images = load(tmp_path)
    batches = ImageBatches(
        images, np.arange(2), Normaliser(SPEC), lambda x: x, (SIDE, SIDE), batch=2, full=False
    )
    with pytest.raises(DatasetError, match=r"0\.png.*OpenCV can decode"):
        next(iter(batches))
