"""Building fp16, bf16 and int8 models, each with the toolchain that belongs to its backend."""

from __future__ import annotations

from evalkit.convert.base import Converter
from evalkit.core.registry import Entry, Registry

CONVERTERS: Registry[type[Converter]] = Registry(
    "converter",
    Converter,
    {
        "mxnet": Entry("evalkit.convert.mxnet:MxnetConverter"),
        "onnxruntime": Entry("evalkit.convert.onnxruntime:OnnxRuntimeConverter", extra="convert"),
        "openvino": Entry("evalkit.convert.openvino:OpenVinoConverter", extra="openvino"),
        "torch": Entry("evalkit.convert.torch.converter:TorchConverter", extra="torch"),
        "tensorrt": Entry("evalkit.convert.tensorrt:TensorRtConverter", extra="tensorrt"),
        "tvm": Entry("evalkit.convert.tvm:TvmConverter", extra="tvm"),
    },
)
