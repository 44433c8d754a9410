"""Backends: one runtime a module; they know tensors, nothing of faces."""

from __future__ import annotations

import os

from evalkit.backends.base import Backend
from evalkit.backends.foreign import guarded
from evalkit.core.registry import Entry, Registry

# Read when a runtime loads OpenMP. Its threads would spin where they wait, and make a network ten
# to a hundred times slower as soon as decoding, or any other process, needs a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

BACKENDS: Registry[type[Backend]] = Registry(
    "backend",
    Backend,
    {
        "ascend": Entry("evalkit.backends.ascend:AscendBackend"),
        "caffe": Entry("evalkit.backends.caffe:CaffeBackend"),
        "magicmind": Entry("evalkit.backends.magicmind:MagicMindBackend"),
        "mxnet": Entry("evalkit.backends.mxnet.backend:MxnetBackend"),
        "onnxruntime": Entry(
            "evalkit.backends.onnxruntime.backend:OnnxRuntimeBackend", extra="cpu"
        ),
        "openvino": Entry("evalkit.backends.openvino:OpenVinoBackend", extra="openvino"),
        "outputs": Entry("evalkit.backends.outputs.backend:OutputsBackend"),
        "tensorrt": Entry("evalkit.backends.tensorrt.backend:TensorRtBackend", extra="tensorrt"),
        "torch": Entry("evalkit.backends.torch.backend:TorchBackend", extra="torch"),
        "tvm": Entry("evalkit.backends.tvm.backend:TvmBackend", extra="tvm"),
    },
    guard=guarded,
)
