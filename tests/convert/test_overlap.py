"""A model that is judged on what it was calibrated with: said where it is so, and only there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
pytest.importorskip("onnx", reason="needs the test extra")

from small_network import write_network, write_pairs, write_people, write_yaml

from evalkit.cli import main
from evalkit.convert.image_sets import load_images
from evalkit.core.progress import Progress
from evalkit.core.sidecar import sidecar_path
from evalkit.datasets.ijb import load_ijb
from evalkit.datasets.lfw import load_bin
from evalkit.datasets.sample import sample_path, write_sample
from sample_painter import paint


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVALKIT_DATA", raising=False)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    return write_yaml(folder / "small.yaml", write_network(folder / "small.onnx"))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("ijbc", tmp_path_factory.mktemp("release") / "IJBC", size="tiny")


def convert(network: Path, out: Path, data: Path, *words: object) -> Path:
    given = ["--to", "int8", "--calibration", data, "--out", out, "--least-cosine", 0, "--quiet"]
    assert main([str(w) for w in ["convert", network, *given, "--samples", 20, *words]]) == 0
    return write_yaml(out.with_suffix(".yaml"), out)


def warnings(what: str, model: Path, data: Path, *words: object) -> list[str]:
    out = model.with_name("result.json")
    given = ["--data", data, "--model", model, "--precision", "int8", "--output", out, "--quiet"]
    assert main([str(w) for w in [what, *given, *words]]) == 0
    told: list[str] = json.loads(out.read_text())["warnings"]
    return [text for text in told if "calibrated" in text]


def forget(model: Path, *names: str) -> None:
    """Make the record one of an earlier evalkit, which knew less."""
    path = sidecar_path(model.with_suffix(".onnx"))
    record = json.loads(path.read_text())
    for name in names:
        del record["calibration"][name]
    path.write_text(json.dumps(record))


def test_people_and_images_of_a_release_are_counted(
    network: Path, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = convert(network, tmp_path / "int8.onnx", release)
    calibration = json.loads(sidecar_path(tmp_path / "int8.onnx").read_text())["calibration"]
    whole = load_ijb(release, "IJBC")
    people = len(set(whole.subjects().subject_of(whole.template_id).tolist()))
    capsys.readouterr()
    (warning,) = warnings("ijbc", model, release)
    assert f"on {len(calibration['identities'])} of the {people} identities and" in warning
    images = [Path(name).stem for name, _ in calibration["images"]]
    shown = sum(Path(name.decode()).stem in images for name in whole.images.tolist())
    assert f"and {shown} of the {len(whole.images)} images that are evaluated" in warning
    assert f"warning: {warning}" in capsys.readouterr().out
    assert (
        "digests" not in json.loads((tmp_path / "result.json").read_text())["model"]["conversion"]
    )
    (limited,) = warnings("ijbc", model, release, "--limit", 5)
    assert limited != warning


def test_what_a_calibration_has_in_common_without_digests(
    network: Path, release: Path, tmp_path: Path
) -> None:
    model = convert(network, tmp_path / "int8.onnx", release)
    forget(model, "digests")
    (warning,) = warnings("ijbc", model, release)
    assert "identities that are evaluated here" in warning
    pairs = write_pairs(tmp_path / "pairs.bin", 40)
    model = convert(network, tmp_path / "lfw.onnx", pairs)
    (warning,) = warnings("lfw", model, pairs)
    assert "calibrated on 20 of the 80 images" in warning
    forget(model, "digests")
    (warning,) = warnings("lfw", model, pairs)
    assert "calibrated on 20 images of the data set" in warning
    assert warnings("lfw", model, write_pairs(tmp_path / "others.bin", 40, first=500)) == []


def test_who_was_held_out_is_not_warned_of(network: Path, release: Path, tmp_path: Path) -> None:
    pairs, people = write_pairs(tmp_path / "pairs.bin", 20), write_people(tmp_path / "all", 40)
    model = convert(network, tmp_path / "int8.onnx", people, "--samples", 60)
    assert len(warnings("lfw", model, pairs)) == 1  # the pictures 0 to 39 are in both
    told = convert(network, tmp_path / "apart.onnx", people, "--evaluated", pairs)
    assert warnings("lfw", told, pairs) == []


def test_what_needs_no_calibration_is_not_warned_of(network: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxconverter_common", reason="needs the convert extra")
    pairs = write_pairs(tmp_path / "pairs.bin", 20)
    plain = convert(network, tmp_path / "fp16.onnx", pairs, "--to", "fp16")
    assert warnings("lfw", plain, pairs, "--precision", "fp16") == []


def test_the_same_numbers_of_other_people_are_no_overlap(
    network: Path, release: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    paint("ijb", other, size=6, seed=1)
    model = convert(network, tmp_path / "int8.onnx", other)
    calibration = json.loads(sidecar_path(tmp_path / "int8.onnx").read_text())["calibration"]
    assert "IJBC subject" in calibration["identities"][0]
    assert warnings("ijbc", model, release) == []


def test_the_embedded_sample_calibrates_with_others_than_it_evaluates() -> None:
    evaluated = {bytes(image) for image in load_bin(sample_path("lfw")).images}
    with load_images(None, "faces", 112, Progress(quiet=True)) as calibrating:
        assert len(calibrating.source) == 520  # half of them make the default of 256
        assert not evaluated & {calibrating.content(row) for row in range(520)}


def test_a_record_with_odd_values_is_refused(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path / "pairs.bin", 20)
    model = convert(network, tmp_path / "int8.onnx", pairs, "--samples", 4)
    path = sidecar_path(tmp_path / "int8.onnx")
    record = json.loads(path.read_text())
    for name, value in [("digests", ["xyz"]), ("digests", ["00"]), ("path", 3), ("identities", 4)]:
        changed = {**record, "calibration": {**record["calibration"], name: value}}
        path.write_text(json.dumps(changed))
        words = ["lfw", "--data", pairs, "--model", model, "--precision", "int8", "--quiet"]
        assert main([str(w) for w in words]) == 2
        assert "not a record of a conversion" in capsys.readouterr().err
