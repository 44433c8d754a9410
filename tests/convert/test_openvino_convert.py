"""OpenVINO's toolchain: every trap that it holds is sprung here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ov = pytest.importorskip("openvino", reason="needs the openvino extra")
onnx = pytest.importorskip("onnx", reason="needs the test extra")

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.openvino import OpenVinoBackend, read_graph  # noqa: E402
from evalkit.convert import CONVERTERS  # noqa: E402
from evalkit.convert.base import ConvertSettings  # noqa: E402
from evalkit.convert.openvino import OpenVinoConverter  # noqa: E402
from evalkit.core.errors import InputError, UnavailableError  # noqa: E402

INT8 = ConvertSettings("int8", shape=(1, 3, 16, 16))
Batch = NDArray[np.float32]


@pytest.fixture(scope="module")
def nncf() -> Any:
    return pytest.importorskip("nncf", reason="needs the convert extra")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution, a depthwise one and a product, with PReLU between them."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "a": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "slope": rng.uniform(0.1, 0.4, (8, 1, 1)),
        "b": rng.normal(0, 0.3, (8, 1, 3, 3)),
        "fc": rng.normal(0, 0.1, (8 * 16 * 16, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["1"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("PRelu", ["1", "slope"], ["2"], name="prelu"),
        helper.make_node("Conv", ["2", "b"], ["3"], pads=[1, 1, 1, 1], group=8, name="depthwise"),
        helper.make_node("Flatten", ["3"], ["4"], name="flatten"),
        helper.make_node("MatMul", ["4", "fc"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    file = tmp_path_factory.mktemp("ov_convert") / "net.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    return file


def batches(*scales: float) -> list[Batch]:
    rng = np.random.default_rng(1)
    return [(s * rng.uniform(-1, 1, (4, 3, 16, 16))).astype(np.float32) for s in scales]


def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made / "m.xml"


def run(file: Path, precision: str, batch: Batch) -> tuple[Batch, str]:
    options = SessionOptions(precision, threads=1)  # type: ignore[arg-type]
    with OpenVinoBackend.open(file, options) as session:
        return session.run(batch)["y"], session.ran.precision_ran


def constants(file: Path) -> set[str]:
    """Element types of the weights in a model."""
    return {
        node.get_element_type().get_type_name()
        for node in read_graph(file).get_ordered_ops()
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) > 1
    } - {"i64", "i32"}


def ranges(file: Path) -> dict[str, float]:
    """Upper end of each quantised activation, by the operator that gives it."""
    return {
        node.input_value(0).get_node().get_type_name(): float(
            np.max(node.input_value(2).get_node().data)
        )
        for node in read_graph(file).get_ordered_ops()
        if node.get_type_name() == "FakeQuantize"
    }


def test_it_is_registered() -> None:
    assert CONVERTERS.get("openvino") is OpenVinoConverter


@pytest.mark.usefixtures("nncf")
def test_int8_runs_in_int8_and_the_depthwise_convolution_too(source: Path, tmp_path: Path) -> None:
    out = folder(tmp_path)
    given = batches(1.0, 1.0)
    built = OpenVinoConverter.build(source, out, INT8, given)
    assert set(built.versions) == {"openvino", "nncf"}
    outputs, ran = run(out, "int8", given[0])
    wanted, _ = run(source, "fp32", given[0])
    assert ran == "int8"
    assert out.with_suffix(".bin").is_file()
    cosines = (outputs * wanted).sum(1) / np.linalg.norm(outputs, axis=1)
    assert (cosines / np.linalg.norm(wanted, axis=1)).min() > 0.99


@pytest.mark.usefixtures("nncf")
def test_excluded_layers_stay_in_fp32(source: Path, tmp_path: Path) -> None:
    layers = OpenVinoConverter.layers(source, INT8)
    assert len(layers) == 3
    settings = replace(INT8, exclude=layers[:1])
    out = folder(tmp_path)
    OpenVinoConverter.build(source, out, settings, batches(1.0))
    _, ran = run(out, "int8", batches(1.0)[0])
    assert ran == "int8 (2 of 3 kernels; 1 fp32)"
    assert "f16" not in constants(out), "what stays in fp32 is not rounded to fp16"


@pytest.mark.usefixtures("nncf")
def test_minmax_takes_the_extremes_of_all_batches(source: Path, tmp_path: Path) -> None:
    out = folder(tmp_path)
    given = batches(1.0, 1.0, 4.0)
    OpenVinoConverter.build(source, out, INT8, given)
    assert ranges(out)["Parameter"] == pytest.approx(np.abs(given[2]).max(), rel=0.01)


@pytest.mark.usefixtures("nncf")
def test_percentile_cuts_outliers_off(source: Path, tmp_path: Path) -> None:
    given = [np.concatenate(batches(*[1.0] * 5))]
    given[0][0, 0, 0, 0] = 100.0  # one of 15,360 values
    out = folder(tmp_path)
    settings = replace(INT8, method="percentile")
    built = OpenVinoConverter.build(source, out, settings, given)
    assert ranges(out)["Parameter"] == pytest.approx(1, abs=0.05)
    assert built.details["outliers"] == 1e-4


@pytest.mark.usefixtures("nncf")
def test_asymmetric_activations_have_a_range_of_their_own(source: Path, tmp_path: Path) -> None:
    given = [batch + 1 for batch in batches(1.0)]
    out = folder(tmp_path)
    OpenVinoConverter.build(source, out, replace(INT8, symmetric=False), given)
    (low,) = (
        float(np.min(node.input_value(1).get_node().data))
        for node in read_graph(out).get_ordered_ops()
        if node.get_type_name() == "FakeQuantize"
        and node.input_value(0).get_node().get_type_name() == "Parameter"
    )
    assert low == pytest.approx(0, abs=0.01)


@pytest.mark.usefixtures("nncf")
def test_activations_that_overflow_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Conv", ["e", "w"], ["y"], name="conv"),
    ]
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c, 4, 4])
        for n, c in (("x", 3), ("y", 2))
    ]
    graph = helper.make_graph(nodes, "net", infos[:1], infos[1:], [weight])
    file = tmp_path / "net.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file
    )
    given = [np.full((1, 3, 4, 4), 100.0, np.float32)]
    with pytest.raises(InputError, match="overflows or gives NaN"):
        OpenVinoConverter.build(file, folder(tmp_path), INT8, given)


def test_fp16_rounds_the_weights(source: Path, tmp_path: Path) -> None:
    out = folder(tmp_path)
    settings = replace(INT8, precision="fp16")
    OpenVinoConverter.build(source, out, settings, None)
    assert constants(out) == {"f16"}
    assert OpenVinoConverter.layers(source, settings) == ()
    batch = batches(1.0)[0]
    outputs, _ = run(out, "fp16", batch)
    wanted, _ = run(source, "fp32", batch)
    np.testing.assert_allclose(outputs, wanted, rtol=1e-2, atol=1e-2)


def test_int8_without_images_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--calibration"):
        OpenVinoConverter.build(source, folder(tmp_path), INT8, None)


def test_without_nncf_the_remedy_is_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UnavailableError, match=r"pip install -e '.\[convert\]'"):
        OpenVinoConverter.build(source, folder(tmp_path), INT8, batches(1.0))


def test_bf16_is_refused_since_nothing_has_to_be_built() -> None:
    assert "bf16" not in OpenVinoConverter.targets
    assert "--precision bf16" in OpenVinoConverter.refusals["bf16"]


@pytest.mark.slow
@pytest.mark.usefixtures("nncf")
def test_a_real_network_keeps_its_embeddings(shared_data: Path, tmp_path: Path) -> None:
    from evalkit.datasets.lfw import LfwImages, load_bin

    source = shared_data / "models" / "mobilefacenet.onnx"
    images = LfwImages(load_bin(shared_data / "congress" / "cong_hi.bin"), 112)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

    def faces(first: int) -> Batch:
        pixels = np.stack([images.load_with_digest(first + i)[0] for i in range(8)])
        scaled = (pixels / np.float32(255) - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)

    out = folder(tmp_path)
    OpenVinoConverter.build(source, out, INT8, [faces(8 * i) for i in range(8)])
    batch = faces(500)
    rows = []
    for file, precision in ((source, "fp32"), (out, "int8")):
        options = SessionOptions(precision, threads=2)  # type: ignore[arg-type]
        with OpenVinoBackend.open(file, options) as session:
            rows.append(next(iter(session.run(batch).values())).astype(np.float64))
            ran = session.ran.precision_ran
    assert ran == "int8", "the depthwise convolutions too"
    wanted, given = (row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows)
    assert (wanted * given).sum(1).min() > 0.99
