"""What ``evalkit lfw`` refuses, what it marks, and which errors it draws."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command
from numpy.typing import NDArray

from evalkit.core.results import load_result
from evalkit.datasets.lfw import LfwPairs, load_bin
from evalkit.protocols.verification import pair_distances
from evalkit.run.inference import SAMPLE_MODEL
from evalkit.tasks.lfw import sheets

pytest.importorskip("onnxruntime", reason="needs the cpu extra")


def damaged(image: bytes) -> bytes:
    """Spoil a PNG's pixels or a JPEG's tables, but neither header nor end."""
    middle = len(image) // 2
    if image.startswith(b"\xff\xd8"):
        table = image.index(b"\xff\xdb")
        return image[: table + 4] + b"\xff" * 8 + image[table + 12 :]
    return image[: middle - 20] + bytes(40) + image[middle + 20 :]


@pytest.fixture
def spoilt(tiny_lfw: Path, tmp_path: Path) -> Path:
    """The sample, the second image of whose pair 3 has a whole frame but does not decode."""
    pairs = load_bin(tiny_lfw)
    images = list(pairs.images)
    images[7] = damaged(images[7])
    path = tmp_path / "spoilt.bin"
    path.write_bytes(pickle.dumps((images, pairs.issame.tolist())))
    load_bin(path)
    return path


def test_an_image_that_does_not_decode_is_an_error_unless_failures_are_allowed(
    evalkit: Command, spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("lfw", "--data", spoilt, "--model", SAMPLE_MODEL, "--output", tmp_path / "r.json")
    assert evalkit(*words) == 2
    shown = capsys.readouterr().err
    assert "second image of pair 3" in shown
    assert "--max-failures" in shown
    assert not (tmp_path / "r.json").exists()
    assert evalkit(*words, "--max-failures", 1) == 0
    (failure,) = load_result(tmp_path / "r.json").failures_to_enrol
    assert failure.name == "spoilt pair 3 second"


def test_embeddings_are_of_one_set(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = tmp_path / "sets"
    sets.mkdir()
    shutil.copy(tiny_lfw, sets / "one.bin")
    np.save(
        tmp_path / "e.npy", np.random.default_rng(0).normal(size=(2 * len(load_bin(tiny_lfw)), 8))
    )
    words = ("lfw", "--data", sets, "--embeddings", tmp_path / "e.npy")
    assert evalkit(*words) == 0
    shutil.copy(tiny_lfw, sets / "two.bin")
    assert evalkit(*words) == 2
    assert "2 sets, but --embeddings are those of one" in capsys.readouterr().err


def test_no_rule_is_refused(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("rules: []\n")
    words = ("--config", tmp_path / "c.yaml", "--errors", tmp_path / "errors")
    assert evalkit("lfw", "--data", tiny_lfw, *words) == 2
    assert "at least one rule" in capsys.readouterr().err


def test_the_folder_of_errors_is_tried_first(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "errors").touch()
    for folder in ("errors", "errors/below"):
        assert evalkit("lfw", "--data", tiny_lfw, "--errors", tmp_path / folder) == 2
        shown = capsys.readouterr()
        assert "--errors" in shown.err
        assert "accuracy" not in shown.out
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("rule", ["facexzoo", "insightface"])
def test_errors_are_those_of_the_distances_that_their_rule_judges(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    pairs = load_bin(tiny_lfw)
    rng = np.random.default_rng(0)
    plain, mirrored = rng.normal(size=(2, 2 * len(pairs), 4))
    for name, array in (("e", plain), ("f", mirrored)):
        np.save(tmp_path / f"{name}.npy", array)
    drawn: list[tuple[list[int], list[float]]] = []

    def draw(
        title: str, held: LfwPairs, rows: NDArray[np.intp], distances: NDArray[Any]
    ) -> NDArray[np.uint8]:
        drawn.append((rows.tolist(), distances[rows].tolist()))
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(sheets, "_sheet", draw)
    words = ("--embeddings", tmp_path / "e.npy", "--embeddings-flip", tmp_path / "f.npy")
    words += ("--rules", rule, "--errors", tmp_path / "errors", "--output", tmp_path / "r.json")
    assert evalkit("lfw", "--data", tiny_lfw, *words) == 0
    judged = pair_distances(plain, None if rule == "facexzoo" else mirrored).squared
    other = pair_distances(plain, mirrored if rule == "facexzoo" else None).squared
    threshold = load_result(tmp_path / "r.json").metric(f"accuracy/{rule}").at["distance"]
    assert threshold is not None
    for (rows, shown), wrong in zip(
        drawn,
        (~pairs.issame & (judged < threshold), pairs.issame & (judged >= threshold)),
        strict=True,
    ):
        assert shown == judged[rows].tolist() != other[rows].tolist()
        assert wrong[rows].all()
        assert len(rows) == min(30, np.count_nonzero(wrong))


def test_a_rate_that_rests_on_few_false_accepts_is_marked(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = load_bin(tiny_lfw)
    path = tmp_path / "three.bin"
    path.write_bytes(pickle.dumps((list(pairs.images) * 3, pairs.issame.tolist() * 3)))
    assert np.count_nonzero(~load_bin(path).issame) == 60
    few, enough = 0.4, 0.5
    np.save(tmp_path / "e.npy", np.random.default_rng(0).normal(size=(6 * len(pairs), 8)))
    words = ("--embeddings", tmp_path / "e.npy", "--far", f"{few},{enough}")
    assert evalkit("lfw", "--data", path, *words, "--output", tmp_path / "r.json") == 0
    flags = {
        (metric.name[:3], metric.at["target"]): metric.flags
        for metric in load_result(tmp_path / "r.json").metrics
        if metric.name.startswith(("val@", "tar@"))
    }
    marked = ("too_few_false_accepts",)
    assert flags == {
        (kind, target): marked if target == few else ()
        for kind in ("val", "tar")
        for target in (few, enough)
    }
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("val@")]
    assert [row.endswith("few") for row in rows] == [True, False]
