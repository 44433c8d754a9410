"""TensorRT: engines from fp16 graphs and from QDQ graphs that ONNX Runtime's tools write.

Networks are strongly typed: the graph alone decides the precision, and there is no calibrator. The
graphs are tested; building engines from them has not been run on hardware.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from onnx import numpy_helper

from evalkit.backends.base import Precision
from evalkit.backends.tensorrt.build import bindings, build_engine
from evalkit.backends.tensorrt.memory import Device
from evalkit.convert.base import Batches, Build, Built, ConvertSettings
from evalkit.convert.onnx_compiler import OnnxCompiler
from evalkit.core.errors import InputError


class TensorRtConverter(OnnxCompiler):
    """ONNX to an engine (``.engine``) for the first GPU of this machine."""

    name: ClassVar[str] = "tensorrt"
    targets: ClassVar[tuple[Precision, ...]] = ("fp16", "int8")
    lowered: ClassVar[tuple[Precision, ...]] = targets
    refusals: ClassVar[dict[Precision, str]] = {
        "bf16": "A strongly typed network takes bf16 from a bf16 ONNX graph, and no tool here "
        "writes one. Build fp16, or export the model in bf16 and build the engine with trtexec.",
    }
    suffix: ClassVar[str] = ".engine"

    @classmethod
    @contextmanager
    def builder(
        cls, source: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Iterator[Build]:
        """See `Converter.builder`."""
        if settings.precision == "int8" and not settings.symmetric:
            raise InputError("TensorRT runs symmetric int8 only. Leave --no-symmetric out.")
        with super().builder(source, settings, batches) as build:
            yield build

    @classmethod
    def compile(cls, graph: Path, out: Path, settings: ConvertSettings) -> Built:
        """See `OnnxCompiler.compile`."""
        biases = float_biases(graph) if settings.precision == "int8" else 0
        _, channels, height, width = settings.shape
        with closing(Device(0)) as device, device.current():
            out.write_bytes(build_engine(graph, device.kind, (channels, height, width)))
        return Built(
            versions={"tensorrt": str(bindings().__version__)},
            details={"gpu": device.kind, "biases_in_fp32": biases},
        )


def float_biases(model: Path) -> int:
    """Write the int32 biases of a QDQ graph in fp32, in place, and count them.

    ONNX Runtime's tools quantise biases to int32. TensorRT's explicit quantisation supports 8 bits
    and fewer, and adds biases in fp32.
    """
    proto = onnx.load(model)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes, count = [], 0
    for node in proto.graph.node:
        tensor = weights.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if tensor is None or tensor.data_type != onnx.TensorProto.INT32:
            nodes.append(node)
            continue
        scale = numpy_helper.to_array(weights[node.input[1]])
        value = (numpy_helper.to_array(tensor).astype(np.float64) * scale).astype(scale.dtype)
        proto.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        count += 1
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in weights.values():
        if tensor.name not in used:
            proto.graph.initializer.remove(tensor)
    onnx.save(proto, model)
    return count
