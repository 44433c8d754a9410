"""``evalkit ijbc`` from the command line, on a tiny sample with the packaged network."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import Command, spawn
from hypothesis import given
from hypothesis import strategies as st

from evalkit.core.errors import InputError
from evalkit.core.results import Result, load_result
from evalkit.core.settings import RunSettings, load_model_config
from evalkit.core.store import Store
from evalkit.datasets.ijb import load_ijb
from evalkit.protocols.fusion import FusionSwitches, fuse_templates
from evalkit.protocols.templates import score_pairs, verification_points
from evalkit.run.inference import SAMPLE_MODEL
from evalkit.tasks.figures import rate_name
from evalkit.tasks.ijb.settings import IjbSettings

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the cpu extra")


@pytest.fixture
def result(evalkit: Command, tiny_ijbc: Path, tmp_path: Path) -> Result:
    code = evalkit("ijbc", "--data", tiny_ijbc, "--output", tmp_path / "r.json", "--one-to-n")
    assert code == 0
    return load_result(tmp_path / "r.json")


def slow_features(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features by the plainest means: one image, one run, formula in float32."""
    config = load_model_config(SAMPLE_MODEL, RunSettings())
    session = onnxruntime.InferenceSession(
        str(config.file_for("onnxruntime")), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    faces = load_ijb(data, "IJBC").faces()
    rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for index in range(len(faces)):
        image = (faces.load(index).astype(np.float32) - 127.5) / 127.5
        for row, view in zip(rows, (image, image[:, ::-1]), strict=True):
            tensor = np.ascontiguousarray(view.transpose(2, 0, 1)[None])
            row.append(session.run(None, {name: tensor})[0][0])
    return np.array(rows[0]), np.array(rows[1])


def test_the_run_equals_the_plain_way(result: Result, tiny_ijbc: Path, tmp_path: Path) -> None:
    release = load_ijb(tiny_ijbc, "IJBC")
    plain, mirrored = slow_features(tiny_ijbc)
    templates = fuse_templates(
        plain, release.template_id, release.media_id, features_flip=mirrored,
        detector_scores=release.detector_score, switches=FusionSwitches(),
    )  # fmt: skip
    scores = score_pairs(templates, release.pairs)
    with np.load(tmp_path / "r.scores.npz") as held:
        np.testing.assert_allclose(held["scores"], scores, atol=2e-5)
        np.testing.assert_array_equal(held["genuine"], release.genuine)
    for point in verification_points(scores, release.genuine):
        assert result.metric(f"tar@far={point.target:.0e}").value == pytest.approx(point.tar)


def test_the_result_names_what_it_is_of(result: Result) -> None:
    assert result.status == "complete"
    assert result.dataset.name.startswith("evalkit-sample")
    assert result.dataset.content_sha256
    assert result.ran.precision_ran == "fp32"
    assert result.model.sha256
    assert {"load", "decode", "inference"} <= {stage.name for stage in result.stages}
    assert result.metric("tpir@fpir=0.1").value is not None
    assert result.metric("rank-1").counts["mated"] > 0


def test_stored_outputs_are_used_again(
    evalkit: Command, result: Result, tiny_ijbc: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    again = tmp_path / "again.json"
    words = ("--rule", "insightface_nearest", "--no-detector-score", "--output", again)
    assert evalkit("ijbc", "--data", tiny_ijbc, "--overwrite", "never", *words) == 0
    shown = capsys.readouterr()
    assert "resuming" in shown.err
    reused = next(s for s in load_result(again).stages if s.name == "inference")
    assert reused.reused_items == reused.items == result.dataset.counts["faces"]


def test_ready_made_input_gives_the_same_figures(
    evalkit: Command, result: Result, tiny_ijbc: Path, tmp_path: Path
) -> None:
    plain, mirrored = slow_features(tiny_ijbc)
    np.save(tmp_path / "f.npy", plain)
    np.save(tmp_path / "m.npy", mirrored)
    ways = {
        "features": ("--features", tmp_path / "f.npy", "--features-flip", tmp_path / "m.npy"),
        "scores": ("--scores", tmp_path / "r.scores.npz"),
    }
    for name, words in ways.items():
        out = tmp_path / f"{name}.json"
        assert evalkit("ijbc", "--data", tiny_ijbc, *words, "--output", out) == 0
        held = load_result(out)
        assert held.ran.backend == "ready-made"
        for metric in result.metrics:
            if metric.name.startswith("tar@"):
                assert held.metric(metric.name).value == pytest.approx(metric.value)


def test_features_without_mirrors_are_taken_as_they_are(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "f.npy", slow_features(tiny_ijbc)[0])
    words = ("ijbc", "--data", tiny_ijbc, "--features", tmp_path / "f.npy")
    assert evalkit(*words, "--output", tmp_path / "r.json") == 0
    assert load_result(tmp_path / "r.json").settings["flip"] == "none"
    assert evalkit(*words, "--flip", "sum") == 2
    assert "--features-flip" in capsys.readouterr().err


@pytest.fixture
def templates(tiny_ijbc: Path, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A file of random templates, and their ids; the first is zero, the second not finite."""
    ids = np.unique(load_ijb(tiny_ijbc).template_id)
    features = np.random.default_rng(0).normal(size=(len(ids), 8)).astype(np.float32)
    features[0], features[1] = 0, np.nan
    np.savez(tmp_path / "t.npz", template_id=ids, features=features)
    return tmp_path / "t.npz", ids


def test_failed_templates_are_named(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, templates: tuple[Path, np.ndarray],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file, ids = templates
    words = ("ijbc", "--data", tiny_ijbc, "--templates", file)
    assert evalkit(*words, "--output", tmp_path / "r.json") == 0
    held = load_result(tmp_path / "r.json")
    assert [f.name for f in held.failures_to_enrol] == [f"template {name}" for name in ids[:2]]
    assert f"2 ({ids[0]}, {ids[1]})" in held.warnings[-1]
    assert "failures to enrol: 2" in capsys.readouterr().out
    assert evalkit(*words, "--max-failures", 1) == 2
    assert "2 failures to enrol, more than --max-failures 1" in capsys.readouterr().err


def test_fusion_elsewhere_is_not_claimed(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, templates: tuple[Path, np.ndarray],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pairs = len(load_ijb(tiny_ijbc).pairs)
    np.savez(tmp_path / "s.npz", scores=np.linspace(0, 1, pairs))
    for words in (("--templates", templates[0]), ("--scores", tmp_path / "s.npz")):
        out = tmp_path / "r.json"
        assert evalkit("ijbc", "--data", tiny_ijbc, *words, "--output", out) == 0
        assert "fusion: unknown, made elsewhere; rule at_most" in capsys.readouterr().out
        held = load_result(out).settings
        assert [held[name] for name in ("keep_norm", "detector_score", "flip")] == [None] * 3


def test_failed_features_name_faces_and_else_templates(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = load_ijb(tiny_ijbc)
    features = np.random.default_rng(0).normal(size=(len(release.images), 8)).astype(np.float32)
    ids, counts = np.unique(release.template_id, return_counts=True)
    lone, many = ids[0], ids[np.flatnonzero(counts > 1)[-1]]
    features[release.template_id == lone] = np.nan
    # Faces that are as they should be, and a sum that is more than float32 holds.
    features[release.template_id == many] = 3e38
    np.save(tmp_path / "f.npy", features)
    words = ("ijbc", "--data", tiny_ijbc, "--features", tmp_path / "f.npy", "--keep-norm")
    assert evalkit(*words, "--no-detector-score", "--output", tmp_path / "r.json") == 0
    held = load_result(tmp_path / "r.json")
    faces = [name.decode() for name in release.images[release.template_id == lone]]
    named = [failure.name for failure in held.failures_to_enrol]
    assert named == [*faces, f"template {many}"]
    assert f"({lone}, {many})" in held.warnings[-1]
    assert evalkit(*words, "--max-failures", 0) == 2
    assert "failures to enrol, more than --max-failures 0" in capsys.readouterr().err


def test_scores_that_are_none_are_counted(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = len(load_ijb(tiny_ijbc).pairs)
    scores = np.full(pairs, np.nan, np.float32)
    words = ("ijbc", "--data", tiny_ijbc, "--scores", tmp_path / "s.npy")
    np.save(tmp_path / "s.npy", scores)
    assert evalkit(*words, "--output", tmp_path / "r.json") == 0
    shown = capsys.readouterr().out
    assert f"{pairs:,} of {pairs:,} pairs: the score is not finite." in shown
    row = next(line.split() for line in shown.splitlines() if " 1e-03 " in line)
    assert row[row.index("1e-03") + 3] == "-"
    scores[3:] = np.linspace(0, 1, pairs - 3)
    np.save(tmp_path / "s.npy", scores)
    assert evalkit(*words, "--output", tmp_path / "r.json") == 0
    (failure,) = load_result(tmp_path / "r.json").failures_to_enrol
    assert failure.name == f"3 of {pairs:,} pairs"


def test_an_empty_file_of_templates_is_refused(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "t.npz", template_id=np.empty(0, int), features=np.empty((0, 8)))
    assert evalkit("ijbc", "--data", tiny_ijbc, "--templates", tmp_path / "t.npz") == 2
    assert "t.npz holds no templates" in capsys.readouterr().err


def test_rates_are_named_exactly(evalkit: Command, tiny_ijbc: Path, tmp_path: Path) -> None:
    pairs = len(load_ijb(tiny_ijbc).pairs)
    np.save(tmp_path / "s.npy", np.linspace(0, 1, pairs))
    words = ("--scores", tmp_path / "s.npy", "--far", "0.14,0.12,0.045,1e-4")
    assert evalkit("ijbc", "--data", tiny_ijbc, *words, "--output", tmp_path / "r.json") == 0
    names = [metric.name for metric in load_result(tmp_path / "r.json").metrics]
    assert names == [f"tar@far={rate}" for rate in ("1e-04", "4.5e-02", "1.2e-01", "1.4e-01")]


@given(st.floats(1e-9, 1, exclude_max=True))
def test_the_name_of_a_rate_is_the_rate(rate: float) -> None:
    assert float(rate_name(rate)) == rate


@pytest.mark.parametrize(("exponent", "name"), [(k, f"1e-{k:02d}") for k in range(1, 10)])
def test_usual_rates_keep_their_names(exponent: int, name: str) -> None:
    assert rate_name(float(f"1e-{exponent}")) == name


def test_a_result_has_no_two_metrics_of_one_name(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pairs = len(load_ijb(tiny_ijbc).pairs)
    np.save(tmp_path / "s.npy", np.linspace(0, 1, pairs))
    monkeypatch.setattr("evalkit.tasks.figures.rate_name", lambda _: "same")
    assert evalkit("ijbc", "--data", tiny_ijbc, "--scores", tmp_path / "s.npy") == 70
    assert "metrics of one name: tar@far=same" in capsys.readouterr().err


def test_intervals_are_claimed_only_where_there_are_some(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path
) -> None:
    pairs = len(load_ijb(tiny_ijbc).pairs)
    np.save(tmp_path / "s.npy", np.linspace(0, 1, pairs))
    out = tmp_path / "r.json"
    words = ("ijbc", "--data", tiny_ijbc, "--scores", tmp_path / "s.npy", "--output", out)
    for rule, wanted in (("at_most", True), ("insightface_nearest", False)):
        assert evalkit(*words, "--rule", rule) == 0
        held = load_result(out)
        assert held.settings["intervals"] is wanted
        assert any(metric.interval for metric in held.metrics) is wanted


@pytest.fixture
def own_data(tiny_ijbc: Path, tmp_path: Path) -> Path:
    """The sample without its marker: data like anybody's."""
    data = tmp_path / "own" / "IJBC"
    shutil.copytree(tiny_ijbc, data)
    (data / "evalkit-sample.json").unlink()
    return data


def test_other_data_need_a_model(
    evalkit: Command, own_data: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert evalkit("ijbc", "--data", own_data) == 2
    assert "--model sample-recognition runs the embedded network" in capsys.readouterr().err
    monkeypatch.setenv("EVALKIT_DATA", str(own_data.parent))
    assert evalkit("ijbc") == 2
    assert "--model" in capsys.readouterr().err
    assert evalkit("ijbc", "--model", SAMPLE_MODEL) == 0


def test_the_meta_files_are_judged_before_inference(
    evalkit: Command, own_data: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("ijbc", "--data", own_data, "--model", SAMPLE_MODEL)
    for file in (own_data / "meta").glob("*.csv"):
        file.unlink()
    assert evalkit(*words, "--one-to-n") == 2
    assert "1:N needs the gallery and probe files" in capsys.readouterr().err
    pairs = own_data / "meta" / "ijbc_template_pair_label.txt"
    lines = pairs.read_text().splitlines(keepends=True)
    for label, kind in (("1", "impostor"), ("0", "genuine")):
        pairs.write_text("".join(line for line in lines if line.split()[2] == label))
        assert evalkit(*words) == 2
        assert f"has no {kind} pairs" in capsys.readouterr().err
    assert not (own_cache / "outputs").exists()


@pytest.mark.parametrize("command", ["ijbc", "lfw", "widerface"])
def test_a_place_that_cannot_be_written_is_refused_at_once(
    evalkit: Command, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for place, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "r.json", "cannot be made"),
    ):
        assert evalkit(command, "--data", "nowhere", "--output", place) == 2
        shown = capsys.readouterr().err
        assert "--output" in shown
        assert message in shown
    assert evalkit(command, "--data", "nowhere", "--output", tmp_path / "new" / "r.json") == 2
    assert "nowhere" in capsys.readouterr().err
    assert list((tmp_path / "new").iterdir()) == []


def test_the_table_is_shown_though_the_result_cannot_be_written(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(Result, "save", full)
    np.save(tmp_path / "s.npy", np.linspace(0, 1, len(load_ijb(tiny_ijbc).pairs)))
    words = ("--scores", tmp_path / "s.npy", "--output", tmp_path / "r.json")
    assert evalkit("ijbc", "--data", tiny_ijbc, *words) == 2
    shown = capsys.readouterr()
    assert "TAR %" in shown.out
    assert "the disk is full" in shown.err


def test_a_quick_look_is_marked(evalkit: Command, tiny_ijbc: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert evalkit("ijbc", "--data", tiny_ijbc, "--limit", 20, "--output", out) == 0
    held = load_result(out)
    assert held.status == "partial"
    assert held.dataset.counts["faces"] < len(load_ijb(tiny_ijbc).images)


def test_a_limit_that_leaves_nothing_out_is_no_quick_look(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    assert evalkit("ijbc", "--data", tiny_ijbc, "--limit", 100_000, "--output", out) == 0
    held = load_result(out)
    assert held.status == "complete"
    assert held.dataset.name.startswith("evalkit-sample")


def test_missing_images_are_failures_to_enrol(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "IJBC"
    shutil.copytree(tiny_ijbc, data)
    names = sorted(path.name for path in (data / "loose_crop").iterdir())
    (data / "loose_crop" / names[0]).unlink()
    (data / "loose_crop" / names[1]).write_bytes(b"no picture")
    out = tmp_path / "r.json"
    assert evalkit("ijbc", "--data", data, "--output", out) == 0
    failed = load_result(out).failures_to_enrol
    assert {failure.name for failure in failed} == set(names[:2])
    assert evalkit("ijbc", "--data", data, "--max-failures", 1) == 2
    assert "more than --max-failures 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "{junk}"), "junk.onnx"),
        (("--layout", "nhwc"), "Correct 'input'"),
        (("--precision", "int8"), "int8"),
        (("--backend", "onnxruntim"), "Did you mean 'onnxruntime'"),
        (("--mean", "inf"), "finite"),
        (("--std", "0"), "must not be 0"),
        (("--model", "sample-recogniton"), "no model file"),
        (("--device", "cuda"), "cuda"),
        (("--overwrite", "never", "--outputs-dir", "{new}"), "never"),
        (("--scores", "{junk}"), "junk"),
    ],
)
def test_wrong_input_is_one_clear_line(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    filled = [w.format(junk=tmp_path / "junk.onnx", new=tmp_path / "new") for w in words]
    code = evalkit("ijbc", "--data", tiny_ijbc, "--quiet", *filled)
    shown = capsys.readouterr().err
    assert code in {2, 3}, shown
    assert message in shown
    assert "Traceback" not in shown


def test_a_model_that_gives_nan_is_named(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(load_model_config(SAMPLE_MODEL, RunSettings()).file_for("onnxruntime"))
    weights = graph.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weights) * np.float32(np.nan)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(graph, tmp_path / "nan.onnx")
    words = ("ijbc", "--data", tiny_ijbc, "--model", tmp_path / "nan.onnx")
    assert evalkit(*words, "--max-failures", 1000) == 2
    assert "NaN or infinite" in capsys.readouterr().err
    assert evalkit(*words, "--max-failures", 5) == 2
    assert "more than --max-failures 5" in capsys.readouterr().err


def test_outputs_of_another_run_are_refused(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("ijbc", "--data", tiny_ijbc, "--outputs-dir", tmp_path / "store")
    assert evalkit(*words) == 0
    assert evalkit(*words, "--mean", "0") == 2
    assert "another run: preprocessing differs" in capsys.readouterr().err


def test_no_data_says_so(
    evalkit: Command, tiny_ijbc: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("evalkit.tasks.base.sample_path", lambda *_, **__: tiny_ijbc)
    assert evalkit("ijbc") == 0
    assert "running on the embedded sample, not on IJB-C" in capsys.readouterr().err
    monkeypatch.setenv("EVALKIT_DATA", str(tiny_ijbc.parent))
    assert evalkit("ijbc") == 0
    assert "embedded sample" not in capsys.readouterr().err


SMALL = ("--shard-size", 8, "--batch-size", 4, "--threads", 1)


def test_killed_and_run_again_it_resumes(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("ijbc", "--data", tiny_ijbc, "--outputs-dir", tmp_path / "store", *SMALL)
    process = spawn(*words)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("store/shard-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = len(list(tmp_path.glob("store/shard-*")))
    assert kept >= 2
    assert evalkit(*words, "--output", tmp_path / "resumed.json") == 0
    assert "resuming" in capsys.readouterr().err
    assert evalkit("ijbc", "--data", tiny_ijbc, *SMALL, "--output", tmp_path / "whole.json") == 0
    resumed, whole = (
        np.load(tmp_path / f"{name}.scores.npz")["scores"] for name in ("resumed", "whole")
    )
    np.testing.assert_array_equal(resumed, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_what_was_done(
    evalkit: Command, tiny_ijbc: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_disk / "store"
    words = ("ijbc", "--data", tiny_ijbc, "--outputs-dir", store, *SMALL)
    assert evalkit(*words) == 2
    shown = capsys.readouterr().err
    assert "Cannot write" in shown
    assert "run the same command again" in shown
    kept = len(list(store.glob("shard-*")))
    assert kept >= 1
    assert not list(store.glob(".*.partial"))
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert evalkit(*words) == 0
    assert f"resuming: {8 * kept} of" in capsys.readouterr().err


def test_settings_of_a_yaml_file(evalkit: Command, tiny_ijbc: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"data: {tiny_ijbc}\nrule: interpolated\nflip: none\n")
    out = tmp_path / "r.json"
    assert evalkit("ijbc", "--config", tmp_path / "run.yaml", "--output", out) == 0
    settings = load_result(out).settings
    assert (settings["rule"], settings["flip"]) == ("interpolated", "none")


def test_store_of_a_run_can_be_read_apart(
    evalkit: Command, tiny_ijbc: Path, tmp_path: Path
) -> None:
    assert evalkit("ijbc", "--data", tiny_ijbc, "--outputs-dir", tmp_path / "store") == 0
    store = Store.open(tmp_path / "store")
    assert store.samples == len(load_ijb(tiny_ijbc).images)
    assert store.missing() == []


def test_the_configuration_has_no_hidden_default() -> None:
    assert IjbSettings().rule == "at_most"
    assert IjbSettings().flip == "sum"


@pytest.mark.slow
def test_real_faces_and_a_real_model(evalkit: Command, shared_data: Path, tmp_path: Path) -> None:
    """Independent figures: mobilefacenet 93.27 / 96.86 / 99.55 at 1e-4 / 1e-3 / 1e-2.

    At 1e-4 at most 11 false accepts are allowed (11.997): 207 of 223. The 208 of the independent
    figure need 12, which is the nearest point. At 1e-2 the thinned curve of the nearest rule has
    no point between the last genuine pair but one and the last, whose false accepts are 1,518.
    """
    words = (
        "--data", shared_data / "congress", "--model", shared_data / "models/mobilefacenet.onnx",
        "--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375",
    )  # fmt: skip
    wanted = {"at_most": (207, 216, 222), "insightface_nearest": (208, 216, 223)}
    for rule, accepts in wanted.items():
        out = tmp_path / f"{rule}.json"
        assert evalkit("ijbc", *words, "--rule", rule, "--output", out) == 0
        held = load_result(out)
        names = [f"tar@far={far:.0e}" for far in (1e-4, 1e-3, 1e-2)]
        assert tuple(held.metric(n).counts["true_accepts"] for n in names) == accepts
