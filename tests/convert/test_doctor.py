"""The doctor: what is here, and a backend that gives something else is found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import evalkit.convert.doctor
from evalkit.backends import BACKENDS
from evalkit.backends.base import Backend, Probe, Ran, Session, SessionOptions, TensorInfo
from evalkit.cli import main
from evalkit.convert.doctor import check, survey
from evalkit.core.errors import InputError, install_command
from evalkit.core.registry import Entry
from evalkit.core.settings import InputSpec, ModelConfig, RunSettings
from evalkit.report.doctor import describe_backends, describe_checkup


class PlainSession(Session):
    """Means of the image's quarters; the shifted one adds, the mad one gives NaN."""

    def __init__(self, name: str, options: SessionOptions) -> None:
        self.name = name
        self.inputs = (TensorInfo("x", "float32", ("n", 3, 112, 112)),)
        self.outputs = (TensorInfo("y", "float32", ("n", 12)),)
        self.ran = Ran(name, "1", "cpu", options.precision, options.precision, options.threads)

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        quarters = batch.reshape(len(batch), 3, 2, 56, 2, 56).mean((3, 5)).reshape(len(batch), 12)
        if self.name == "shifted":
            quarters = quarters + np.arange(12) * 0.1
        if self.name == "mad":
            quarters[-1] = np.nan
        if self.name == "narrow":
            quarters = quarters[:, :6]
        return {"y" if self.name != "plain" else "z": quarters.astype(np.float32)}


def backend(named: str) -> type[Backend]:
    class Made(Backend):
        name: ClassVar[str] = named

        @classmethod
        def probe(cls) -> Probe:
            return Probe(True, "1", ("cpu",), ("fp32", "int8"))

        @classmethod
        def open(cls, model: Path, options: SessionOptions) -> Session:
            if named == "refusing":
                raise InputError(f"{model}: no")
            return PlainSession(named, options)

    return Made


Plain, Same, Shifted, Mad, Narrow, Refusing = map(
    backend, ("plain", "same", "shifted", "mad", "narrow", "refusing")
)
NAMES = ("Plain", "Same", "Shifted", "Mad", "Narrow", "Refusing")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setitem(BACKENDS._entries, name.lower(), Entry(f"{__name__}:{name}"))
    monkeypatch.setattr(evalkit.convert.doctor, "REFERENCES", ("refusing", "plain"))


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    (tmp_path / "m.bin").write_bytes(b"m")
    return ModelConfig(
        name="m", files={"any": "m.bin"}, input=InputSpec(size=(112, 112)), folder=tmp_path
    )


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import cv2

    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for index in range(5):
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (112, 112))
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def run_of(name: str, faces: Path, precision: str = "fp32") -> RunSettings:
    return RunSettings(backend=name, data=faces, precision=precision)  # type: ignore[arg-type]


def test_agreement_is_found_on_random_and_real_images(model: ModelConfig, faces: Path) -> None:
    checkup = check(model, run_of("same", faces), images=8)
    assert checkup.agrees
    assert checkup.reference is not None
    assert checkup.reference.backend == "plain", "the first that opens it"
    random, real = checkup.comparisons
    assert (random.images, len(random.drift.cosines)) == ("random", 8)
    assert (real.images, len(real.drift.cosines)) == ("real", 5)
    assert real.drift.largest_absolute == real.drift.atol_needed == 0
    assert random.output == "y", "outputs of other names are compared in their order"


@pytest.mark.parametrize("name", ["shifted", "mad"])
def test_disagreement_is_found(model: ModelConfig, faces: Path, name: str) -> None:
    checkup = check(model, run_of(name, faces), images=4)
    assert not checkup.agrees
    shown = describe_checkup(checkup)
    assert "DIFFERS" in shown
    assert ("not finite" in shown) == (name == "mad")


def test_the_figures_are_those_of_the_rule(model: ModelConfig, faces: Path) -> None:
    checkup = check(model, run_of("shifted", faces), images=4, least_cosine=-1.0)
    assert checkup.agrees
    _, real = checkup.comparisons
    assert real.drift.largest_absolute == pytest.approx(1.1, rel=1e-5)


def test_int8_is_not_judged_on_random_images(model: ModelConfig, faces: Path) -> None:
    random, real = check(model, run_of("same", faces, "int8"), images=4).comparisons
    assert random.least_cosine is None
    assert real.least_cosine == evalkit.convert.doctor.LEAST_COSINE["int8"]


def test_another_network_is_refused(model: ModelConfig, faces: Path) -> None:
    with pytest.raises(InputError, match=r"y \(6 values\), but the reference gives z \(12 values"):
        check(model, run_of("narrow", faces))


def test_without_a_reference_nothing_is_claimed(
    model: ModelConfig, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evalkit.convert.doctor, "REFERENCES", ("refusing",))
    checkup = check(model, run_of("same", faces))
    assert checkup.reference is None
    assert checkup.comparisons == ()
    assert "no other backend here opens" in describe_checkup(checkup)
    with pytest.raises(InputError, match="reference cannot open the model"):
        check(model, run_of("same", faces), reference="refusing")
    with pytest.raises(InputError, match="is the backend that is checked"):
        check(model, run_of("same", faces), reference="same")


@pytest.mark.parametrize(
    ("name", "more", "code"),
    [
        ("same", [], 0),
        ("shifted", [], 1),
        ("shifted", ["--least-cosine=-1"], 0),
        ("refusing", [], 2),
        ("nowhere", [], 2),
        ("same", ["--images", "0"], 2),
    ],
)
def test_exit_codes_of_a_check(
    model: ModelConfig, faces: Path, name: str, more: list[str], code: int
) -> None:
    words = ["backends", "--check", name, "--model", str(model.folder / "m.bin")]
    assert main([*words, "--data", str(faces), *more]) == code


def test_exit_code_without_a_reference(
    model: ModelConfig, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evalkit.convert.doctor, "REFERENCES", ())
    words = ["backends", "--check", "same", "--model", str(model.folder / "m.bin")]
    assert main([*words, "--data", str(faces)]) == 3


@pytest.mark.parametrize("name", ["mxnet", "caffe", "plain"])
def test_a_backend_without_a_sample_needs_a_model(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backends", "--check", name]) == 2
    told = capsys.readouterr().err
    assert f"no file in a format of '{name}', only for onnxruntime, " in told
    assert f"--check {name} --model FILE" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mxnett"], "Did you mean 'mxnet'"),
        (["outputs"], "needs --outputs"),
        (["caffe", "--model", "sample-recognition"], "no file for backend 'caffe'"),
    ],
)
def test_other_faults_of_a_check_keep_their_words(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backends", "--check", *words]) == 2
    assert told in capsys.readouterr().err


def test_the_table_says_what_is_missing_and_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probes = {
        "openvino": Probe(
            False,
            reason="The backend 'openvino' cannot be loaded: No module named 'openvino'. "
            f"Install it: {install_command('openvino')}.",
        ),
        "torch": Probe(True, "2", ("cpu", "cuda:0"), ("fp32", "bf16")),
    }
    monkeypatch.setattr(
        evalkit.convert.doctor,
        "probe_in",
        lambda python, name, limit: probes.get(name, Probe(False)),
    )
    held = {listed.name: listed for listed in survey()}
    assert held["openvino"].probe.remedy == f"Run: {install_command('openvino')}."
    shown = describe_backends(list(held.values()))
    assert "openvino: The backend 'openvino' cannot be loaded: No module named 'openvino'." in shown
    assert "cpu, cuda:0" in shown
    assert main(["backends", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["torch"]["precisions"] == ["fp32", "bf16"]
    assert listed["torch"]["available"] is True
    assert listed["openvino"]["remedy"] == f"Run: {install_command('openvino')}."


def test_what_was_never_tested_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evalkit.convert.doctor, "probe_in", lambda python, name, limit: Probe(False)
    )
    monkeypatch.setitem(BACKENDS._entries, "foreign", Entry("foreign:F", origin="other"))
    held = {listed.name: listed.tested_on for listed in survey()}
    assert held["openvino"] == "cpu"
    assert held["same"] == ""
    assert held["foreign"] is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("exec sleep 600", "gave no answer within 1 s while starting"),
        ("echo no licence; exit 3", "ended with exit code 3 while starting"),
    ],
)
def test_an_interpreter_that_does_not_start_is_asked_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    python, starts = tmp_path / "python", tmp_path / "starts"
    python.write_text(f"#!/bin/sh\necho >> {starts}\n{line}\n")
    python.chmod(0o755)
    limit = "1" if "within 1 s" in told else "60"
    assert main(["backends", "--python", str(python), "--worker-timeout", limit]) == 2
    assert told in capsys.readouterr().err
    assert starts.read_text() == "\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "r50.onnx"], "--model is what --check checks"),
        (["--python", "/nowhere/python"], "no Python interpreter /nowhere/python"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backends", *options]) == 2
    assert told in capsys.readouterr().err


def test_a_backend_that_crashes_takes_nothing_with_it(tmp_path: Path) -> None:
    """Really asked, in processes of their own."""
    listed = {entry.name: entry.probe for entry in survey()}
    assert not listed["plain"].available, "known in this process alone"
    assert listed["plain"].reason
    assert listed["caffe"].available
