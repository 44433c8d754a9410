"""TensorRT: engines from fp16 graphs and from QDQ graphs, which ONNX Runtime's tools make.

Networks are strongly typed: the graph alone decides, and there is no calibrator. The graphs are
tested; building engines from them has not been run on hardware.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx import numpy_helper

from evalkit.backends.base import Precision
from evalkit.backends.tensorrt.build import bindings, build_engine
from evalkit.backends.tensorrt.memory import Device
from evalkit.convert.base import Batches, Build, Built, Converter, ConvertSettings
from evalkit.core.errors import InputError


class TensorRtConverter(Converter):
    """ONNX to an engine (``.engine``) for the first GPU of this machine."""

    name: ClassVar[str] = "tensorrt"
    targets: ClassVar[tuple[Precision, ...]] = ("fp16", "int8")
    refusals: ClassVar[dict[Precision, str]] = {
        "bf16": "A strongly typed network takes bf16 from a bf16 ONNX graph, and no tool here "
        "writes one. Build fp16, or export the model in bf16 and build the engine with trtexec.",
    }
    suffix: ClassVar[str] = ".engine"

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """See `Converter.layers`."""
        names: tuple[str, ...] = _graphs().layers(source, settings)
        return names

    @classmethod
    def build(
        cls, source: Path, out: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Built:
        """See `Converter.build`."""
        with cls.builder(source, settings, batches) as build:
            return build(out, settings.exclude)

    @classmethod
    @contextmanager
    def builder(
        cls, source: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Iterator[Build]:
        """See `Converter.builder`: calibrates once."""
        if settings.precision == "int8" and not settings.symmetric:
            raise InputError("TensorRT takes symmetric int8 alone. Leave --no-symmetric out.")
        with (
            _graphs().builder(source, settings, batches) as write,
            tempfile.TemporaryDirectory(prefix="evalkit-") as folder,
        ):

            def build(out: Path, exclude: tuple[str, ...]) -> Built:
                graph = Path(folder) / "graph.onnx"
                made = write(graph, exclude)
                biases = float_biases(graph) if settings.precision == "int8" else 0
                device = Device(0)
                try:
                    with device.current():
                        plan = build_engine(graph, device.kind, _image(settings))
                finally:
                    device.close()
                out.write_bytes(plan)
                return Built(
                    versions={**made.versions, "tensorrt": str(bindings().__version__)},
                    details={**made.details, "gpu": device.kind, "biases_in_fp32": biases},
                    notes=made.notes,
                )

            yield build


def float_biases(model: Path) -> int:
    """Write the int32 biases of a QDQ graph in fp32, in place, and count them.

    ONNX Runtime's tools quantise biases to int32; TensorRT's explicit quantisation knows 8 bits
    and fewer, and adds biases in fp32.
    """
    proto = onnx.load(model)
    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    kept, done = [], 0
    for node in proto.graph.node:
        tensor = held.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if tensor is None or tensor.data_type != onnx.TensorProto.INT32:
            kept.append(node)
            continue
        scale = numpy_helper.to_array(held[node.input[1]])
        value = (numpy_helper.to_array(tensor).astype(np.float64) * scale).astype(scale.dtype)
        proto.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        done += 1
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    for tensor in held.values():
        if tensor.name not in used:
            proto.graph.initializer.remove(tensor)
    onnx.save(proto, model)
    return done


def _graphs() -> Any:
    from evalkit.convert.onnxruntime import OnnxRuntimeConverter  # noqa: PLC0415 - when used

    return OnnxRuntimeConverter


def _image(settings: ConvertSettings) -> tuple[int, int, int]:
    _, channels, height, width = settings.shape
    return channels, height, width
