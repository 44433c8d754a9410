"""TensorRT without a GPU: what it says of its absence, and all that needs no GPU.

The samples of layer information are written from NVIDIA's description of the engine inspector's
JSON for TensorRT 10 and 11; they were not printed by an engine.
"""

from __future__ import annotations

import json
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the test extra")

from tiny_network import Tiny, batch, write_onnx  # noqa: E402

from evalkit.backends.base import SessionOptions, TensorInfo  # noqa: E402
from evalkit.backends.kernels import Kernel, count_arithmetic, describe_precision  # noqa: E402
from evalkit.backends.tensorrt import build as tensorrt_build  # noqa: E402
from evalkit.backends.tensorrt import layers as tensorrt_layers  # noqa: E402
from evalkit.backends.tensorrt.backend import TensorRtBackend  # noqa: E402
from evalkit.core.errors import InputError, UnavailableError  # noqa: E402

INT8 = "Thirty-two wide channel vectorized row major Int8 format."
FP16 = "Channel major FP16 format where channel % 8 == 0"


def tensor(name: str, form: str) -> dict[str, Any]:
    return {"Name": name, "Dimensions": [16, 64, 56, 56], "Format/Datatype": form}


def layer(kind: str, given: str, made: str, **more: Any) -> dict[str, Any]:
    tensors = {"Inputs": [tensor("a", given)], "Outputs": [tensor("b", made)]}
    return {"Name": "layer", "LayerType": kind, **tensors, **more}


QUANTISED = {
    "Layers": [
        layer("Reformat", "Row major linear FP32", INT8, ParameterType="Reformat"),
        layer("CaskConvolution", INT8, INT8, ParameterType="Convolution"),
        layer("CaskConvolution", INT8, FP16, ParameterType="Convolution"),
        layer("CaskGemmConvolution", FP16, FP16, ParameterType="Convolution"),
        layer("PointWiseV2", FP16, FP16, ParameterType="PointWise"),
    ],
    "Bindings": ["image", "embedding"],
}
ELEVEN = {
    "Layers": [
        {
            "Name": "conv1 + relu1",
            "LayerType": "conv",
            "Inputs": [
                {"Name": "x", "DataType": "Half", "Format": "Channel major (kHWC8)"},
                {"Name": "w", "DataType": "Half", "Format": "Row major linear (kLINEAR)"},
            ],
            "Outputs": [{"Name": "y", "DataType": "Half", "Format": "Channel major (kHWC8)"}],
        },
        {"LayerType": "gemm", "Inputs": [{"Name": "y", "DataType": "BFloat16"}]},
        {"LayerType": "kgen", "Inputs": [{"Name": "z", "DataType": "Float"}]},
    ],
    "I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float"}],
}


def counts(information: Any) -> Counter[str]:
    return count_arithmetic(tensorrt_layers.layer_kernels(json.dumps(information)))


def test_layers_of_a_quantised_engine_are_counted() -> None:
    assert counts(QUANTISED) == {"int8": 2, "fp16": 1}
    assert describe_precision(counts(QUANTISED), "int8") == "int8 (2 of 3 kernels; 1 fp16)"
    assert tensorrt_layers.engine_precision(counts(QUANTISED)) == "int8"


def test_layers_of_the_eleventh_version_are_counted() -> None:
    assert counts(ELEVEN) == {"fp16": 1, "bf16": 1}
    assert tensorrt_layers.engine_precision(counts(ELEVEN)) == "fp16"


@pytest.mark.parametrize(
    "information",
    ['{"Layers": ["conv1 + relu1", "fc"], "Bindings": ["x"]}', "", "{}", "[]", '{"Layers": []}'],
)
def test_an_engine_that_tells_names_alone_tells_no_precision(information: str) -> None:
    kernels = tensorrt_layers.layer_kernels(information)
    assert kernels == []
    assert describe_precision(count_arithmetic(kernels), "fp16") == "unknown"
    tensorrt_layers.check_label(Path("m.engine"), {}, "fp16")


def test_tf32_is_not_fp32() -> None:
    form = "Row major linear FP32"
    fast = layer("CaskConvolution", form, form, TacticName="sm80_xmma_fprop_tf32f32_tf32f32_f32")
    plain = layer("CaskConvolution", form, form, TacticName="ampere_scudnn_128x64_relu_small_nn")
    assert counts({"Layers": [fast, plain]}) == {"tf32": 1, "fp32": 1}
    with pytest.raises(InputError, match="without TF32"):
        tensorrt_layers.check_label(Path("m.engine"), counts({"Layers": [fast]}), "fp32")


@pytest.mark.parametrize(
    ("word", "dtype"),
    [
        ("Float", "float32"),
        ("Row major linear FP32", "float32"),
        ("Half", "float16"),
        ("Row major linear FP16 format", "float16"),
        ("BFloat16", "bfloat16"),
        ("Row major linear BF16 format", "bfloat16"),
        ("Int8", "int8"),
        ("FP8", "fp8"),
        ("Bool", "Bool"),
    ],
)
def test_words_for_element_types_are_known(word: str, dtype: str) -> None:
    for key in ("DataType", "Format/Datatype"):
        text = json.dumps({"Layers": [{"LayerType": "gemm", "Inputs": [{key: word}]}]})
        assert tensorrt_layers.layer_kernels(text) == [Kernel("MatMul", "TensorRT", (dtype,))]


@pytest.mark.parametrize(
    ("counts", "precision", "message"),
    [
        ({"fp16": 5}, "int8", "--precision fp16.*--to int8 --backend tensorrt"),
        ({"fp32": 5}, "fp16", "--precision fp32.*--to fp16 --backend tensorrt"),
        ({"int8": 4, "fp16": 1}, "fp16", "--precision int8"),
        ({"fp16": 1, "fp32": 4}, "fp32", "--precision fp16"),
    ],
)
def test_a_label_that_the_engine_does_not_bear_is_refused(
    counts: dict[str, int], precision: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tensorrt_layers.check_label(Path("m.engine"), counts, precision)
    tensorrt_layers.check_label(Path("m.engine"), {"int8": 4, "fp16": 1}, "int8")


def test_profiles_hold_one_image_and_a_full_batch() -> None:
    shapes = tensorrt_layers.profile_shapes
    open_sizes = TensorInfo("x", "float32", ("n", 3, None, None))
    assert shapes(open_sizes, (3, 640, 640))[0] == (1, 3, 640, 640)
    low, best, high = shapes(open_sizes, (3, 640, 640))
    assert low[0] == 1 <= best[0] <= high[0]
    assert low[1:] == best[1:] == high[1:] == (3, 640, 640)
    fixed = shapes(TensorInfo("x", "float32", (4, 3, 16, 16)), (3, 99, 99))
    assert set(fixed) == {(4, 3, 16, 16)}
    for size in (1, 64):
        tensorrt_layers.check_profile(Path("m"), (size, 3, 640, 640), low, high)
    for bad in ((65, 3, 640, 640), (1, 3, 320, 640)):
        with pytest.raises(InputError, match="--batch-size"):
            tensorrt_layers.check_profile(Path("m"), bad, low, high)


def test_engines_are_kept_apart_by_all_that_makes_them() -> None:
    shapes = tensorrt_layers.profile_shapes(TensorInfo("x", "float32", ("n", 3, 8, 8)), None)
    base = ("sha", "nvidia-h200-sm90", "11.4.0", shapes)
    others = [("sha2", *base[1:]), ("sha", "nvidia-l4-sm89", *base[2:])]
    others += [(*base[:2], "10.13.3", shapes), (*base[:3], (shapes[0],) * 3)]
    keys = {tensorrt_layers.engine_key(*values) for values in [base, *others]}
    assert len(keys) == 5
    assert tensorrt_layers.engine_key(*base) == tensorrt_layers.engine_key(*base)


def test_a_foreign_engine_is_told_once_with_the_remedy() -> None:
    told = ["Serialization (Version) error: current 240, serialized 239."]
    text = tensorrt_layers.refused_engine(Path("m.engine"), "11.4.0", "nvidia-h200-sm90", told)
    assert text.startswith("m.engine is no engine for TensorRT 11.4.0 on nvidia-h200-sm90: Serial")
    assert "build it again here" in text
    assert "EVALKIT_TRUST_ENGINES" in text


class Weights:
    """What stands for TensorRT's network flags in a test of choosing them."""

    class NetworkDefinitionCreationFlag:
        STRONGLY_TYPED = 1


@pytest.mark.parametrize(("version", "flags"), [("10.13.3.9", 2), ("11.4.0.106", 0)])
def test_networks_are_strongly_typed_in_every_version(version: str, flags: int) -> None:
    held = types.SimpleNamespace(
        __version__=version,
        NetworkDefinitionCreationFlag=Weights.NetworkDefinitionCreationFlag,
    )
    assert tensorrt_build._network_flags(held) == flags


def test_the_key_of_an_engine_holds_external_weights(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    plain = tensorrt_build._digest(file)
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="w.bin", size_threshold=0)
    digest = tensorrt_build._digest(file)
    weights = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(weights[::-1])
    assert len({plain, digest, tensorrt_build._digest(file)}) == 3
    (tmp_path / "w.bin").unlink()
    with pytest.raises(InputError, match=r"w\.bin"):
        tensorrt_build._digest(file)


def test_absence_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    probe = TensorRtBackend.probe()
    assert not probe.available
    assert probe.reason.startswith("tensorrt cannot be imported")
    assert "pip install -e '.[tensorrt]'" in probe.remedy
    with pytest.raises(UnavailableError, match=r"tensorrt cannot be imported.*pip install"):
        TensorRtBackend.open(write_onnx(tiny, tmp_path / "m.onnx"), SessionOptions(device="cuda"))


def test_pycuda_and_the_gpu_are_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="11.4.0"))
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert TensorRtBackend.probe().reason.startswith("pycuda.driver cannot be imported")
    monkeypatch.setitem(sys.modules, "pycuda", types.ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", types.ModuleType("pycuda.driver"))
    monkeypatch.setattr("evalkit.backends.tensorrt.backend.cuda_device_count", lambda: 0)
    probe = TensorRtBackend.probe()
    assert (probe.available, probe.version) == (False, "11.4.0")
    assert "no GPU" in probe.reason


def test_biases_of_a_quantised_graph_turn_to_fp32_and_stay_the_same(
    tiny: Tiny, tmp_path: Path
) -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs the cpu extra")
    quantization = pytest.importorskip("onnxruntime.quantization", reason="needs the cpu extra")
    from evalkit.convert.tensorrt import float_biases

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"image": batch(8)}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    file, kind = tmp_path / "int8.onnx", quantization.QuantType.QInt8
    source = write_onnx(tiny, tmp_path / "m.onnx")
    settings = {"per_channel": True, "activation_type": kind, "weight_type": kind}
    quantization.quantize_static(source, file, Reader(), **settings)

    def run() -> Any:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return session.run(None, {"image": batch()})[0]

    before = run()
    assert float_biases(file) >= 1
    onnx.checker.check_model(onnx.load(file), full_check=True)
    kinds = {held.data_type for held in onnx.load(file).graph.initializer}
    assert onnx.TensorProto.INT32 not in kinds
    np.testing.assert_allclose(run(), before, rtol=1e-5, atol=1e-6)
    assert float_biases(file) == 0
