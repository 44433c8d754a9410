"""OpenVINO: the contract, and that the precision reported is the one that ran."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ov = pytest.importorskip("openvino", reason="needs the openvino extra")
onnx = pytest.importorskip("onnx", reason="needs the test extra")

from tiny_network import Tiny, batch, write_onnx  # noqa: E402

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.openvino import OpenVinoBackend  # noqa: E402
from evalkit.core.errors import InputError, UnavailableError  # noqa: E402
from evalkit.testing import BackendContract  # noqa: E402

ONE = SessionOptions(threads=1)
CAPABLE = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bf16 = pytest.mark.skipif("BF16" not in CAPABLE, reason="this CPU has no bf16 arithmetic")


def write_ir(tiny: Tiny, path: Path, *, half: bool = False, **how: Any) -> Path:
    """Write the network as OpenVINO's own files."""
    graph = ov.Core().read_model(write_onnx(tiny, path.with_suffix(".onnx"), **how))
    ov.save_model(graph, path, compress_to_fp16=half)
    return path


def write_quantised(tiny: Tiny, path: Path) -> Path:
    """Write a symmetric QDQ graph of ONNX Runtime's toolchain, one scale a channel."""
    tools = pytest.importorskip("onnxruntime.quantization", reason="needs the cpu extra")

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = [{"image": batch(8)}]

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return self.left.pop() if self.left else None

    source = write_onnx(tiny, path.with_name("to_quantise.onnx"))
    tools.quantize_static(
        source,
        path,
        Reader(),
        quant_format=tools.QuantFormat.QDQ,
        per_channel=True,
        activation_type=tools.QuantType.QInt8,
        weight_type=tools.QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    return path


class TestDynamicOnnx(BackendContract):
    backend = OpenVinoBackend

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_onnx(tiny, models / "ov_dynamic.onnx")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestFixedOnnx(TestDynamicOnnx):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_onnx(tiny, models / "ov_fixed.onnx", size=4)
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestIr(TestDynamicOnnx):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_ir(tiny, models / "ov_ir.xml")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestHalf(TestDynamicOnnx):
    """The yardstick is that of ten bits of mantissa."""

    options = SessionOptions("fp16", threads=1)
    rtol = 1e-2

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_ir(tiny, models / "ov_half.xml", half=True)
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


@needs_bf16
class TestBfloat(TestDynamicOnnx):
    """The yardstick is that of seven bits of mantissa."""

    options = SessionOptions("bf16", threads=1)
    rtol = 5e-2


class TestInt8(TestDynamicOnnx):
    """The yardstick is a few steps of 127."""

    options = SessionOptions("int8", threads=1)
    rtol = 5e-2

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_quantised(tiny, models / "ov_int8.onnx")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


def test_fp32_is_fp32_whatever_the_cpu_prefers(tiny: Tiny, tmp_path: Path) -> None:
    with OpenVinoBackend.open(write_onnx(tiny, tmp_path / "m.onnx"), ONE) as session:
        ran = session.ran
        given = session.run(batch())["output0"]
    assert ran.precision_ran == "fp32"
    assert ran.notes == ()
    assert ran.details["heavy_kernels_by_precision"] == {"fp32": 2}
    assert ran.details["inference_precision_hint"] == "f32"
    np.testing.assert_allclose(given, tiny(batch()), rtol=1e-4, atol=1e-5)


@needs_bf16
def test_bf16_is_read_from_the_kernels(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with OpenVinoBackend.open(file, SessionOptions("bf16", threads=1)) as session:
        assert session.ran.precision_ran == "bf16"
        given = session.run(batch())["output0"]
    assert not np.allclose(given, tiny(batch()), rtol=1e-4, atol=1e-5)


def test_int8_graph_runs_in_int8(tiny: Tiny, tmp_path: Path) -> None:
    file = write_quantised(tiny, tmp_path / "m.onnx")
    with OpenVinoBackend.open(file, SessionOptions("int8", threads=1)) as session:
        assert session.ran.precision_ran.startswith("int8")
        assert session.ran.details["heavy_kernels_by_precision"]["int8"] >= 1
        assert session.ran.details["inference_precision_hint"] == "f32"


@pytest.mark.skipif("FP16" in CAPABLE, reason="this CPU has fp16 arithmetic")
@pytest.mark.parametrize("form", ["ir", "onnx"])
def test_fp16_weights_on_a_cpu_without_fp16_are_reported_as_fp32(
    tiny: Tiny, tmp_path: Path, form: str
) -> None:
    if form == "ir":
        file = write_ir(tiny, tmp_path / "m.xml", half=True)
    else:
        file = write_onnx(tiny, tmp_path / "m.onnx", weights=np.float16)
    with OpenVinoBackend.open(file, SessionOptions("fp16", threads=1)) as session:
        assert session.ran.precision_ran == "fp32 (fp16 weights)"
        assert "rounding" in session.ran.notes[0]


@pytest.mark.skipif("FP16" in CAPABLE, reason="this CPU has fp16 arithmetic")
def test_fp16_of_fp32_weights_on_a_cpu_without_fp16_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with pytest.raises(UnavailableError, match="no fp16 arithmetic"):
        OpenVinoBackend.open(file, SessionOptions("fp16", threads=1))


def test_a_hint_that_the_runtime_changes_in_silence_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, tmp_path: Path
) -> None:
    if {"FP16", "BF16"} & set(CAPABLE) != {"BF16"}:
        pytest.skip("this CPU takes the hint as it is, or leaves it at f32")
    monkeypatch.setattr("evalkit.backends.openvino._CAPABILITIES", {})
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with pytest.raises(UnavailableError, match="asked to run in f16 on CPU, but chose bf16"):
        OpenVinoBackend.open(file, SessionOptions("fp16", threads=1))


@pytest.mark.parametrize(
    ("made", "asked"), [("fp32", "int8"), ("fp16", "fp32"), ("fp16", "int8"), ("int8", "fp32")]
)
def test_label_that_the_graph_does_not_bear_is_refused(
    tiny: Tiny, tmp_path: Path, made: str, asked: Any
) -> None:
    if made == "int8":
        file = write_quantised(tiny, tmp_path / "m.onnx")
    else:
        file = write_ir(tiny, tmp_path / "m.xml", half=made == "fp16")
    with pytest.raises(InputError, match=f"built in {made}, but {asked}"):
        OpenVinoBackend.open(file, SessionOptions(asked, threads=1))


def test_writable_batches_are_left_alone(tmp_path: Path) -> None:
    """The batch is shared with the runtime, whose first operator could work in place."""
    from onnx import TensorProto, helper

    shape: list[int | str] = ["n", 3, 16, 16]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "abc"]
    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["c"])]
    graph = helper.make_graph(nodes, "inplace", infos[:1], infos[2:])
    file = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file
    )
    given = batch()
    with OpenVinoBackend.open(file, ONE) as session:
        outputs = session.run(given)
        assert session.ran.precision_ran == "fp32"
    assert np.array_equal(given, batch())
    assert np.array_equal(outputs["c"], -np.maximum(given, 0))


def test_missing_weights_are_named(tiny: Tiny, tmp_path: Path) -> None:
    file = write_ir(tiny, tmp_path / "m.xml")
    file.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match=r"m\.xml.*weights m\.bin are missing: put them beside"):
        OpenVinoBackend.open(file, ONE)


def test_weights_cut_short_are_told(tiny: Tiny, tmp_path: Path) -> None:
    file = write_ir(tiny, tmp_path / "m.xml")
    weights = file.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match=r"m\.xml.*Incorrect weights in bin file\. It"):
        OpenVinoBackend.open(file, ONE)


def test_unknown_operators_are_named(tiny: Tiny, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "ab"]
    node = helper.make_node("Frobnicate", ["a"], ["b"], domain="nowhere")
    graph = helper.make_graph([node], "odd", infos[:1], infos[1:])
    file = tmp_path / "odd.onnx"
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), file)
    with pytest.raises(InputError, match=r"odd\.onnx.*Frobnicate"):
        OpenVinoBackend.open(file, ONE)
    ir = write_ir(tiny, tmp_path / "odd.xml")
    ir.write_text(ir.read_text().replace('type="PReLU"', 'type="Frobnicate"'))
    with pytest.raises(InputError, match=r"odd\.xml.*Frobnicate"):
        OpenVinoBackend.open(ir, ONE)


def test_an_unknown_operator_is_named_and_not_its_neighbour(tiny: Tiny, tmp_path: Path) -> None:
    held = onnx.load(write_onnx(tiny, tmp_path / "m.onnx"))
    (cast, *_) = held.graph.node  # a convolution follows, whose input is then of no known shape
    cast.op_type = "Frobnicate"
    file = tmp_path / "odd.onnx"
    file.write_bytes(held.SerializeToString())
    with pytest.raises(InputError, match="No conversion rule found for operations: Frobnicate"):
        OpenVinoBackend.open(file, ONE)


def test_other_suffixes_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx").rename(tmp_path / "m.pb")
    with pytest.raises(InputError, match=r"m\.pb: OpenVINO reads \.xml and \.onnx"):
        OpenVinoBackend.open(file, ONE)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "abc"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])], "add", infos[:2], infos[2:]
    )
    file = tmp_path / "two.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file
    )
    with pytest.raises(InputError, match=r"has 2 inputs \(a, b\)"):
        OpenVinoBackend.open(file, ONE)


def test_external_data_outside_the_folder_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    file = write_onnx(tiny, inside / "m.onnx")
    model = onnx.load(file)
    tensor = next(t for t in model.graph.initializer if t.name == "fc.weight")
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="no path below its own folder"):
        OpenVinoBackend.open(file, ONE)


def test_the_embedded_network_agrees_with_its_other_runtimes() -> None:
    pytest.importorskip("torch", reason="needs the torch extra")
    from evalkit.backends.torch.backend import TorchBackend
    from evalkit.core.settings import RunSettings, load_model_config

    config = load_model_config("sample-recognition", RunSettings())
    faces = np.random.default_rng(1).normal(0, 0.5, (3, 3, 112, 112)).astype(np.float32)
    with TorchBackend.open(config.file_for("torch"), ONE) as session:
        (wanted,) = session.run(faces).values()
    with OpenVinoBackend.open(config.file_for("onnxruntime"), ONE) as session:
        (given,) = session.run(faces).values()
    np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale", "shape"),
    [
        ("mobilefacenet.onnx", 1.0, (3, 112, 112)),
        ("y1.onnx", 128.0, (3, 112, 112)),
        ("scrfd_500m_bnkps.onnx", 1.0, (3, 640, 640)),
        ("yunet_n_dynamic.onnx", 128.0, (3, 320, 320)),
    ],
)
def test_real_networks_agree_with_onnx_runtime(
    shared_data: Path, tmp_path: Path, name: str, scale: float, shape: tuple[int, int, int]
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the cpu extra")
    from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend

    file = shared_data / "models" / name
    options = SessionOptions(threads=2, image=shape)
    with OnnxRuntimeBackend.open(file, options) as session:
        count = session.inputs[0].batch or 2
        images = np.random.default_rng(0).normal(0, scale, (count, *shape)).astype(np.float32)
        wanted = session.run(images)
    ir = tmp_path / "m.xml"
    ov.save_model(ov.Core().read_model(file), ir, compress_to_fp16=False)
    for form in (file, ir):
        with OpenVinoBackend.open(form, options) as session:
            assert session.ran.precision_ran == "fp32"
            given = session.run(images)
        assert set(given) == set(wanted)
        for output, value in wanted.items():
            spread = float(np.abs(value).max())
            np.testing.assert_allclose(given[output], value, rtol=1e-3, atol=1e-4 * spread)


def test_probe_without_a_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise RuntimeError("Exception from here:\nno plugin")

    monkeypatch.setattr("evalkit.backends.openvino._core", fail)
    probe = OpenVinoBackend.probe()
    assert not probe.available
    assert "no plugin" in probe.reason
    assert "pip install" in probe.remedy


def test_nothing_is_reported_to_anyone(tmp_path: Path) -> None:
    """OpenVINO's telemetry marks the home folder before it sends."""
    code = (
        "import evalkit.backends.openvino, sys\n"
        "assert sys.modules.get('openvino_telemetry') is None\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not list(tmp_path.iterdir())
