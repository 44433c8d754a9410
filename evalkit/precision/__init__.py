"""Building fp16, bf16 and int8 models, each with the toolchain that belongs to its backend."""

from __future__ import annotations

from evalkit.precision.base import Converter
from evalkit.registry import Entry, Registry

CONVERTERS: Registry[type[Converter]] = Registry(
    "converter",
    Converter,
    {
        "mxnet": Entry("evalkit.precision.mxnet:MxnetConverter"),
        "onnxruntime": Entry("evalkit.precision.onnxruntime:OnnxRuntimeConverter", extra="convert"),
        "openvino": Entry("evalkit.precision.openvino:OpenVinoConverter", extra="openvino"),
        "torch": Entry("evalkit.precision.torch:TorchConverter", extra="torch"),
        "tensorrt": Entry("evalkit.precision.tensorrt:TensorRtConverter", extra="tensorrt"),
        "tvm": Entry("evalkit.precision.tvm:TvmConverter", extra="tvm"),
    },
)
