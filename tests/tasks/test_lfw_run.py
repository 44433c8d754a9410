"""``evalkit lfw``, ``pack`` and ``inspect`` from the command line, on a tiny sample."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import Command

from evalkit.core.errors import InputError
from evalkit.core.results import Result, load_result
from evalkit.datasets.lfw import LfwImages, load_bin
from evalkit.protocols.verification import evaluate
from evalkit.run.inference import SAMPLE_MODEL

pytest.importorskip("onnxruntime", reason="needs the cpu extra")


def test_the_figures_are_the_protocols(evalkit: Command, tiny_lfw: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert evalkit("lfw", "--data", tiny_lfw, "--output", out, "--far", "1e-2") == 0
    held = load_result(out)
    assert held.dataset.name == tiny_lfw.stem
    with np.load(tmp_path / "r.scores.npz") as scores:
        distances, same = scores["distances"], scores["issame"]
    np.testing.assert_array_equal(same, load_bin(tiny_lfw).issame)
    best = max(
        np.mean((distances < threshold) == same) for threshold in np.append(distances + 1e-9, 0)
    )
    exact = held.metric("accuracy/exact")
    assert exact.value is not None
    assert exact.value <= best + 1e-12
    assert exact.interval is not None
    assert "pair-level" in exact.interval.method
    assert len(exact.series["fold_accuracy"]) == 10
    assert held.metric("accuracy/insightface/no-flip").value is not None
    assert held.metric("val@far=1e-02").counts["impostors"] == held.dataset.counts["impostors"]


def test_ready_made_embeddings(evalkit: Command, tiny_lfw: Path, tmp_path: Path) -> None:
    pairs = load_bin(tiny_lfw)
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(2 * len(pairs), 8)).astype(np.float32)
    plain[1::2][pairs.issame] = plain[::2][pairs.issame]
    mirrored = plain + rng.normal(scale=0.1, size=plain.shape).astype(np.float32)
    np.save(tmp_path / "e.npy", plain)
    np.save(tmp_path / "f.npy", mirrored)
    words = ("--embeddings", tmp_path / "e.npy", "--embeddings-flip", tmp_path / "f.npy")
    assert evalkit("lfw", "--data", tiny_lfw, *words, "--output", tmp_path / "r.json") == 0
    wanted = evaluate(plain, pairs.issame, mirrored)
    held = load_result(tmp_path / "r.json")
    for fold in wanted.accuracy:
        assert held.metric(f"accuracy/{fold.rule}").value == fold.accuracy
    assert held.metric("auc").value == wanted.auc


def test_a_folder_of_sets_is_one_table(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = tmp_path / "sets"
    sets.mkdir()
    for name in ("one", "two"):
        shutil.copy(tiny_lfw, sets / f"{name}.bin")
    words = ("--data", sets, "--model", SAMPLE_MODEL, "--quiet", "--output", tmp_path / "r.json")
    assert evalkit("lfw", *words) == 0
    shown = capsys.readouterr().out
    assert shown.count("\none ") == shown.count("\ntwo ") == 6
    rates = ("val@far=1e-03", "tar@far=1e-03", "auc", "eer")
    assert f"set flip {' % '.join(rates)} %" in " ".join(shown.split())
    held = load_result(tmp_path / "r.two.json")
    for flip, mark in (("sum", ""), ("none", "/no-flip")):
        values = [100 * (held.metric(rate + mark).value or 0) for rate in rates]
        few = ("*", "*", "", "")
        wanted = [f"{value:.2f}{mark}" for value, mark in zip(values, few, strict=True)]
        assert ["two", flip, *wanted] in [line.split() for line in shown.splitlines()]
    assert "*: under 30 false accepts" in shown
    assert load_result(tmp_path / "r.one.json").dataset.name == "one"
    assert load_result(tmp_path / "r.two.json").dataset.name == "two"


def test_errors_are_pictures(evalkit: Command, tiny_lfw: Path, tmp_path: Path) -> None:
    assert evalkit("lfw", "--data", tiny_lfw, "--errors", tmp_path / "errors") == 0
    sheets = sorted((tmp_path / "errors").iterdir())
    assert [sheet.name.rpartition("-false-")[2] for sheet in sheets] == [
        "accepts.png",
        "rejects.png",
    ]
    for sheet in sheets:
        picture = cv2.imread(str(sheet))
        assert picture is not None
        assert picture.std() > 5


def test_a_hostile_file_is_refused(
    evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "owned",))

    (tmp_path / "evil.bin").write_bytes(pickle.dumps(([Evil()], [True])))
    assert evalkit("lfw", "--data", tmp_path / "evil.bin") == 2
    assert not (tmp_path / "owned").exists()
    shown = capsys.readouterr().err
    assert "evil.bin" in shown
    assert "Traceback" not in shown


def test_packing_and_inspecting(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = LfwImages(load_bin(tiny_lfw))
    for index in range(40):
        person = tmp_path / "people" / f"person{index // 2:02d}"
        person.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(person / f"{index % 2}.png"), images.load(index)[:, :, ::-1])
    out = tmp_path / "mine.bin"
    words = ("--images", tmp_path / "people", "--count", 20, "--out", out)
    assert evalkit("pack", "lfw", *words) == 0
    with out.open("rb") as file:
        bins, issame = pickle.load(file, encoding="bytes")
    assert len(bins) == 2 * len(issame) == 40
    capsys.readouterr()
    assert evalkit("inspect", out) == 0
    shown = capsys.readouterr().out
    assert "20: 10 same, 10 different" in shown
    assert "112x112: 40" in shown
    assert evalkit("lfw", "--data", out, "--model", SAMPLE_MODEL) == 0


def test_pack_says_what_is_missing(
    evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evalkit("pack", "lfw", "--out", tmp_path / "x.bin") == 2
    assert "--images is missing" in capsys.readouterr().err


def test_other_data_need_a_model(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(tiny_lfw, tmp_path / "mine.bin")
    assert evalkit("lfw", "--data", tmp_path / "mine.bin") == 2
    shown = capsys.readouterr().err
    assert "--model sample-recognition runs the embedded network" in shown
    assert not (tmp_path / "cache" / "outputs").exists()


def test_a_set_of_one_kind_is_refused_before_inference(
    evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = cv2.imencode(".png", np.zeros((112, 112, 3), np.uint8))[1].tobytes()
    (tmp_path / "mine.bin").write_bytes(pickle.dumps(([image] * 40, [True] * 20)))
    assert evalkit("lfw", "--data", tmp_path / "mine.bin", "--model", SAMPLE_MODEL) == 2
    assert "All 20 pairs are of the kind 'same'" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "outputs").exists()


def test_rates_and_rules_have_names_of_their_own(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    words = ("--far", "0.12,0.14,0.1", "--rules", "exact,exact", "--output", out)
    assert evalkit("lfw", "--data", tiny_lfw, *words) == 0
    names = [metric.name for metric in load_result(out).metrics]
    assert len(set(names)) == len(names)
    assert {"val@far=1.2e-01", "val@far=1.4e-01", "tar@far=1e-01"} <= set(names)


def test_too_many_ready_made_failures_stop_the_run(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = np.random.default_rng(0).normal(size=(2 * len(load_bin(tiny_lfw)), 8))
    plain[:3] = 0
    np.save(tmp_path / "e.npy", plain)
    words = ("lfw", "--data", tiny_lfw, "--embeddings", tmp_path / "e.npy")
    assert evalkit(*words, "--max-failures", 3, "--output", tmp_path / "r.json") == 0
    assert len(load_result(tmp_path / "r.json").failures_to_enrol) == 3
    assert evalkit(*words, "--max-failures", 2) == 2
    assert "3 failures to enrol, more than --max-failures 2" in capsys.readouterr().err


def test_images_that_are_cut_off_are_failures_where_the_user_allows_them(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = load_bin(tiny_lfw)
    images = [bytes(image) for image in held.images]
    images[3] = images[3][:-40]
    images[8] = b""
    (tmp_path / "cut.bin").write_bytes(pickle.dumps((images, held.issame.tolist())))
    words = ("lfw", "--data", tmp_path / "cut.bin", "--model", SAMPLE_MODEL)
    assert evalkit(*words) == 2
    assert "second image of pair 1 is unreadable: it is cut off" in capsys.readouterr().err
    assert evalkit(*words, "--max-failures", 2, "--output", tmp_path / "r.json") == 0
    failures = load_result(tmp_path / "r.json").failures_to_enrol
    said = [failure.reason.split(" is unreadable: ")[1] for failure in failures]
    assert said == ["it is cut off.", "it is empty."]


def test_the_table_is_shown_though_the_result_cannot_be_written(
    evalkit: Command, tiny_lfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(Result, "save", full)
    assert evalkit("lfw", "--data", tiny_lfw, "--output", tmp_path / "r.json") == 2
    shown = capsys.readouterr()
    assert "accuracy %" in shown.out
    assert "the disk is full" in shown.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flip", "plain"),
    [
        ("cong_hi", (0.99600, 0.01200, 0.983), (0.99600, 0.01200, 1.031)),
        ("cong_lo", (0.99318, 0.01041, 1.496), (0.98864, 0.01525, 1.418)),
    ],
)
def test_real_faces_and_a_real_model(
    evalkit: Command,
    shared_data: Path,
    tmp_path: Path,
    name: str,
    flip: tuple[float, ...],
    plain: tuple[float, ...],
) -> None:
    """Independent figures: accuracy, its deviation and mean threshold, with flips and without."""
    out = tmp_path / "r.json"
    words = (
        "--data", shared_data / "congress" / f"{name}.bin",
        "--model", shared_data / "models" / "mobilefacenet.onnx",
        "--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375", "--output", out,
    )  # fmt: skip
    assert evalkit("lfw", *words) == 0
    for mark, wanted in (("", flip), ("/no-flip", plain)):
        metric = load_result(out).metric(f"accuracy/insightface{mark}")
        found = (metric.value, metric.at["population_std"], metric.at["distance"])
        assert found == (
            pytest.approx(wanted[0], abs=5e-6),
            pytest.approx(wanted[1], abs=5e-6),
            pytest.approx(wanted[2], abs=5e-4),
        )
