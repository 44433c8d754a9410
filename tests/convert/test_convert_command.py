"""``evalkit convert`` as a user runs it: what is written, what a result says of it, bad input."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
onnx = pytest.importorskip("onnx", reason="needs the test extra")

from small_network import (  # noqa: E402
    SIDE,
    encoded,
    exact,
    network_input,
    write_network,
    write_pairs,
    write_people,
    write_yaml,
)

from evalkit.backends.onnxruntime.saturation import NOTE, cpu_saturates  # noqa: E402
from evalkit.cli import main  # noqa: E402
from evalkit.convert.agreement import compare  # noqa: E402
from evalkit.core.sidecar import sidecar_path  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVALKIT_DATA", raising=False)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    write_yaml(folder / "small.yaml", write_network(folder / "small.onnx"))
    write_pairs(folder / "pairs.bin", 60)
    write_people(folder / "people", 8)
    return folder


def convert(model: Path, out: Path, *words: object, data: Path | None = None) -> int:
    given = ["--calibration", data or model.parent / "people", "--threads", 1, "--quiet"]
    return main([str(w) for w in ["convert", model, "--to", "int8", "--out", out, *given, *words]])


def agreement(work: Path, out: Path, record: Any) -> float:
    """Mean cosine to fp32 on record; of exact arithmetic where this CPU's int8 is not."""
    if not cpu_saturates():
        return float(record["figures"]["cosine"]["mean"])
    names = [name for name, _ in record["calibration"]["held_out"]["images"]]
    images = [network_input(work / "people" / f"{name}.png") for name in names]
    return compare([exact(work / "small.onnx", images)], [exact(out, images)]).mean


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_model_its_record_and_the_table(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "int8.onnx"
    assert convert(work / "small.yaml", out) == 0
    table = capsys.readouterr().out
    assert "int8 (" in table
    assert f"onnxruntime:int8: {out}" in table
    assert sorted(p.name for p in out.parent.iterdir()) == ["int8.onnx", "int8.onnx.evalkit.json"]
    record = json.loads(sidecar_path(out).read_text())
    assert record["source"]["sha256"] == sha256(work / "small.onnx")
    assert record["built"] == {
        "file": "int8.onnx",
        "sha256": sha256(out),
        "bytes": out.stat().st_size,
    }
    assert record["toolchain"]["onnxruntime"] == ort.__version__
    assert record["settings"]["method"] == "minmax"
    calibration = record["calibration"]
    assert agreement(work, out, record) > 0.999
    assert (NOTE in table) is cpu_saturates()
    assert calibration["count"] == len(calibration["images"]) == 12
    people = {Path(name).parent.name for name, _ in calibration["images"]}
    others = {Path(name).parent.name for name, _ in calibration["held_out"]["images"]}
    assert len(people) == len(others) == 4
    assert not people & others


def test_a_result_carries_the_calibration(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, result = tmp_path / "int8.onnx", tmp_path / "result.json"
    assert convert(work / "small.yaml", out, "--yaml", tmp_path / "all.yaml") == 0
    assert f"added to {tmp_path / 'all.yaml'} as onnxruntime:int8\n" in capsys.readouterr().out
    run = ["lfw", "--data", work / "pairs.bin", "--model", tmp_path / "all.yaml", "--quiet"]
    assert main([str(w) for w in [*run, "--precision", "int8", "--output", result]]) == 0
    conversion = json.loads(result.read_text())["model"]["conversion"]
    record = json.loads(sidecar_path(out).read_text())
    assert conversion["calibration"]["sha256"] == record["calibration"]["sha256"]
    assert conversion["source"]["sha256"] == sha256(work / "small.onnx")
    assert "images" not in conversion["calibration"]
    assert main([str(w) for w in [*run, "--output", result]]) == 0
    assert json.loads(result.read_text())["model"]["conversion"] is None


def test_only_int8_has_settings_of_a_calibration(work: Path, tmp_path: Path) -> None:
    def settings(out: Path, *words: object) -> list[Any]:
        assert convert(work / "small.yaml", out, *words) == 0
        held = json.loads(sidecar_path(out).read_text())["settings"]
        return [held[name] for name in ("method", "per_channel", "symmetric")]

    assert settings(tmp_path / "int8.onnx") == ["minmax", True, True]
    pytest.importorskip("onnxconverter_common", reason="needs the convert extra")
    assert settings(tmp_path / "fp16.onnx", "--to", "fp16") == [None, None, None]


def test_a_record_of_another_model_is_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    assert convert(work / "small.yaml", out) == 0
    model = onnx.load(out)
    model.doc_string = "changed"
    onnx.save(model, out)
    write_yaml(tmp_path / "m.yaml", out)
    run = ["lfw", "--data", work / "pairs.bin", "--model", tmp_path / "m.yaml", "--quiet"]
    assert main([str(w) for w in [*run, "--precision", "int8"]]) == 2
    assert "describes another model" in capsys.readouterr().err
    sidecar_path(out).write_text("{}")
    assert main([str(w) for w in [*run, "--precision", "int8"]]) == 2
    assert "not a record of a conversion" in capsys.readouterr().err
    sidecar_path(out).unlink()
    assert main([str(w) for w in [*run, "--precision", "int8"]]) == 0


def test_nothing_is_overwritten_unasked(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    out.write_bytes(b"mine")
    assert convert(work / "small.yaml", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    assert convert(work / "small.yaml", out, "--overwrite") == 0
    before = out.read_bytes()
    assert convert(work / "small.yaml", out, "--overwrite") == 0
    assert out.read_bytes() == before
    assert convert(work / "small.yaml", work / "small.onnx", "--overwrite") == 2
    assert "is the source itself" in capsys.readouterr().err


def test_a_model_that_comes_out_wrong_is_not_written(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "int8.onnx"
    assert convert(work / "small.yaml", out, "--least-cosine", 1) == 1
    shown = capsys.readouterr()
    assert "FAILED: the int8 model is wrong" in shown.err
    assert "(not written)" in shown.out
    assert "under 'files'" not in shown.out
    assert list(out.parent.iterdir()) == []


def test_a_doubtful_model_is_written_with_a_warning(
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert convert(work / "small.yaml", tmp_path / "good.onnx") == 0
    assert "may cost accuracy" not in capsys.readouterr().out
    monkeypatch.setattr("evalkit.convert.convert.DOUBTFUL", 1.0)
    assert convert(work / "small.yaml", tmp_path / "doubtful.onnx") == 0
    assert "may cost accuracy. Sign the model off" in capsys.readouterr().out
    assert (tmp_path / "doubtful.onnx").is_file()


def test_layers_are_excluded_until_the_goal_is_met(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, out = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    assert convert(work / "small.yaml", plain) == 0
    before = json.loads(sidecar_path(plain).read_text())["figures"]["cosine"]["mean"]
    goal = 1 - (1 - before) / 2
    capsys.readouterr()
    assert convert(work / "small.yaml", out, "--auto-exclude", "--until-cosine", goal) == 0
    table = capsys.readouterr().out
    assert "layer, quantised alone" in table
    assert "last excluded" in table
    record = json.loads(sidecar_path(out).read_text())
    assert record["excluded"]
    assert record["excluded"] == record["settings"]["exclude"]
    assert record["figures"]["cosine"]["mean"] >= goal
    assert "but chose the excluded layers" in table
    assert record["figures"]["held_out_chose_layers"] is True
    assert json.loads(sidecar_path(plain).read_text())["figures"]["held_out_chose_layers"] is False


def test_a_layer_whose_exclusion_hurts_is_taken_back(
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    from evalkit.convert import convert as conversion

    monkeypatch.setattr(
        conversion, "rank", lambda layers, *_: [(layer, 0.1) for layer in reversed(layers)]
    )
    measured = conversion.compare

    def compare(reference: Any, candidate: Any) -> Any:
        found = measured(reference, candidate)
        means.append(found.mean if len(means) != 2 else 0.5)  # fp32, start, the first exclusion
        return replace(found, mean=means[-1])

    means: list[float] = []
    monkeypatch.setattr(conversion, "compare", compare)
    out = tmp_path / "int8.onnx"
    assert convert(work / "small.yaml", out, "--auto-exclude", "--until-cosine", 0.99945) == 0
    assert "fc (taken back)" in capsys.readouterr().out
    excluded = json.loads(sidecar_path(out).read_text())["excluded"]
    assert excluded
    assert excluded[0] != "fc"


def test_what_is_excluded_by_name_stays_so_in_every_trial(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalkit.convert import onnxruntime as toolchain

    tried: list[tuple[str, ...]] = []
    write = toolchain._write_int8

    def watched(model: Path, cache: Path, out: Path, settings: Any) -> Any:
        tried.append(settings.exclude)
        return write(model, cache, out, settings)

    monkeypatch.setattr(toolchain, "_write_int8", watched)
    words = ["--exclude", "fir*", "--auto-exclude", "--until-cosine", 1]
    assert convert(work / "small.yaml", tmp_path / "int8.onnx", *words) == 1
    assert len(tried) == 1 + 3 + 3 + 1  # the start, ranking, search, the last again
    assert all("first" in excluded for excluded in tried)


def test_a_goal_out_of_reach_fails(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    words = ["--auto-exclude", "--until-accuracy", 1.0, "--held-out", 60]
    assert convert(work / "small.yaml", out, *words, data=work / "pairs.bin") == 1
    shown = capsys.readouterr()
    assert "was not reached" in shown.err
    assert "accuracy %" in shown.out
    assert not out.exists()


def test_accuracy_is_of_the_pairs_held_out(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    words = ["--auto-exclude", "--until-accuracy", 0.01, "--held-out", 60]
    assert convert(work / "small.yaml", out, *words, data=work / "pairs.bin") == 0
    accuracy = json.loads(sidecar_path(out).read_text())["figures"]["accuracy"]
    assert 0.01 < accuracy <= 1
    few = ["--overwrite", *words[:-1], 10]
    assert convert(work / "small.yaml", out, *few, data=work / "pairs.bin") == 2
    assert "Raise --held-out" in capsys.readouterr().err
    assert convert(work / "small.yaml", out, "--overwrite", *words) == 2
    assert "has none" in capsys.readouterr().err


def test_a_model_yaml_gathers_files(work: Path, tmp_path: Path) -> None:
    import yaml

    gathered = tmp_path / "models" / "all.yaml"
    assert convert(work / "small.yaml", tmp_path / "a.onnx", "--yaml", gathered) == 0
    words = ["--no-symmetric", "--overwrite", "--yaml", gathered]
    assert convert(work / "small.yaml", tmp_path / "b.onnx", *words) == 0
    values = yaml.safe_load(gathered.read_text())
    assert values["input"]["size"] == [SIDE, SIDE]
    assert (gathered.parent / values["files"]["any"]).resolve() == work / "small.onnx"
    named = gathered.parent / values["files"]["onnxruntime:int8"]
    assert named.resolve() == tmp_path / "b.onnx"
    assert len(values["files"]) == 2


class TestBadInput:
    """One clear error each, and exit code 2."""

    @pytest.fixture(autouse=True)
    def prepared(self, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.work, self.folder, self.capsys = work, tmp_path, capsys

    def refused(self, model: Path | str, *words: object, data: Path | None = None) -> str:
        out = self.folder / "out.onnx"
        code = convert(Path(model), out, *words, data=data or self.work / "people")
        assert code == 2
        assert not out.exists()
        shown = self.capsys.readouterr()
        assert "Traceback" not in shown.err
        return shown.err

    def yaml_of(self, model: Any) -> Path:
        onnx.save(model, self.folder / "bad.onnx")
        return write_yaml(self.folder / "bad.yaml", self.folder / "bad.onnx")

    def test_no_calibration_images(self) -> None:
        (self.folder / "empty").mkdir()
        told = self.refused(self.work / "small.yaml", data=self.folder / "empty")
        assert "holds no image" in told

    def test_broken_images(self) -> None:
        broken = self.folder / "broken"
        broken.mkdir()
        for number in range(4):
            (broken / f"{number}.png").write_bytes(encoded(number)[:80])
        assert "truncated" in self.refused(self.work / "small.yaml", data=broken)

    def test_a_model_that_gives_infinity(self) -> None:
        model = onnx.load(self.work / "small.onnx")
        weight = next(w for w in model.graph.initializer if w.name == "bias")
        weight.CopyFrom(onnx.numpy_helper.from_array(np.full(5, np.inf, np.float32), "bias"))
        assert "fp32 model itself gives NaN" in self.refused(self.yaml_of(model))

    def test_a_weight_that_is_nan(self) -> None:
        model = onnx.load(self.work / "small.onnx")
        weight = next(w for w in model.graph.initializer if w.name == "a")
        values = onnx.numpy_helper.to_array(weight).copy()
        values.flat[3] = np.nan
        weight.CopyFrom(onnx.numpy_helper.from_array(values, "a"))
        told = self.refused(self.yaml_of(model))
        assert "the weight 'a' has 1 NaN values" in told

    def test_calibration_images_that_give_nan(self) -> None:
        """NaN for white images, which one person has: of those calibrated with, or held out."""
        model = onnx.load(self.work / "small.onnx")
        nodes = [
            onnx.helper.make_node("Flatten", ["x"], ["x1"]),
            onnx.helper.make_node("ReduceMean", ["x1"], ["x2"], axes=[1], keepdims=1),
            onnx.helper.make_node("Sub", ["limit", "x2"], ["x3"]),
            onnx.helper.make_node("Log", ["x3"], ["x4"]),
            onnx.helper.make_node("Add", ["y1", "x4"], ["y"]),
        ]
        model.graph.node[-1].output[0] = "y1"
        model.graph.node.extend(nodes)
        limit = onnx.numpy_helper.from_array(np.array([0.9], np.float32), "limit")
        model.graph.initializer.append(limit)
        people = write_people(self.folder / "people", 4)
        (people / "person-0" / "0.png").write_bytes(
            bytes(cv2.imencode(".png", np.full((SIDE, SIDE, 3), 255, np.uint8))[1])
        )
        told = [self.refused(self.yaml_of(model), "--seed", seed, data=people) for seed in range(4)]
        calibration = [text for text in told if "NaN or infinite values for calibration" in text]
        assert 0 < len(calibration) < 4
        assert all("person-" in text for text in calibration)
        assert all("image of the comparison" in text for text in told if text not in calibration)

    def test_a_source_that_is_not_fp32(self) -> None:
        assert convert(self.work / "small.yaml", self.folder / "int8.onnx") == 0
        model = write_yaml(self.folder / "m.yaml", self.folder / "int8.onnx")
        assert "was not built in fp32" in self.refused(model)

    def test_a_pickle_of_another_runtime(self) -> None:
        (self.folder / "model.pt").write_bytes(b"PK\x03\x04" + bytes(200))
        model = write_yaml(self.folder / "m.yaml", self.folder / "model.pt")
        assert "It is no ONNX model" in self.refused(model)

    def test_an_opset_from_the_future(self) -> None:
        model = onnx.load(self.work / "small.onnx")
        model.opset_import[0].version = 99
        assert "of opset 99, and this version knows" in self.refused(self.yaml_of(model))

    def test_an_unknown_operator(self) -> None:
        model = onnx.load(self.work / "small.onnx")
        model.graph.node[1].op_type = "Frobnicate"
        told = self.refused(self.yaml_of(model))
        assert "No Op registered for Frobnicate" in told
        assert "Export it with operators" in told

    def test_a_precision_that_it_does_not_build(self) -> None:
        assert "no bf16 convolution" in self.refused(self.work / "small.yaml", "--to", "bf16")

    def test_a_backend_without_a_toolchain(self) -> None:
        assert "no converter" in self.refused(self.work / "small.yaml", "--backend", "onnxruntme")

    def test_a_runtime_that_is_not_there_before_images_are_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from evalkit.backends.base import Probe
        from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend

        missing = Probe(available=False, reason="It is not installed.", remedy="Install it.")
        monkeypatch.setattr(OnnxRuntimeBackend, "probe", lambda: missing)
        told = self.refused(self.work / "small.yaml", data=self.folder / "no-such-data")
        assert "Backend 'onnxruntime': It is not installed. Install it." in told

    def test_a_layer_that_is_not_there(self) -> None:
        assert "no layer has this name" in self.refused(
            self.work / "small.yaml", "--exclude", "fist"
        )

    def test_another_suffix(self) -> None:
        nothing = self.folder / "no-such-model.yaml"  # the name is judged before anything is read
        assert convert(nothing, self.folder / "int8.pt") == 2
        assert "models end in .onnx" in self.capsys.readouterr().err

    def test_a_goal_without_a_search(self) -> None:
        told = self.refused(self.work / "small.yaml", "--until-cosine", 0.9)
        assert "goals of --auto-exclude" in told

    def test_a_folder_that_cannot_be_made(self) -> None:
        (self.folder / "file").write_text("")
        out = self.folder / "file" / "int8.onnx"
        assert convert(self.work / "small.yaml", out) == 2
        assert "Cannot" in self.capsys.readouterr().err
