"""ONNX Runtime's toolchain: what it builds is what was asked for, and every trap it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ort = pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
onnx = pytest.importorskip("onnx", reason="needs the test extra")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from small_network import CHANNELS, LAYERS, SIDE, Chunks, exact, write_network  # noqa: E402

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend  # noqa: E402
from evalkit.backends.onnxruntime.saturation import cpu_saturates  # noqa: E402
from evalkit.convert import CONVERTERS  # noqa: E402
from evalkit.convert import onnxruntime as toolchain  # noqa: E402
from evalkit.convert.agreement import compare  # noqa: E402
from evalkit.convert.base import ConvertSettings  # noqa: E402
from evalkit.convert.onnxruntime import OnnxRuntimeConverter  # noqa: E402
from evalkit.core.errors import InputError, UnavailableError  # noqa: E402

INT8 = ConvertSettings("int8", threads=1, shape=(1, 3, SIDE, SIDE))
FP16 = replace(INT8, precision="fp16")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("convert") / "small.onnx")


@pytest.fixture(scope="module")
def int8(source: Path) -> Path:
    out = source.with_name("int8.onnx")
    OnnxRuntimeConverter.build(source, out, INT8, Chunks())
    return out


def run(model: Path, precision: Any = "fp32") -> NDArray[np.float32]:
    """What the graph gives; in exact arithmetic where this CPU's int8 is not."""
    if precision == "int8" and cpu_saturates():
        return exact(model, Chunks())
    with OnnxRuntimeBackend.open(model, SessionOptions(precision, threads=1)) as session:
        return np.concatenate([session.run(batch)["y"] for batch in Chunks()])


def weights(model: Path) -> dict[str, Any]:
    return {w.name: w for w in onnx.load(model).graph.initializer}


def cosine(source: Path, out: Path, precision: Any = "int8") -> float:
    return compare([run(source)], [run(out, precision)]).mean


def ranges(source: Path, folder: Path, settings: ConvertSettings, batches: Any) -> dict[str, float]:
    """The largest magnitude that each activation keeps."""
    folder.mkdir(exist_ok=True)
    ready = toolchain._preprocessed(source, folder)
    cache = toolchain._calibrate(ready, batches, settings, folder)
    from onnxruntime.quantization.calibrate import load_tensors_data

    found = load_tensors_data(cache)
    return {k: float(np.abs(data.range_value).max()) for k, data in found.items()}


def test_int8_is_symmetric_per_channel_and_close_to_fp32(source: Path, int8: Path) -> None:
    assert cosine(source, int8) > 0.999
    held = weights(int8)
    zero_points = [w for name, w in held.items() if name.endswith("_zero_point")]
    assert zero_points
    for tensor in zero_points:
        assert tensor.data_type in {TensorProto.INT8, TensorProto.INT32}
        assert not numpy_helper.to_array(tensor).any()
    assert numpy_helper.to_array(held["a_scale"]).shape == (CHANNELS,)
    assert held["a_quantized"].data_type == TensorProto.INT8


def test_int8_runs_in_int8(int8: Path) -> None:
    with OnnxRuntimeBackend.open(int8, SessionOptions("int8", threads=1)) as session:
        assert session.ran.precision_ran.startswith("int8")
    with pytest.raises(InputError, match="built in int8"):
        OnnxRuntimeBackend.open(int8, SessionOptions("fp32", threads=1))


def test_one_scale_and_ranges_off_centre_on_request(source: Path, tmp_path: Path) -> None:
    settings = replace(INT8, per_channel=False, symmetric=False)
    built = OnnxRuntimeConverter.build(source, tmp_path / "u8.onnx", settings, Chunks())
    held = weights(tmp_path / "u8.onnx")
    assert numpy_helper.to_array(held["a_scale"]).size == 1
    assert held["x_zero_point"].data_type == TensorProto.UINT8
    assert cosine(source, tmp_path / "u8.onnx") > 0.99
    assert built.details["activations"] == "uint8"
    assert not built.notes


def test_prelu_stays_in_floats(int8: Path) -> None:
    """It has no int8 kernel: a quantised slope costs accuracy and buys nothing."""
    held = weights(int8)
    assert held["slope"].data_type == TensorProto.FLOAT
    assert "slope_quantized" not in held
    slow = [node for node in onnx.load(int8).graph.node if node.op_type == "PRelu"]
    assert slow


def test_entropy_is_not_minmax_in_disguise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many bins as quantised ones nothing is ever cut off."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "a"], ["y"], name="conv")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "a")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "one.onnx")
    source, far, entropy = tmp_path / "one.onnx", Chunks(tail=60.0), replace(INT8, method="entropy")
    most = ranges(source, tmp_path / "minmax", INT8, far)["x"]
    assert most == 60
    assert ranges(source, tmp_path / "entropy", entropy, far)["x"] < 0.5 * most
    monkeypatch.setattr(toolchain, "HISTOGRAM_BINS", 128)  # the toolchain's own
    assert ranges(source, tmp_path / "disguise", entropy, far)["x"] > 0.99 * most


def test_percentile_cuts_the_tail(source: Path, tmp_path: Path) -> None:
    far = Chunks(count=20, rows=8, tail=60.0)
    percentile = replace(INT8, method="percentile")
    assert ranges(source, tmp_path / "p", percentile, far)["x"] < 30


def test_activations_are_collected_in_chunks(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once they take gigabytes; the ranges are the same."""
    made = toolchain.create_calibrator
    counts: list[int] = []

    def watched(*args: Any, **options: Any) -> Any:
        calibrator = made(*args, **options)
        collect = calibrator.collect_data

        def counted(reader: Any) -> None:
            feeds = []
            while feed := reader.get_next():
                feeds.append(next(iter(feed.values())))
            counts.append(len(feeds))
            collect(toolchain._Reader("x", feeds))

        calibrator.collect_data = counted
        return calibrator

    monkeypatch.setattr(toolchain, "create_calibrator", watched)
    batches = Chunks(count=2 * toolchain.CHUNK + 1)
    in_chunks = ranges(source, tmp_path / "chunks", INT8, batches)
    assert counts == [toolchain.CHUNK, toolchain.CHUNK, 1]
    monkeypatch.setattr(toolchain, "CHUNK", 100)
    assert ranges(source, tmp_path / "whole", INT8, batches) == in_chunks


def test_an_old_opset_is_raised_where_channels_have_scales(tmp_path: Path) -> None:
    old = write_network(tmp_path / "old.onnx", opset=11)
    built = OnnxRuntimeConverter.build(old, tmp_path / "out.onnx", INT8, Chunks())
    assert built.details["opset"] >= 13
    assert cosine(old, tmp_path / "out.onnx") > 0.999


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    fixed = write_network(tmp_path / "fixed.onnx", batch=4)
    OnnxRuntimeConverter.build(fixed, tmp_path / "out.onnx", INT8, Chunks(rows=4))
    assert cosine(fixed, tmp_path / "out.onnx") > 0.999


def test_layers_without_a_name_get_one(source: Path) -> None:
    for settings in (INT8, FP16):
        assert OnnxRuntimeConverter.layers(source, settings) == LAYERS


@pytest.mark.parametrize("layer", LAYERS)
def test_excluded_layers_keep_their_weights(source: Path, tmp_path: Path, layer: str) -> None:
    settings = replace(INT8, exclude=(layer,))
    OnnxRuntimeConverter.build(source, tmp_path / "out.onnx", settings, Chunks())
    held = weights(tmp_path / "out.onnx")
    own = dict(zip(LAYERS, "abcw", strict=True))
    for name, weight in own.items():
        quantised = f"{weight}_quantized" in held
        assert quantised == (name != layer)


def test_trials_of_exclusions_calibrate_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    calibrate = toolchain._calibrate

    def counted(model: Path, *rest: Any) -> Path:
        calls.append(model)
        return calibrate(model, *rest)

    monkeypatch.setattr(toolchain, "_calibrate", counted)
    with OnnxRuntimeConverter.builder(source, INT8, Chunks()) as build:
        for number, layer in enumerate(LAYERS):
            build(tmp_path / f"{number}.onnx", (layer,))
    assert len(calls) == 1
    OnnxRuntimeConverter.build(
        source, tmp_path / "alone.onnx", replace(INT8, exclude=("second",)), Chunks()
    )
    assert (tmp_path / "alone.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()


def test_a_model_that_overflows_is_told(tmp_path: Path) -> None:
    wild = write_network(tmp_path / "wild.onnx", gain=1e38)
    with pytest.raises(InputError, match="no finite range over the calibration images"):
        OnnxRuntimeConverter.build(wild, tmp_path / "out.onnx", INT8, Chunks())


def test_a_file_that_is_no_graph_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\x08\x08nothing")
    with pytest.raises(InputError, match="reading the graph failed"):
        OnnxRuntimeConverter.build(tmp_path / "x.onnx", tmp_path / "out.onnx", INT8, Chunks())


def test_the_toolchain_prints_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(INT8, method="percentile")
    OnnxRuntimeConverter.build(source, tmp_path / "out.onnx", settings, Chunks())
    assert capsys.readouterr().out == ""


def test_tools_without_a_cache_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain.ort_quantization, "quantize_static", lambda model, out: None)
    with pytest.raises(UnavailableError, match="pip install -U onnxruntime"):
        OnnxRuntimeConverter.build(source, tmp_path / "out.onnx", INT8, Chunks())


def test_it_is_registered() -> None:
    assert CONVERTERS.get("onnxruntime") is OnnxRuntimeConverter


class TestHalf:
    @pytest.fixture(autouse=True)
    @staticmethod
    def tools() -> None:
        pytest.importorskip("onnxconverter_common", reason="needs the convert extra")

    def test_weights_are_halves_and_images_floats(self, source: Path, tmp_path: Path) -> None:
        built = OnnxRuntimeConverter.build(source, tmp_path / "h.onnx", FP16, None)
        held = weights(tmp_path / "h.onnx")
        assert {w.data_type for w in held.values()} == {TensorProto.FLOAT16}
        model = onnx.load(tmp_path / "h.onnx")
        ends = [*model.graph.input, *model.graph.output]
        assert {end.type.tensor_type.elem_type for end in ends} == {TensorProto.FLOAT}
        onnx.checker.check_model(model, full_check=True)
        assert cosine(source, tmp_path / "h.onnx", "fp16") > 0.99999
        assert set(built.versions) == {"onnxruntime", "onnx", "onnxconverter-common"}

    def test_excluded_layers_stay_in_floats(self, source: Path, tmp_path: Path) -> None:
        settings = replace(FP16, exclude=("second",))
        OnnxRuntimeConverter.build(source, tmp_path / "h.onnx", settings, None)
        held = weights(tmp_path / "h.onnx")
        assert held["b"].data_type == TensorProto.FLOAT
        assert held["a"].data_type == TensorProto.FLOAT16
        assert cosine(source, tmp_path / "h.onnx", "fp16") > 0.99999

    def test_a_resize_between_convolutions_still_runs(self, tmp_path: Path) -> None:
        """Its scales must stay float32, and casts must stand around it."""
        rng = np.random.default_rng(1)
        nodes = [
            helper.make_node("Conv", ["x", "a"], ["1"], name="conv"),
            helper.make_node("Resize", ["1", "", "scales"], ["2"], mode="nearest", name="resize"),
            helper.make_node("GlobalAveragePool", ["2"], ["3"], name="pool"),
            helper.make_node("Flatten", ["3"], ["y"], name="flatten"),
        ]
        held = {"a": rng.normal(0, 1, (4, 3, 1, 1)), "scales": np.array([1, 1, 2, 2])}
        graph = helper.make_graph(
            nodes,
            "resized",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
            [numpy_helper.from_array(v.astype(np.float32), k) for k, v in held.items()],
        )
        opset = [helper.make_opsetid("", 17)]
        source = tmp_path / "resized.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), source)
        OnnxRuntimeConverter.build(source, tmp_path / "h.onnx", FP16, None)
        assert weights(tmp_path / "h.onnx")["scales"].data_type == TensorProto.FLOAT
        assert cosine(source, tmp_path / "h.onnx", "fp16") > 0.99999

    def test_values_beyond_halves_are_told(self, tmp_path: Path) -> None:
        large = write_network(tmp_path / "large.onnx", gain=1e5)
        built = OnnxRuntimeConverter.build(large, tmp_path / "h.onnx", FP16, None)
        assert "beyond fp16" in built.notes[0]

    def test_values_that_halves_hold_are_not_cut(self, tmp_path: Path) -> None:
        """The toolchain's own limit is 10,000."""
        source = write_network(tmp_path / "large.onnx", gain=4e4)
        before = numpy_helper.to_array(weights(source)["a"])
        assert 1e4 < np.abs(before).max() < 65504
        built = OnnxRuntimeConverter.build(source, tmp_path / "h.onnx", FP16, None)
        after = numpy_helper.to_array(weights(tmp_path / "h.onnx")["a"])
        np.testing.assert_allclose(after, before, rtol=1e-3)
        assert not built.notes


def test_nan_is_told_once_and_not_by_numpy_too(tmp_path: Path) -> None:
    import warnings

    model = onnx.load(write_network(tmp_path / "nan.onnx"))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "a")
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[3] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "a"))
    onnx.save(model, tmp_path / "nan.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="no finite range over the calibration images"):
            OnnxRuntimeConverter.build(tmp_path / "nan.onnx", tmp_path / "x.onnx", INT8, Chunks())
