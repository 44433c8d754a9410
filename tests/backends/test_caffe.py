"""Caffe models by OpenCV: the contract, the same network in ONNX, and what is refused."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

import caffe_files
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_network import SIDE, Tiny, batch, write_onnx

from evalkit.backends.base import SessionOptions
from evalkit.backends.caffe import CaffeBackend
from evalkit.backends.prototxt import InputShape, read_inputs
from evalkit.core.errors import InputError, UnavailableError
from evalkit.testing import BackendContract

ONE = SessionOptions(threads=1)
OLD_INPUT = f'input: "image"\ninput_dim: 1 input_dim: 3 input_dim: {SIDE} input_dim: {SIDE}'
SHAPE_INPUT = f'input: "image" input_shape {{ dim: [1, 3, {SIDE}, {SIDE}] }} # one image'


class TestCaffe(BackendContract):
    backend = CaffeBackend

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = caffe_files.write_tiny(tiny, models / "tiny.prototxt")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestNamedByItsWeights(TestCaffe):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        written = caffe_files.write_tiny(tiny, models / "old.prototxt", OLD_INPUT)
        cls.model = written.with_suffix(".caffemodel")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


def test_a_network_equals_its_onnx_form(tiny: Tiny, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
    pytest.importorskip("onnx", reason="needs the test extra")
    graph = ort.InferenceSession(str(write_onnx(tiny, tmp_path / "m.onnx")))
    (wanted,) = graph.run(None, {"image": batch()})
    with CaffeBackend.open(caffe_files.write_tiny(tiny, tmp_path / "m.prototxt"), ONE) as session:
        found = session.run(batch())["output0"]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


def test_depthwise_convolutions_and_sums(tmp_path: Path) -> None:
    """The blocks of a mobile face network: grouped convolution, shortcut, global pooling."""
    rng = np.random.default_rng(5)
    kernel = rng.normal(0, 1, (3, 1, 3, 3)).astype(np.float32)
    settings = "convolution_param { num_output: 3 kernel_size: 3 pad: 1 group: 3 bias_term: false }"
    pooling = "pooling_param { pool: AVE global_pooling: true }"
    model = caffe_files.write(
        tmp_path / "m.prototxt",
        SHAPE_INPUT,
        [
            ("depthwise", "Convolution", "image", [kernel], settings),
            ("sum", "Eltwise", "depthwise image", [], "eltwise_param { operation: SUM }"),
            ("pool", "Pooling", "sum", [], pooling),
        ],
    )
    images = batch()
    wanted = np.empty((len(images), 3, 1, 1))
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for n in range(len(images)):
        for c in range(3):
            total = 0.0
            for y in range(SIDE):
                for x in range(SIDE):
                    total += (padded[n, c, y : y + 3, x : x + 3] * kernel[c, 0]).sum()
                    total += images[n, c, y, x]
            wanted[n, c] = total / SIDE**2
    with CaffeBackend.open(model, ONE) as session:
        np.testing.assert_allclose(session.run(images)["pool"], wanted, rtol=1e-3, atol=1e-5)


def test_fp16_is_offered_only_where_opencv_computes_in_it() -> None:
    offered = "fp16" in CaffeBackend.probe().precisions
    targets = cv2.dnn.getAvailableTargets(cv2.dnn.DNN_BACKEND_OPENCV)
    arm = platform.machine().lower() in {"aarch64", "arm64"}
    assert offered == (arm and cv2.dnn.DNN_TARGET_CPU_FP16 in targets)


@pytest.mark.skipif("fp16" in CaffeBackend.probe().precisions, reason="fp16 runs here")
def test_fp16_is_refused_elsewhere(tiny: Tiny, tmp_path: Path) -> None:
    model = caffe_files.write_tiny(tiny, tmp_path / "m.prototxt")
    with pytest.raises(UnavailableError, match="does not run fp16 here"):
        CaffeBackend.open(model, SessionOptions("fp16"))


def test_an_opencv_without_the_importer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe")
    probe = CaffeBackend.probe()
    assert not probe.available
    assert "opencv-python-headless<5" in probe.remedy


def test_the_callers_thread_count_is_given_back(tiny: Tiny, tmp_path: Path) -> None:
    held = cv2.getNumThreads()
    model = caffe_files.write_tiny(tiny, tmp_path / "m.prototxt")
    with CaffeBackend.open(model, SessionOptions(threads=1)) as session:
        session.run(batch())
    assert cv2.getNumThreads() == held


def test_a_missing_half_is_named(tiny: Tiny, tmp_path: Path) -> None:
    model = caffe_files.write_tiny(tiny, tmp_path / "m.prototxt")
    model.with_suffix(".caffemodel").unlink()
    with pytest.raises(InputError, match=r"needs m\.caffemodel beside it"):
        CaffeBackend.open(model, ONE)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match="is no Caffe model"):
        CaffeBackend.open(tmp_path / "m.onnx", ONE)


def test_weights_of_another_network_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    model = caffe_files.write_tiny(tiny, tmp_path / "m.prototxt")
    model.write_text(
        model.read_text().replace('"fc', '"gc').replace("num_output: 4", "num_output: 5")
    )
    with pytest.raises(InputError, match=r"m\.prototxt"):
        CaffeBackend.open(model, ONE)


@pytest.mark.parametrize("cut", [10, 200, pytest.param(-1, id="all but the last byte")])
def test_weights_cut_short_are_refused(tiny: Tiny, tmp_path: Path, cut: int) -> None:
    model = caffe_files.write_tiny(tiny, tmp_path / "m.prototxt")
    weights = model.with_suffix(".caffemodel")
    weights.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(InputError, match="cannot load them"):
        CaffeBackend.open(model, ONE)


def test_several_inputs_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    second = caffe_files.INPUT_LAYER.replace('"image"', '"other"')
    model = caffe_files.write_tiny(
        tiny, tmp_path / "m.prototxt", f"{caffe_files.INPUT_LAYER}\n{second}"
    )
    with pytest.raises(InputError, match=r"2 inputs \(image, other\)"):
        CaffeBackend.open(model, ONE)


@pytest.mark.parametrize("text", [OLD_INPUT, SHAPE_INPUT, caffe_files.INPUT_LAYER])
def test_inputs_in_each_spelling(tmp_path: Path, text: str) -> None:
    file = tmp_path / "m.prototxt"
    file.write_text(f'name: "a {{ b" # a comment {{\n{text}\n')
    assert read_inputs(file) == (InputShape("image", (1, 3, SIDE, SIDE)),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer {", "not closed"),
        ("}", "closes what none opened"),
        ("layer", "ends after 'layer'"),
        ('input: "a"', "names 1 inputs and 0 shapes"),
        ("a { " * 200, "nested too deeply"),
        ('name: "open', "line 1 holds"),
        ('input: "a" input_shape { dim: x }', "invalid literal"),
    ],
)
def test_what_is_no_prototxt_is_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "m.prototxt"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_inputs(file)


@given(st.text())
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.prototxt"
    file.write_text(text, encoding="utf-8", errors="ignore")
    with suppress(InputError):
        read_inputs(file)
